//! Waiting for a word to change, on systems where no call can do so across processes.

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crate::error::{Error, Result};

const UNSUPPORTED: Error = Error::Unsupported {
    what: "waking other processes is not supported on this system: spin instead",
};

/// No wait on this system takes an absolute deadline.
pub(crate) type Deadline = Duration;

/// Returns the timeout itself.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the Linux version fails on overflow"
)]
pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
    Some(timeout)
}

/// Always returns [`Error::Unsupported`].
pub(crate) fn sleep_while(
    _word: &AtomicU32,
    _value: u32,
    _deadline: Option<&Deadline>,
) -> Result<bool> {
    Err(UNSUPPORTED)
}

/// Always returns [`Error::Unsupported`].
pub(crate) fn wake(_word: &AtomicU32, _most: u32) -> Result<usize> {
    Err(UNSUPPORTED)
}
