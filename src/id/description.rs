//! [`ShMemDescription`]: all that another process needs to attach.

use crate::id::ShMemId;

/// The id of a segment and how much of it to map: all that another process needs to attach.
///
/// It travels in messages, shared pages and, as two variables, in environments. It holds nothing:
/// the segment lives as long as some process has it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ShMemDescription {
    /// In bytes.
    pub size: usize,
    /// The id.
    pub id: ShMemId,
}

impl ShMemDescription {
    /// The description of `size` bytes of the segment whose id has the text `id_str`.
    #[must_use]
    pub fn from_string_and_size(id_str: &str, size: usize) -> Self {
        Self {
            size,
            id: ShMemId::from_string(id_str),
        }
    }
}
