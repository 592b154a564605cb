//! [`ShMemId`]: the name of a segment in every process of the user.

pub(crate) mod description;
pub(crate) mod kind;
#[cfg(feature = "serde")]
mod serde_impls;

use core::fmt;
use core::ops::Deref;
#[cfg(feature = "alloc")]
use core::str::FromStr;

use crate::error::{Error, Result};
use crate::id::kind::IdKind;
use crate::util::fixed_str::FixedStr;

/// The size of an id in bytes.
const LEN: usize = 20;

/// The texts of ids that were created from something that cannot be an id. No backend creates or opens an
/// id that starts with a question mark.
mod defect {
    pub(super) const TOO_LONG: &str = "?too-long";
    pub(super) const INNER_NUL: &str = "?contains-nul";
    pub(super) const NO_NUL: &str = "?not-terminated";
    pub(super) const NOT_UTF_8: &str = "?not-utf-8";
}

/// The name of a segment in every process of the user.
///
/// An id is text of at most 19 bytes, followed by zeros: exactly 20 bytes, which fit into environment
/// variables, messages and shared pages. All zeros is the empty id, which names nothing.
///
/// # Formats
///
/// | text | names |
/// | --- | --- |
/// | decimal digits | a System V segment, by its `shmid` |
/// | `/name` | a POSIX shared memory object |
/// | `m` and 18 characters of base64url | a memfd: 22 bits for the process, 20 for the descriptor, 64 for a random number ([`MemfdLocator`](kind::MemfdLocator)) |
/// | `s` and 18 characters of base64url | a served segment, by a random number |
/// | `f` and 18 characters of base64url | a file of this name in `shmem-UID` below `$TMPDIR`, by a random number |
/// | `w` and 18 characters of base64url | a Windows section in `Local\`, by a random number |
/// | `Local\name`, `Global\name` | a Windows section with a chosen name |
///
/// These formats are stable: other programs and languages may create and parse them. [`kind`](Self::kind)
/// tells which one a text has.
///
/// # Invalid ids
///
/// [`from_string`](Self::from_string) and [`from_array`](Self::from_array) accept any bytes and never fail:
/// what cannot be an id becomes one that opens nothing and whose text is the reason, `?too-long`,
/// `?contains-nul`, `?not-terminated` or `?not-utf-8`. [`str::parse`] and `TryFrom<&str>` return an error
/// instead.
///
/// # Security
///
/// An id is a name and not a secret: the kernel lets no other user open what it names, and knowing it
/// grants no rights.
///
/// # Examples
///
/// ```
/// use shmem_providers::{IdKind, ShMemId};
///
/// let id: ShMemId = "/pictures".parse()?;
/// assert_eq!(id.as_str(), "/pictures");
/// assert_eq!(id.kind(), IdKind::Posix);
/// assert_eq!(ShMemId::from_array(id.as_array()), id);
///
/// let error = "a text of more than 19 bytes".parse::<ShMemId>().unwrap_err();
/// assert_eq!(error.text(), "a text of more than 19 bytes");
/// assert_eq!(ShMemId::from_string(error.text()).as_str(), "?too-long");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ShMemId {
    /// UTF-8, then zeros, at least one.
    bytes: [u8; LEN],
}

impl ShMemId {
    /// Returns the id in `array`: the text up to the first zero byte. The bytes after it are ignored.
    ///
    /// Without a zero byte the result is the id `?not-terminated`, for text that is not UTF-8 it is
    /// `?not-utf-8`. Neither opens anything.
    #[must_use]
    pub fn from_array(array: &[u8; 20]) -> Self {
        match Self::text_of(array) {
            Ok(text) => Self::holding(text),
            Err(defect) => Self::holding(defect),
        }
    }

    /// Returns the id in the first 20 bytes of `slice`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if there are fewer than 20 bytes, if none of them is zero, or if the text
    /// is not UTF-8.
    pub fn try_from_slice(slice: &[u8]) -> Result<Self> {
        let Some(array) = slice.first_chunk::<LEN>() else {
            return Err(Error::InvalidId {
                id: Self::default(),
                problem: "an id has 20 bytes, and there are fewer",
            });
        };
        let text = Self::text_of(array).map_err(|defect| Error::InvalidId {
            id: Self::holding(defect),
            problem: "an id is UTF-8 text of at most 19 bytes, followed by zeros",
        })?;
        Ok(Self::holding(text))
    }

    /// Returns the id with this text.
    ///
    /// For a text of more than 19 bytes that is the id `?too-long`, for one that contains a zero byte
    /// `?contains-nul`. Neither opens anything.
    #[must_use]
    pub fn from_string(val: &str) -> Self {
        if val.contains('\0') {
            Self::holding(defect::INNER_NUL)
        } else if val.len() < LEN {
            Self::holding(val)
        } else {
            Self::holding(defect::TOO_LONG)
        }
    }

    /// Returns the id whose text is this number in decimal. For a `shmid` it names the System V segment.
    #[must_use]
    pub fn from_int(val: i32) -> Self {
        Self::holding(FixedStr::<LEN>::of(format_args!("{val}")).as_bytes())
    }

