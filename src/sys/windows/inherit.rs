//! Nothing: no handle can be passed to a single program.
//!
//! A handle that is inheritable is inherited by every program that any thread starts at that time.
//! `PROC_THREAD_ATTRIBUTE_HANDLE_LIST` limits what one program inherits, but not what the others do,
//! and the standard library can set it only with unstable functions (`windows_process_extensions_raw_attribute`).

use std::process::Command;

use super::{BorrowedFd, OwnedFd};
use crate::error::Result;
use crate::sys::{Passed, Unclaimed};

/// Is never called.
pub(crate) fn pass(fd: BorrowedFd<'_>, _command: &mut Command) -> Result<Option<Passed>> {
    match *fd {}
}

/// Takes over nothing.
pub(crate) fn claim<T>(
    _passed: Passed,
    _adopt: impl FnOnce(OwnedFd) -> Result<T>,
) -> Result<T, Unclaimed> {
    Err(Unclaimed::Other("Windows has no descriptors"))
}
