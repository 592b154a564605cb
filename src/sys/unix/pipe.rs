//! Pipes.

use rustix::fd::OwnedFd;
use rustix::io;

/// A pipe, both ends close-on-exec.
#[cfg(not(any(target_vendor = "apple", target_os = "haiku")))]
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

/// A pipe, both ends close-on-exec, though not from their first moment on: Apple has no `pipe2`,
/// and rustix none for Haiku.
#[cfg(any(target_vendor = "apple", target_os = "haiku"))]
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let ends = rustix::pipe::pipe()?;
    io::fcntl_setfd(&ends.0, io::FdFlags::CLOEXEC)?;
    io::fcntl_setfd(&ends.1, io::FdFlags::CLOEXEC)?;
    Ok(ends)
}
