//! Doorbells of other processes, found in `/proc`.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, fchmod, fstat, openat};
use rustix::path::DecInt;
use rustix::pipe::fcntl_setpipe_size;

use super::procfs::object::Wanted;
use super::procfs::own_pid;
use super::procfs::processes::{Look, look_at};
use crate::error::{Error, Result, Subject};
use crate::sys::user::{User, check_user};
use crate::sys::{above_stdio_quietly, failed};
use crate::util::fixed_str::FixedStr;

/// The permissions of doorbells: those of every pipe, and the sticky bit, which has no meaning for pipes. Nothing
/// is ever written by an id to a pipe that has not been marked so.
const MARK: Mode = Mode::from_raw_mode(0o1600);

const NO_PROC: Error = Error::Unsupported {
    what: "/proc is not mounted here, or does not show this process, so doorbells cannot be opened by their ids: \
           mount it, or pass the descriptor `Doorbell::ringer_fd` to `Ringer::from_fd`",
};

/// Marks a new pipe as a doorbell. Returns this process in `/proc`, the number of the descriptor and the inode.
#[allow(
    clippy::useless_conversion,
    reason = "the type differs between machines"
)]
pub(crate) fn locate(fd: &OwnedFd) -> Result<(u32, u32, u64)> {
    let process = own_pid().ok_or(NO_PROC)?;
    fchmod(fd, MARK).map_err(|errno| failed("fchmod", errno, Subject::Nothing))?;
    let stat = fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
    Ok((process, fd.as_raw_fd().unsigned_abs(), stat.st_ino.into()))
}

/// Limits the pipe to one page. That is an optimisation, so it does not matter if it is refused.
pub(in crate::sys) fn shrink(pipe: &OwnedFd) {
    let _ = fcntl_setpipe_size(pipe, 1);
}

/// Opens the doorbell of a process for writing.
pub(crate) fn open(process: u32, number: u32, inode: u64) -> Result<OwnedFd> {
    let user = check_user()?;
    // The links of all files with a path contain a slash, so that no file is taken for a pipe.
    let link = FixedStr::<40>::joined(&[b"pipe:[", DecInt::new(inode).as_bytes(), b"]"]);
    let is_candidate = |fd: BorrowedFd<'_>| is_doorbell(fd, inode, user);
    let wanted = Wanted {
        user,
        link: link.as_bytes(),
        access: OFlags::WRONLY,
        is_candidate: &is_candidate,
        is_genuine: &|fd| is_candidate(fd.as_fd()),
    };
    let look = look_at(process, number, &wanted)
        .map_err(|errno| failed("open", errno, Subject::Nothing))?;
    let denial = match look {
        Look::Found(fd) => return Ok(fd),
        Look::OtherUser(uid) => return Err(Error::OtherUser { owner: Some(uid) }),
        Look::NoProcess if own_pid().is_none() => return Err(NO_PROC),
        Look::Nothing | Look::NoProcess => None,
        Look::Closed(denial) => Some(denial),
    };
    Err(Error::NoDoorbell { process, denial })
}

/// Returns `true` if a descriptor, which may be one for the path only, is of a doorbell of this user.
#[allow(
    clippy::useless_conversion,
    reason = "the type differs between machines"
)]
fn is_doorbell(fd: BorrowedFd<'_>, inode: u64, user: User) -> bool {
    fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
            && Mode::from_raw_mode(stat.st_mode) == MARK
            && u64::from(stat.st_ino) == inode
            && user.is(stat.st_uid)
    })
}

/// Opens a pipe for writing again, so that the flags of the descriptor belong to this process alone. Returns the
/// descriptor itself if that is not possible.
pub(in crate::sys) fn own_description(pipe: OwnedFd) -> OwnedFd {
    let path =
        FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", DecInt::from_fd(&pipe).as_bytes()]);
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    openat(CWD, path.as_bytes(), flags, Mode::empty())
        .and_then(above_stdio_quietly)
        .unwrap_or(pipe)
}
