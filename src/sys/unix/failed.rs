//! Errors for calls that the system refused.

use rustix::io::Errno;

use crate::error::limit::Limit;
use crate::error::{Error, Subject};
use crate::sys::limits;

/// Returns the error for a call that the system refused, with the limit that the error number
/// identifies by itself.
#[cold]
pub(crate) fn failed(call: &'static str, errno: Errno, subject: Subject) -> Error {
    failed_for(call, errno, subject, |_| None)
}

/// Returns the error for a call that the system refused. `limit_for` is the function of
/// [`limits`] for the object of the call.
#[cold]
pub(crate) fn failed_for(
    call: &'static str,
    errno: Errno,
    subject: Subject,
    limit_for: impl FnOnce(Errno) -> Option<Limit>,
) -> Error {
    Error::Os {
        call,
        errno: errno.raw_os_error(),
        subject,
        limit: limits::for_descriptor(errno).or_else(|| limit_for(errno)),
    }
}

/// The limit on calls that need no privilege: sandboxes make them fail with one of these errors.
pub(crate) fn for_unprivileged(errno: Errno) -> Option<Limit> {
    let by_sandboxes = [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::AFNOSUPPORT];
    by_sandboxes.contains(&errno).then_some(Limit::Sandbox)
}
