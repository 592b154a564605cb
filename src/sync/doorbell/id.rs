//! [`DoorbellId`]: where other processes find a doorbell, as text and as words of shared memory.

use core::fmt;
use core::str::FromStr;

/// What text of an id starts with.
const PREFIX: &str = "bell-";

/// Names a [`Doorbell`](crate::sync::Doorbell) to other processes of the same user.
///
/// It is the process id in `/proc` of the process that created the doorbell, the number of its descriptor, and
/// the inode of the pipe. The text is `bell-PID.NUMBER.INODE`. An id whose doorbell is gone never names another
/// pipe: the inode is compared.
///
/// # Examples
///
/// ```
/// use shmem_providers::sync::DoorbellId;
///
/// let id: DoorbellId = "bell-4242.7.180467".parse()?;
/// assert_eq!(id.to_string(), "bell-4242.7.180467");
/// assert_eq!(DoorbellId::from_words(id.to_words()), Some(id));
/// # Ok::<(), shmem_providers::sync::ParseDoorbellIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DoorbellId {
    pub(super) process: u32,
    pub(super) number: u32,
    pub(super) inode: u64,
}

impl DoorbellId {
    /// How many words an id has.
    pub const WORDS: usize = 5;

    /// Returns `None` if no process can have this number.
    pub(super) fn new(process: u32, number: u32, inode: u64) -> Option<Self> {
        (process != 0).then_some(Self {
            process,
            number,
            inode,
        })
    }

    /// Returns the id as words, for shared memory. The last one is a checksum.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the inode")]
    pub fn to_words(self) -> [u32; Self::WORDS] {
        let (low, high) = (self.inode as u32, (self.inode >> 32) as u32);
        [self.process, self.number, low, high, self.checksum()]
    }

    /// Returns the id with these words, or `None` if they are none: all zero, torn, or changed.
    #[must_use]
    pub fn from_words(words: [u32; Self::WORDS]) -> Option<Self> {
        let [process, number, low, high, checksum] = words;
        let id = Self::new(process, number, u64::from(high) << 32 | u64::from(low))?;
        (id.checksum() == checksum).then_some(id)
    }

    /// FNV-1a, as it is published, over the bytes of the other words.
    fn checksum(self) -> u32 {
        let words = [
            u64::from(self.number) << 32 | u64::from(self.process),
            self.inode,
        ];
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }
}

impl fmt::Display for DoorbellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}.{}", self.process, self.number, self.inode)
    }
}

impl FromStr for DoorbellId {
    type Err = ParseDoorbellIdError;

    fn from_str(text: &str) -> Result<Self, ParseDoorbellIdError> {
        let parse = || {
            let text = text.strip_prefix(PREFIX)?;
            // The integers' parsers accept a sign.
            if text.contains('+') {
                return None;
            }
            let mut numbers = text.split('.');
            let process = numbers.next()?.parse().ok()?;
            let number = numbers.next()?.parse().ok()?;
            let inode = numbers.next()?.parse().ok()?;
            let id = Self::new(process, number, inode)?;
            numbers.next().is_none().then_some(id)
        };
        parse().ok_or(ParseDoorbellIdError(()))
    }
}

/// A text that is not the id of a doorbell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDoorbellIdError(());

impl fmt::Display for ParseDoorbellIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a doorbell: it must be `bell-PID.NUMBER.INODE`")
    }
}

impl core::error::Error for ParseDoorbellIdError {}
