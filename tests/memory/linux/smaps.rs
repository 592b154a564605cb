//! What the kernel reports about a mapping.

use std::fs;

/// The lines of `/proc/self/smaps` about one mapping.
#[derive(Debug)]
pub(crate) struct Smaps(String);

impl Smaps {
    /// Returns the lines about the mapping that contains this byte.
    pub(crate) fn of(byte: *const u8) -> Self {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let mut found = String::new();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((start, end)) = range(line) {
                inside = (start..end).contains(&byte.addr());
            }
            if inside {
                found.push_str(line);
                found.push('\n');
            }
        }
        assert!(!found.is_empty(), "nothing is mapped at {byte:?}");
        Self(found)
    }

    /// Returns the value of a line, in bytes.
    pub(crate) fn bytes(&self, name: &str) -> usize {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name));
        let kib = value.and_then(|value| value.trim_matches([':', ' ', 'k', 'B']).parse().ok());
        kib.map_or(0, |kib: usize| kib << 10)
    }

    /// Returns `true` if the mapping has this flag (`proc(5)`, `VmFlags`).
    pub(crate) fn has(&self, flag: &str) -> bool {
        let flags = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix("VmFlags:"));
        flags.is_some_and(|flags| flags.split_whitespace().any(|found| found == flag))
    }
}

/// Returns the addresses in the first line of a mapping.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}
