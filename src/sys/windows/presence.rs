//! Locks that the kernel releases when a process ends, however it ends: named events that exist as long as their
//! creators have them open.
//!
//! The name consists of that of the section and the place of the byte. The creator of the event has the lock,
//! and everybody can see by opening the event that somebody has it. Whoever looks has the event open for
//! that moment too, so that a lock may appear to be held a moment longer than it is; it never appears
//! to be free while it is held.
#![allow(unsafe_code)]

use core::ptr;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_INVALID_HANDLE,
};
use windows_sys::Win32::System::Threading::{
    CreateEventW, OpenEventW, SYNCHRONIZATION_SYNCHRONIZE,
};

use super::object_name::ObjectName;
use super::views::{self, SectionName};
use super::{OwnedHandle, failed, forget_last_error, last_error};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::process::Owner;
use crate::sys::BorrowedFd;

/// What can lock a byte of a section.
pub(crate) struct Token {
    section: SectionName,
    /// The event of the byte that is locked. Child processes do not inherit it.
    locked: Option<OwnedHandle>,
    owner: Owner,
}

impl Token {
    /// Returns one for the section that contains the table.
    pub(crate) fn open(
        _descriptor: Option<BorrowedFd<'_>>,
        _id: &ShMemId,
        table: *const u8,
    ) -> Result<Self> {
        let (section, _) = views::find(table).ok_or(Error::Unsupported {
            what: "participants need a segment of `Win32ShMemProvider` or `StdShMemProvider`",
        })?;
        Ok(Self {
            section,
            locked: None,
            owner: Owner::current(),
        })
    }

    /// Returns `false` in a copy of this process.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.owner.is_current()
    }

    /// Locks a byte until the token is dropped or the process ends. Returns `false` if another token has locked
    /// it.
    pub(crate) fn try_lock(&mut self, byte: usize) -> Result<bool> {
        let name = self.name(byte);
        forget_last_error();
        // SAFETY: `name` ends with a zero, and the attributes may be null.
        let raw = unsafe { CreateEventW(ptr::null(), 1, 0, name.as_ptr()) };
        let error = last_error();
        // SAFETY: `raw` is null or a new handle that nothing else owns.
        match unsafe { OwnedHandle::from_raw(raw) } {
            Some(_) if error == ERROR_ALREADY_EXISTS => Ok(false),
            Some(event) => {
                self.locked = Some(event);
                Ok(true)
            }
            None if is_taken(error) => Ok(false),
            None => Err(failed("CreateEvent", error, Subject::Nothing)),
        }
    }

    /// Returns `true` if a token has locked the byte.
    pub(crate) fn is_locked(&self, byte: usize) -> Result<bool> {
        let name = self.name(byte);
        // SAFETY: `name` ends with a zero.
        let raw = unsafe { OpenEventW(SYNCHRONIZATION_SYNCHRONIZE, 0, name.as_ptr()) };
        let error = last_error();
        // SAFETY: `raw` is null or a new handle that nothing else owns.
        match unsafe { OwnedHandle::from_raw(raw) } {
            Some(_) => Ok(true),
            None if error == ERROR_FILE_NOT_FOUND => Ok(false),
            None if is_taken(error) => Ok(true),
            None => Err(failed("OpenEvent", error, Subject::Nothing)),
        }
    }

    fn name(&self, byte: usize) -> ObjectName {
        ObjectName::of(&self.section, format_args!("lock-{byte:x}"))
    }
}

/// Returns `true` if another kind of object, or an object that this process may not open, has the name.
fn is_taken(error: u32) -> bool {
    matches!(error, ERROR_ACCESS_DENIED | ERROR_INVALID_HANDLE)
}
