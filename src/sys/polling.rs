//! Waiting for a word to change by looking at it again and again, where no call can do better.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use super::clock;
use crate::error::Result;

/// A moment on the monotonic clock, counted from its arbitrary start.
pub(crate) type Deadline = Duration;

/// The first pause between two looks at a word. Each is twice as long as the one before.
const SHORTEST: Duration = Duration::from_micros(20);

/// The longest pause between two looks.
const LONGEST: Duration = Duration::from_millis(1);

/// Returns the deadline that ends this timeout, or `None` if the clock cannot represent it.
pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
    let deadline = clock::now().checked_add(timeout)?;
    i64::try_from(deadline.as_secs()).ok()?;
    Some(deadline)
}

/// Returns the time until the deadline, but at most `most`, which is also returned without a deadline.
/// Returns `None` if the deadline has passed.
pub(super) fn left(deadline: Option<&Deadline>, most: Duration) -> Option<Duration> {
    let Some(deadline) = deadline else {
        return Some(most);
    };
    let left = deadline.saturating_sub(clock::now());
    (!left.is_zero()).then(|| left.min(most))
}

/// Returns `true` if the deadline has not passed.
pub(in crate::sys) fn is_before(deadline: Option<&Deadline>) -> bool {
    deadline.is_none_or(|deadline| clock::now() < *deadline)
}

/// Blocks until one of the words has another value than the one next to it. Returns `false` if the deadline
/// has passed.
pub(crate) fn sleep_while_all(
    words: &[(&AtomicU32, u32)],
    deadline: Option<&Deadline>,
) -> Result<bool> {
    let mut pause = SHORTEST;
    loop {
        // The caller loads the word again, with the ordering that it needs.
        if words
            .iter()
            .any(|(word, value)| word.load(Relaxed) != *value)
        {
            return Ok(is_before(deadline));
        }
        let Some(left) = left(deadline, pause) else {
            return Ok(false);
        };
        clock::pause(left);
        pause = pause.saturating_mul(2).min(LONGEST);
    }
}

/// Blocks until the word has another value. Returns `false` if the deadline has passed.
pub(crate) fn sleep_while(
    word: &AtomicU32,
    value: u32,
    deadline: Option<&Deadline>,
) -> Result<bool> {
    sleep_while_all(&[(word, value)], deadline)
}

/// Does nothing: a process that polls sees the change without being woken.
#[expect(clippy::unnecessary_wraps, reason = "waking can fail on other systems")]
pub(crate) fn wake(_word: &AtomicU32, _most: u32) -> Result<usize> {
    Ok(0)
}

/// Returns `false`.
pub(crate) fn is_native() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::{Relaxed, SeqCst};
    use core::time::Duration;
    use std::thread;

    use super::{after, sleep_while, sleep_while_all};

    const LONG: Duration = Duration::from_secs(50);

    #[test]
    fn polling_sees_a_change_of_any_word() {
        let words = [AtomicU32::new(0), AtomicU32::new(7)];
        for round in 0..20 {
            thread::scope(|scope| {
                let changer = scope.spawn(|| {
                    // The first looks, longer pauses, the longest.
                    thread::sleep(Duration::from_micros(u64::from(round) * 300));
                    words[1].fetch_add(1, SeqCst);
                });
                let all = [(&words[0], 0), (&words[1], 7 + round)];
                assert_eq!(sleep_while_all(&all, after(LONG).as_ref()), Ok(true));
                assert_eq!(words[1].load(Relaxed), 8 + round);
                assert!(changer.join().is_ok());
            });
        }
        assert_eq!(sleep_while(&words[0], 1, None), Ok(true));
    }

    #[test]
    fn polling_ends_at_the_deadline() {
        let word = AtomicU32::new(0);
        for micros in [0, 1, 30, 2000, 5000] {
            let deadline = after(Duration::from_micros(micros));
            assert_eq!(sleep_while(&word, 0, deadline.as_ref()), Ok(false));
            let deadline = after(Duration::from_micros(micros));
            assert_eq!(sleep_while_all(&[], deadline.as_ref()), Ok(false));
        }
        // The clock cannot represent this one.
        assert_eq!(after(Duration::MAX), None);
    }
}
