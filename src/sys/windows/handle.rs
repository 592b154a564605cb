//! [`OwnedHandle`]: a handle that is closed once.

use core::ptr::{self, NonNull};

use windows_sys::Win32::Foundation::{CloseHandle, DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::{failed, last_error};
use crate::error::{Result, Subject};

/// Owns a handle of this process, and closes it once when dropped. The standard library's needs the
/// standard library.
#[derive(Debug)]
pub struct OwnedHandle {
    handle: NonNull<core::ffi::c_void>,
}

// SAFETY: a handle belongs to the process, and any thread may use or close it.
unsafe impl Send for OwnedHandle {}

// SAFETY: through a shared reference it can only be used, which any number of threads may do.
unsafe impl Sync for OwnedHandle {}

impl OwnedHandle {
    /// Takes over what a call has returned; `None` if that is null, as it is for one that failed.
    ///
    /// # Safety
    ///
    /// If it is a handle, it is open, and nobody else closes it.
    pub(crate) unsafe fn from_raw(handle: HANDLE) -> Option<Self> {
        NonNull::new(handle).map(|handle| Self { handle })
    }

    /// The handle, lent: it is open for as long as `self` lives.
    pub(crate) fn as_raw(&self) -> HANDLE {
        self.handle.as_ptr()
    }

    /// One more handle to the same object, with the same rights, not inherited by children.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        // SAFETY: the function has no preconditions.
        let process = unsafe { GetCurrentProcess() };
        let mut copy = ptr::null_mut();
        // SAFETY: the handle is open, and the pointer valid for the write of another.
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
        // SAFETY: it is null, or a new handle that is ours.
        let copy = unsafe { Self::from_raw(copy) };
        copy.filter(|_| done != 0)
            .ok_or_else(|| failed("DuplicateHandle", error, Subject::Nothing))
    }
}

impl Drop for OwnedHandle {
    fn drop(&mut self) {
        // SAFETY: `from_raw` was promised that only we close it, and a value is dropped once. A
        // failure would mean that it was not open; there is nothing to be done about that here.
        unsafe { CloseHandle(self.as_raw()) };
    }
}
