//! Short texts without an allocator: paths, names, numbers.

use core::fmt::{self, Write};

/// ASCII text of at most `N` bytes. What does not fit is cut off.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// The text that `what` prints.
    pub(crate) fn of(what: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; N],
            len: 0,
        };
        // Nothing of what we print fails by itself, and what does not fit is cut.
        let _ = text.write_fmt(what);
        text
    }

    /// The parts, each of them text, one after the other: faster than [`of`](Self::of), which
    /// matters where a segment is made.
    pub(crate) fn joined(parts: &[&[u8]]) -> Self {
        let mut text = Self {
            bytes: [0; N],
            len: 0,
        };
        for part in parts {
            text.push(part);
        }
        text
    }

    /// Appends as much as there is room for.
    pub(crate) fn push(&mut self, part: &[u8]) {
        let end = (self.len + part.len()).min(N);
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            let (fits, _) = part.split_at(room.len());
            room.copy_from_slice(fits);
            self.len = end;
        }
    }

    /// The bytes of the text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push(more.as_bytes());
        Ok(())
    }
}
