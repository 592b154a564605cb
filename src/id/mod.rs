//! [`ShMemId`]: the name of a segment in every process of the user.

pub(crate) mod description;

use core::fmt;
use core::ops::Deref;

use crate::error::Error;
use crate::util::fixed_str::Text;

/// How many bytes an id has.
const LEN: usize = 20;

/// What the text of an id becomes when what it was made from cannot be one. No mechanism makes or
/// opens an id that starts with a question mark.
mod defect {
    pub(super) const TOO_LONG: &str = "?too-long";
    pub(super) const INNER_NUL: &str = "?contains-nul";
    pub(super) const NO_NUL: &str = "?not-terminated";
    pub(super) const NOT_UTF_8: &str = "?not-utf-8";
}

/// Names a segment in every process of the user.
///
/// An id is text of at most 19 bytes, followed by zeros: exactly 20 bytes, to be put into
/// environments, messages and shared pages. All zeros is the empty id, which names nothing.
///
/// | text | means |
/// | --- | --- |
/// | decimal digits | the shmid of a System V segment |
/// | `/name` | a POSIX name |
/// | `m` and 18 characters of base64url | a memfd: the descriptor of a process, and a random number |
/// | `s` and 18 characters of base64url | a served segment: random |
/// | `w` and 18 characters of base64url | a section of Windows, in `Local\`: random |
/// | `Local\name`, `Global\name` | a section of Windows under a chosen name |
///
/// Every function is total: whatever bytes an id is made from, it is an id, and one that cannot be
/// understood opens nothing. Such an id says why: its text is `?too-long`, `?contains-nul`,
/// `?not-terminated` or `?not-utf-8`.
///
/// # Security
///
/// An id is a name, not a secret: the kernel lets no other user open what it names. It gives no
/// rights to those who know it.
///
/// # Examples
///
/// ```
/// use shmem_providers::ShMemId;
///
/// let id = ShMemId::from_string("/pictures");
/// assert_eq!(id.as_str(), "/pictures");
/// assert_eq!(ShMemId::from_array(id.as_array()), id);
/// assert_eq!(ShMemId::from_string("a text of more than 19 bytes").as_str(), "?too-long");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "[u8; 20]", into = "[u8; 20]"))]
#[repr(transparent)]
pub struct ShMemId {
    /// UTF-8, then at least one zero, then zeros only.
    bytes: [u8; LEN],
}

impl ShMemId {
    /// The id in `array`: text up to the first zero byte. What follows that byte is ignored.
    ///
    /// Without a zero byte the result is the id `?not-terminated`, with a text that is not UTF-8 it
    /// is `?not-utf-8`; neither opens anything.
    #[must_use]
    pub fn from_array(array: &[u8; 20]) -> Self {
        match Self::parse(array) {
            Ok(text) => Self::holding(text),
            Err(defect) => Self::holding(defect),
        }
    }

    /// The id in the first 20 bytes of `slice`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if there are fewer than 20 bytes, if none of them is zero, or if the text
    /// is not UTF-8.
    pub fn try_from_slice(slice: &[u8]) -> Result<Self, Error> {
        let Some(array) = slice.first_chunk::<LEN>() else {
            return Err(Error::InvalidId {
                id: Self::default(),
                problem: "an id has 20 bytes, and there are fewer",
            })?;
        };
        let text = Self::parse(array).map_err(|defect| Error::InvalidId {
            id: Self::holding(defect),
            problem: "an id is UTF-8 text of at most 19 bytes, followed by zeros",
        })?;
        Ok(Self::holding(text))
    }

    /// The id with this text.
    ///
    /// A text of more than 19 bytes makes the id `?too-long`, one that contains a zero byte the id
    /// `?contains-nul`; neither opens anything.
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

    /// The id with this number, in decimal, as its text: for a shmid, the System V segment.
    #[must_use]
    pub fn from_int(val: i32) -> Self {
        Self::holding(Text::<LEN>::of(format_args!("{val}")).as_bytes())
    }

    /// Whether this is the empty id, which names nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes[0] == 0
    }

    /// The 20 bytes: the text, then zeros, at least one.
    #[must_use]
    pub const fn as_array(&self) -> &[u8; 20] {
        &self.bytes
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self
            .bytes
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        // The constructors let nothing but UTF-8 pass.
        core::str::from_utf8(text).unwrap_or(defect::NOT_UTF_8)
    }

    /// The number, if the text is what [`from_int`](Self::from_int) makes of one.
    #[must_use]
    pub fn as_int(&self) -> Option<i32> {
        let number = self.as_str().parse().ok()?;
        (Self::from_int(number) == *self).then_some(number)
    }

    /// The error for an id that names no segment: what is wrong with it, or what was wrong with
    /// what it was made from.
    pub(crate) fn invalid(&self, problem: &'static str) -> Error {
        let problem = match self.as_str() {
            "" => "it is empty",
            defect::TOO_LONG => "it was made from a text of more than 19 bytes",
            defect::INNER_NUL => "it was made from a text that contains a zero byte",
            defect::NO_NUL => "it was made from 20 bytes none of which is zero",
            defect::NOT_UTF_8 => "it was made from bytes that are not UTF-8",
            _ => problem,
        };
        Error::InvalidId { id: *self, problem }
    }

    /// Holds `text`, of which the caller knows that it is UTF-8, shorter than 20 bytes and without
    /// zeros.
    pub(crate) fn holding(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let (text, _) = text.split_at(text.len().min(LEN - 1));
        let mut bytes = [0; LEN];
        if let Some(room) = bytes.get_mut(..text.len()) {
            room.copy_from_slice(text);
        }
        Self { bytes }
    }

    /// The text in `array`, or which defect it has.
    fn parse(array: &[u8; LEN]) -> Result<&str, &'static str> {
        let end = array
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(defect::NO_NUL)?;
        core::str::from_utf8(array.get(..end).unwrap_or_default()).map_err(|_| defect::NOT_UTF_8)
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
