//! [`ObjectName`]: the name of an object in the kernel that belongs to a section.

use core::fmt::Arguments;

use super::views::SectionName;
use crate::util::fixed_str::FixedStr;

/// The name of a section with a suffix, and a zero at the end.
pub(super) struct ObjectName([u16; Self::LEN]);

impl ObjectName {
    const LEN: usize = 96;

    /// Appends the suffix, which has at most 48 bytes.
    pub(super) fn of(section: &SectionName, suffix: Arguments<'_>) -> Self {
        let section = core::str::from_utf8(section.as_bytes()).unwrap_or_default();
        // The same namespace, in which every session finds it that finds the section.
        let (namespace, own) = section.rsplit_once('\\').unwrap_or(("Local", section));
        let text: FixedStr<88> = FixedStr::of(format_args!(r"{namespace}\{own}-{suffix}"));
        let mut name = [0; Self::LEN];
        for (unit, byte) in name.iter_mut().zip(text.as_bytes()) {
            *unit = u16::from(*byte);
        }
        Self(name)
    }

    pub(super) fn as_ptr(&self) -> *const u16 {
        self.0.as_ptr()
    }
}
