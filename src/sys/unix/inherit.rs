//! Descriptors that one started program inherits, and no other.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::fd::{ABOVE_STDIO, duplicate, received};
use crate::error::Result;
use crate::memory::mapping::Protection;
use crate::process::fork_lock::ForkLock;
use crate::sys::{Passed, SharedObject, Unclaimed};

/// Adds a duplicate of the descriptor to what the program of the command inherits. It is
/// close-on-exec in this process, and closed when the command is dropped.
///
/// Returns `None` and adds nothing if the object cannot be recognised again.
pub(crate) fn pass(fd: BorrowedFd<'_>, command: &mut Command) -> Result<Option<Passed>> {
    let fd = duplicate(fd)?;
    let Some(object) = SharedObject::from_any(&fd) else {
        return Ok(None);
    };
    let passed = Passed {
        number: fd.as_raw_fd(),
        device: object.device,
        inode: object.inode,
    };
    let keep_open = move || Ok(fcntl_setfd(&fd, FdFlags::empty())?);
    // SAFETY: the closure runs between `fork` and `exec`, where only async-signal-safe functions may
    // be called. It calls `fcntl`, which is one, and allocates nothing.
    unsafe { command.pre_exec(keep_open) };
    Ok(Some(passed))
}

/// The numbers of inherited descriptors that were taken over, or that turned out to be something
/// else. From then on this process may use them for anything.
static SPENT: ForkLock<Vec<RawFd>> = ForkLock::new(Vec::new());

/// Takes over an inherited descriptor, once per process: passes a duplicate to `adopt` and, if that
/// succeeds, closes the inherited one.
///
/// It is left alone unless it is the object described and a started program would inherit it. All
/// descriptors that the standard library and this crate create are close-on-exec, so it is not one
/// of those.
pub(crate) fn claim<T>(
    passed: Passed,
    adopt: impl FnOnce(OwnedFd) -> Result<T>,
) -> Result<T, Unclaimed> {
    // Of two threads, the second one finds the number spent.
    let mut spent = SPENT.lock_now();
    let number = passed.number;
    if spent.contains(&number) {
        return Err(Unclaimed::Other(
            "this process no longer has the descriptor",
        ));
    }
    if number < ABOVE_STDIO {
        return Err(Unclaimed::Other("it is not the number of a descriptor"));
    }
    // SAFETY: the number is not -1. It may not be open, or not remain open: then the calls below fail,
    // or look at another object, which differs from the one described.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    if let Err(problem) = examine(inherited, passed) {
        spent.push(number);
        return Err(Unclaimed::Other(problem));
    }
    let adopted = duplicate(inherited)
        // Whether it may be written is found out when it is mapped.
        .and_then(|fd| received(fd, Protection::Read))
        .and_then(adopt)
        .map_err(Unclaimed::Refused)?;
    spent.push(number);
    // SAFETY: the process was started with this descriptor, for this function to take over. `spent`,
    // which is locked, shows that nothing else has taken it over, and it was not close-on-exec, as it
    // would be if it had been created since.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(adopted)
}

fn examine(fd: BorrowedFd<'_>, passed: Passed) -> Result<(), &'static str> {
    match fcntl_getfd(fd) {
        Err(_) => return Err("the descriptor is not open: it was closed on the way"),
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => {
            return Err("this process has opened the descriptor itself");
        }
        Ok(_) => {}
    }
    match SharedObject::from_any(fd) {
        Some(object) if (object.device, object.inode) == (passed.device, passed.inode) => Ok(()),
        _ => Err("the descriptor is not that of the segment"),
    }
}
