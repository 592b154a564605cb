//! [`OwnedHandle`]: closes a handle when dropped.

use core::ptr::{self, NonNull};

use windows_sys::Win32::Foundation::{CloseHandle, DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::{failed, last_error};
use crate::error::{Result, Subject};

/// Owns a handle of this process and closes it when dropped. `std` has such a type as well, but
/// this crate also works without `std`.
#[derive(Debug)]
pub(crate) struct OwnedHandle {
    handle: NonNull<core::ffi::c_void>,
}

// SAFETY: a handle belongs to the process, not to a thread, so any thread may use or close it.
unsafe impl Send for OwnedHandle {}

// SAFETY: a shared reference only allows using the handle, which several threads may do at once.
unsafe impl Sync for OwnedHandle {}

impl OwnedHandle {
    /// Takes ownership of a handle that a call returned. Returns `None` for null, which such calls
    /// return when they fail.
    ///
    /// # Safety
    ///
    /// `handle` is null, or an open handle that nothing else closes.
    pub(crate) unsafe fn from_raw(handle: HANDLE) -> Option<Self> {
        NonNull::new(handle).map(|handle| Self { handle })
    }

    /// Returns the handle, which stays open until `self` is dropped.
    pub(crate) fn as_raw(&self) -> HANDLE {
        self.handle.as_ptr()
    }

    /// Opens another handle to the same object, with the same access rights. Child processes do not
    /// inherit it.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        // SAFETY: the function has no preconditions.
        let process = unsafe { GetCurrentProcess() };
        let mut copy = ptr::null_mut();
        // SAFETY: `self` keeps the source handle open, and the pointer is to a local variable that
        // the call writes the new handle to.
        let done = unsafe {
            DuplicateHandle(
                process,
                self.as_raw(),
                process,
                &raw mut copy,
                0,
                0,
                DUPLICATE_SAME_ACCESS,
            )
        };
        let error = last_error();
        // SAFETY: the call left it null, or stored a new handle that only this function knows.
        let copy = unsafe { Self::from_raw(copy) };
        copy.filter(|_| done != 0)
            .ok_or_else(|| failed("DuplicateHandle", error, Subject::Nothing))
    }
}

impl Drop for OwnedHandle {
    fn drop(&mut self) {
        // SAFETY: the caller of `from_raw` promised that nothing else closes the handle, and a
        // value is dropped only once. The call fails only for a handle that is not open, so its
        // result is ignored.
        unsafe { CloseHandle(self.as_raw()) };
    }
}
