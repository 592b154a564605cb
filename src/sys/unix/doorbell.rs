//! Doorbells: pipes whose write end other processes have.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio, read, write};

use super::sigpipe::without_sigpipe;
use super::{above_stdio, failed, pipe};
use crate::error::{Error, Result, Subject};
pub(crate) use crate::sys::doorbell_lookup::{locate, open};
use crate::sys::doorbell_lookup::{own_description, shrink};

/// The most bytes that are read at once, and how often: a peer can fill the pipe without end.
const CHUNK: usize = 4096;
const READS: usize = 32;

/// Creates a pipe whose ends do not block. Returns its read end and its write end.
pub(crate) fn create() -> Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe().map_err(refused("pipe2"))?;
    for end in [&read_end, &write_end] {
        ioctl_fionbio(end, true).map_err(refused("ioctl(FIONBIO)"))?;
    }
    shrink(&write_end);
    Ok((read_end, write_end))
}

/// Takes over the write end of a pipe.
pub(crate) fn adopt(fd: OwnedFd) -> Result<OwnedFd> {
    let stat = fstat(&fd).map_err(refused("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Error::Foreign {
            found: "the descriptor of a doorbell must be a pipe: pass `Doorbell::ringer_fd`",
        });
    }
    let flags = fcntl_getfl(&fd).map_err(refused("fcntl(F_GETFL)"))?;
    if flags & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(Error::Foreign {
            found: "the pipe is not open for writing: pass `Doorbell::ringer_fd`",
        });
    }
    let fd = above_stdio(fd)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(refused("fcntl(F_SETFD)"))?;
    let fd = own_description(fd);
    ioctl_fionbio(&fd, true).map_err(refused("ioctl(FIONBIO)"))?;
    Ok(fd)
}

/// Writes a byte, unless the pipe is full. Returns `false` if it has no reader.
pub(crate) fn ring(fd: impl AsFd) -> Result<bool> {
    match without_sigpipe(|| write(&fd, &[1])) {
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::PIPE) => Ok(false),
        Err(errno) => Err(refused("write")(errno)),
    }
}

/// Reads what is in the pipe, up to a limit. Returns `true` if it was empty at the end.
pub(crate) fn drain(fd: impl AsFd) -> Result<bool> {
    let mut bytes = [0; CHUNK];
    for _ in 0..READS {
        match read(&fd, &mut bytes) {
            Ok(CHUNK) | Err(Errno::INTR) => {}
            Ok(_) | Err(Errno::AGAIN) => return Ok(true),
            Err(errno) => return Err(refused("read")(errno)),
        }
    }
    Ok(false)
}

fn refused(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| failed(call, errno, Subject::Nothing)
}
