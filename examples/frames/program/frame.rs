//! A frame: one word in each line of the cache tells which frame it is.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::Result;

/// The size of a line of the cache in bytes. All memory of a frame moves between the processors, although
/// only one word of each line is written and read.
pub(super) const LINE: usize = 64;

const WORDS: usize = LINE / size_of::<u64>();

/// Draws the frame with this number.
pub(super) fn draw(frame: &[AtomicU64], number: u32) {
    for (line, word) in (0..).zip(frame.iter().step_by(WORDS)) {
        word.store(expected(number, line), Relaxed);
    }
}

/// Checks every word that [`draw`] has written.
pub(super) fn check(frame: &[AtomicU64], number: u32) -> Result<()> {
    for (line, word) in (0..).zip(frame.iter().step_by(WORDS)) {
        let found = word.load(Relaxed);
        if found != expected(number, line) {
            return Err(format!("frame {number} is wrong in line {line}: {found:#x}").into());
        }
    }
    Ok(())
}

fn expected(number: u32, line: u32) -> u64 {
    u64::from(number) << 32 | u64::from(line)
}
