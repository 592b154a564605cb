//! [`FixedStr`]: short strings without an allocator, for paths, names and numbers.

use core::fmt::{self, Write};

/// A string of at most `N` bytes.
#[derive(Clone, Copy)]
pub(crate) struct FixedStr<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> FixedStr<N> {
    const fn empty() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Returns the formatted text, which has at most `N` bytes.
    pub(crate) fn of(text: fmt::Arguments<'_>) -> Self {
        let mut string = Self::empty();
        // `write_str` never fails, and neither does the formatting of what this crate passes.
        let _ = string.write_fmt(text);
        string
    }

    /// Concatenates the parts, which have at most `N` bytes together.
    ///
    /// Creating a segment uses this instead of [`of`](Self::of), which is slower.
    pub(crate) fn joined(parts: &[&[u8]]) -> Self {
        let mut string = Self::empty();
        for part in parts {
            string.push(part);
        }
        string
    }

    /// Concatenates the parts and cuts off what exceeds `N` bytes.
    #[allow(
        dead_code,
        reason = "not every system has names of unknown length to read"
    )]
    pub(crate) fn truncated(parts: &[&[u8]]) -> Self {
        let mut string = Self::empty();
        for part in parts {
            string.push_truncated(part);
        }
        string
    }

    /// Appends `part`, which fits.
    pub(crate) fn push(&mut self, part: &[u8]) {
        debug_assert!(
            part.len() <= N.saturating_sub(self.len),
            "{} bytes do not fit into a string of {N} bytes that has {}",
            part.len(),
            self.len
        );
        self.push_truncated(part);
    }

    /// Appends as much of `part` as fits.
    pub(crate) fn push_truncated(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len()).min(N);
        if let Some(dst) = self.bytes.get_mut(self.len..end) {
            let (fitting, _) = part.split_at(dst.len());
            dst.copy_from_slice(fitting);
            self.len = end;
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> Write for FixedStr<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::FixedStr;

    #[test]
    fn truncates_only_where_that_is_asked_for() {
        assert_eq!(FixedStr::<4>::joined(&[b"ab", b"cd"]).as_bytes(), b"abcd");
        assert_eq!(
            FixedStr::<4>::of(format_args!("{}", -12)).as_bytes(),
            b"-12"
        );
        let truncated = FixedStr::<4>::truncated(&[b"abc", b"def", b"g"]);
        assert_eq!(truncated.as_bytes(), b"abcd");
    }
}