    /// Returns what the id names, by the form of its text.
    #[must_use]
    pub fn kind(&self) -> IdKind {
        IdKind::of(self.as_str())
    }

    /// Returns `true` for the empty id, which names nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes[0] == 0
    }

    /// Returns the 20 bytes: the text, then zeros, at least one.
    #[must_use]
    pub const fn as_array(&self) -> &[u8; 20] {
        &self.bytes
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self
            .bytes
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        // The constructors accept UTF-8 only.
        core::str::from_utf8(text).unwrap_or(defect::NOT_UTF_8)
    }

    /// Returns the number if the text is what [`from_int`](Self::from_int) creates for it.
    #[must_use]
    pub fn as_int(&self) -> Option<i32> {
        let number = self.as_str().parse().ok()?;
        (Self::from_int(number) == *self).then_some(number)
    }

    /// Returns the error for an id of another kind than the one that `expected` describes.
    pub(crate) fn invalid(&self, expected: &'static str) -> Error {
        let problem = match self.kind() {
            IdKind::Empty => "it is empty",
            IdKind::Invalid { problem } => problem,
            _ => expected,
        };
        Error::InvalidId { id: *self, problem }
    }

    /// Returns what was wrong with the source of an id whose text starts with a question mark.
    fn defect_of(text: &str) -> &'static str {
        match text {
            defect::TOO_LONG => "it was created from a text of more than 19 bytes",
            defect::INNER_NUL => "it was created from a text that contains a zero byte",
            defect::NO_NUL => "it was created from 20 bytes none of which is zero",
            defect::NOT_UTF_8 => "it was created from bytes that are not UTF-8",
            _ => "an id does not start with a question mark",
        }
    }

    /// Returns the id with this text, which is UTF-8, shorter than 20 bytes and contains no zeros.
    pub(crate) fn holding(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        debug_assert!(text.len() < LEN, "the text of an id is cut off");
        let (text, _) = text.split_at(text.len().min(LEN - 1));
        let mut bytes = [0; LEN];
        if let Some(start) = bytes.get_mut(..text.len()) {
            start.copy_from_slice(text);
        }
        Self { bytes }
    }

    /// Returns the id whose text consists of these parts, under the conditions of
    /// [`holding`](Self::holding).
    pub(crate) fn joined(parts: &[&[u8]]) -> Self {
        Self::holding(FixedStr::<LEN>::joined(parts).as_bytes())
    }

    /// Returns the text in `array`, or the defect that it has.
    fn text_of(array: &[u8; LEN]) -> Result<&str, &'static str> {
        let end = array
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(defect::NO_NUL)?;
        core::str::from_utf8(array.get(..end).unwrap_or_default()).map_err(|_| defect::NOT_UTF_8)
    }
}

/// A text that is no id: returned by [`str::parse`] and `ShMemId::try_from`.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    text: alloc::string::String,
    problem: &'static str,
}

#[cfg(feature = "alloc")]
impl ParseIdError {
    /// Returns the text that is no id, unchanged.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(feature = "alloc")]
impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not the id of a segment: {}",
            self.text, self.problem
        )
    }
}

#[cfg(feature = "alloc")]
impl core::error::Error for ParseIdError {}

/// Loses the text of an error that is about a text of more than 19 bytes.
#[cfg(feature = "alloc")]
impl From<ParseIdError> for Error {
    fn from(error: ParseIdError) -> Self {
        Self::InvalidId {
            id: ShMemId::from_string(&error.text),
            problem: error.problem,
        }
    }
}

/// Accepts the texts that name a segment, and no others: [`kind`](ShMemId::kind) is neither
/// [`Empty`](IdKind::Empty) nor [`Invalid`](IdKind::Invalid).
#[cfg(feature = "alloc")]
impl FromStr for ShMemId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let id = Self::from_string(text);
        let problem = match id.kind() {
            IdKind::Empty => "it is empty",
            // What was too long has become another text.
            IdKind::Invalid { .. } if text.len() >= LEN => "it has more than 19 bytes",
            IdKind::Invalid { .. } if text.contains('\0') => "it contains a zero byte",
            IdKind::Invalid { problem } => problem,
            _ => return Ok(id),
        };
        Err(ParseIdError {
            text: text.into(),
            problem,
        })
    }
}

/// As [`FromStr`].
#[cfg(feature = "alloc")]
impl TryFrom<&str> for ShMemId {
    type Error = ParseIdError;

    fn try_from(text: &str) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

/// The text, as [`as_str`](ShMemId::as_str).
impl AsRef<str> for ShMemId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The 20 bytes, as [`as_array`](ShMemId::as_array).
impl Deref for ShMemId {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<[u8; 20]> for ShMemId {
    fn from(array: [u8; 20]) -> Self {
        Self::from_array(&array)
    }
}

impl From<ShMemId> for [u8; 20] {
    fn from(id: ShMemId) -> Self {
        id.bytes
    }
}

/// The text, as [`as_str`](ShMemId::as_str).
impl fmt::Display for ShMemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ShMemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
