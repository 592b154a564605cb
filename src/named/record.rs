//! [`Name`], and [`Record`]: what the entry of a name says about its segment. Free of I/O.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::named::MAX_LEN;
use crate::error::{Error, NamedError, Result};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::util::fixed_str::FixedStr;

/// The start of every entry: the format, and its version.
const MAGIC: &[u8; 8] = b"shmem-n1";

/// The largest entry in bytes: magic, id, size, whether it persists, name.
pub(super) const MAX_RECORD: usize = 8 + 20 + 8 + 1 + MAX_LEN;

/// How many digits the hash of a name has.
pub(super) const HASH_DIGITS: usize = 16;

/// A name that segments can have, and its hash.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    hash: FixedStr<HASH_DIGITS>,
}

impl<'a> Name<'a> {
    /// Returns an error if no segment can have this name.
    pub(super) fn new(text: &'a str) -> Result<Self> {
        let reason = match text.len() {
            0 => NamedError::Empty,
            1..=MAX_LEN if !text.contains('\0') => {
                let hash = FixedStr::of(format_args!("{:016x}", fnv_1a(text.as_bytes())));
                return Ok(Self { text, hash });
            }
            1..=MAX_LEN => NamedError::ContainsNul,
            len => NamedError::TooLong { len },
        };
        Err(Error::Named {
            name: text.chars().take(MAX_LEN).collect(),
            reason,
        })
    }

    /// Returns the hash in hexadecimal digits, which differ on file systems that ignore case.
    pub(super) fn hash(&self) -> &str {
        core::str::from_utf8(self.hash.as_bytes()).unwrap_or_default()
    }

    pub(super) fn error(&self, reason: NamedError) -> Error {
        Error::Named {
            name: self.text.to_owned(),
            reason,
        }
    }
}

/// Returns the hash FNV-1a of 64 bits. Names with the same hash are told apart by the names in their entries.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What the entry of a name says about its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) id: ShMemId,
    pub(super) size: usize,
    /// The segment stays until it is removed.
    pub(super) persistent: bool,
}

impl Record {
    pub(super) fn description(&self) -> ShMemDescription {
        ShMemDescription {
            id: self.id,
            size: self.size,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_RECORD);
        bytes.extend(MAGIC);
        bytes.extend(self.id.as_array());
        bytes.extend((self.size as u64).to_le_bytes());
        bytes.push(u8::from(self.persistent));
        bytes.extend(self.name.as_bytes());
        bytes
    }

    /// Returns `None` for bytes that [`to_bytes`](Self::to_bytes) does not return.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(MAGIC)?;
        let (id, bytes) = bytes.split_first_chunk::<20>()?;
        let (size, bytes) = bytes.split_first_chunk::<8>()?;
        let (persistent, name) = bytes.split_first()?;
        let name = Name::new(core::str::from_utf8(name).ok()?).ok()?;
        Some(Self {
            name: name.text.to_owned(),
            id: ShMemId::try_from_slice(id).ok()?,
            size: u64::from_le_bytes(*size).try_into().ok()?,
            persistent: match persistent {
                0 => false,
                1 => true,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn records_are_read_back_and_anything_else_is_refused() {
        let record = Record {
            name: "a/../\n\u{1f980}".repeat(15),
            id: ShMemId::from_string("/x"),
            size: usize::MAX,
            persistent: true,
        };
        let bytes = record.to_bytes();
        assert_eq!(Record::parse(&bytes), Some(record));
        // Neither a part, nor one with another byte in the parts that are fixed.
        assert!((0..38).all(|end| Record::parse(bytes.split_at(end).0).is_none()));
        for at in (0..8).chain([36]) {
            let mut other = bytes.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 0x80;
            }
            assert_eq!(Record::parse(&other), None, "{at}");
        }
        assert_eq!(Record::parse(&[bytes, vec![b'x'; MAX_LEN]].concat()), None);
    }

    #[test]
    fn names_have_1_to_200_bytes_without_zeros() {
        for text in [
            "a",
            "/",
            "..",
            "\n",
            &"x".repeat(200),
            &"\u{1f980}".repeat(50),
        ] {
            assert!(Name::new(text).is_ok(), "{text:?}");
        }
        for text in ["", "a\0", &"x".repeat(201), &"\u{1f980}".repeat(51)] {
            assert!(Name::new(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Name::new("").err().map(|error| error.kind()),
            Some(ErrorKind::InvalidName)
        );
    }
}
