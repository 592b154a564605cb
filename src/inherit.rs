//! Inherited descriptors: `NAME_FD` tells which descriptor a program has inherited for the segment in `NAME`.
//!
//! The value is `NUMBER:DEVICE:INODE:ID`. The object is recognised by device and inode, so that nothing
//! else that has the number is taken for it. The id is that of `NAME`: if both differ, another segment
//! was handed over later under the same name.

use alloc::boxed::Box;
use alloc::format;
use std::process::Command;

use crate::error::{Error, Result};
use crate::handover::{self, fd_name, problem};
use crate::id::ShMemId;
use crate::sys::{self, BorrowedFd, OwnedFd, Passed, Unclaimed};

/// Passes the descriptor to the program of the command, to which the segment was handed over under this
/// name.
pub(crate) fn pass(
    fd: BorrowedFd<'_>,
    id: ShMemId,
    command: &mut Command,
    name: &str,
) -> Result<()> {
    if let Some(passed) = sys::inherit::pass(fd, command)? {
        let Passed {
            number,
            device,
            inode,
        } = passed;
        command.env(fd_name(name), format!("{number}:{device}:{inode}:{id}"));
    }
    Ok(())
}

/// Attaches to the segment in the environment: `adopt` by the inherited descriptor, or else `open`.
pub(crate) fn attach<S>(
    name: &str,
    adopt: impl FnOnce(OwnedFd, ShMemId, Option<usize>) -> Result<S>,
    open: impl FnOnce(ShMemId, Option<usize>) -> Result<S>,
) -> Result<S> {
    let (id, size) = handover::read(name)?;
    let inherited = match read(name, id) {
        Ok(None) => None,
        Ok(Some(passed)) => match sys::inherit::claim(passed, |fd| adopt(fd, id, size)) {
            Ok(segment) => return Ok(segment),
            Err(Unclaimed::Other(what)) => Some(problem(&fd_name(name), what)),
            Err(Unclaimed::Refused(error)) => Some(Error::FromEnvironment {
                name: fd_name(name),
                error: Box::new(error),
                inherited: None,
            }),
        },
        Err(error) => Some(error),
    };
    open(id, size).map_err(|error| handover::named(name, error, inherited))
}

/// Returns what the environment tells about the descriptor of this segment, if there is a variable for
/// it.
fn read(name: &str, id: ShMemId) -> Result<Option<Passed>> {
    let fd_name = fd_name(name);
    let Some(text) = handover::value(&fd_name)? else {
        return Ok(None);
    };
    match parse(&text) {
        Some((passed, of)) if of == id => Ok(Some(passed)),
        Some(_) => Err(problem(&fd_name, "it is about another segment")),
        None => Err(problem(&fd_name, "it does not describe a descriptor")),
    }
}

fn parse(text: &str) -> Option<(Passed, ShMemId)> {
    let (number, rest) = text.split_once(':')?;
    let (device, rest) = rest.split_once(':')?;
    let (inode, id) = rest.split_once(':')?;
    let passed = Passed {
        number: number.parse().ok()?,
        device: device.parse().ok()?,
        inode: inode.parse().ok()?,
    };
    Some((passed, ShMemId::from_string(id)))
}
