//! Android's own function for ashmem, found at run time.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use rustix::fd::{FromRawFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_setfd};

use super::{NAME, failed, last_errno};
use crate::error::{Result, Subject};
use crate::sys::above_stdio;

const LIBRARY: &CStr = c"libandroid.so";
const FUNCTION: &CStr = c"ASharedMemory_create";

/// Returns a descriptor, or a negative number after an error.
type Create = unsafe extern "C" fn(name: *const c_char, size: usize) -> c_int;

/// Creates a region. Returns `None` if the system does not have the function.
pub(super) fn create(size: usize) -> Option<Result<OwnedFd>> {
    let create = find()?;
    // SAFETY: the function has this type according to Android's manual, and the name ends with a
    // zero.
    let number = unsafe { create(NAME.as_ptr(), size) };
    if number < 0 {
        let errno = last_errno();
        return Some(Err(failed(
            "ASharedMemory_create",
            errno,
            Subject::Bytes(size),
        )));
    }
    // SAFETY: the function has just created the descriptor, and nothing else owns it.
    let fd = match above_stdio(unsafe { OwnedFd::from_raw_fd(number) }) {
        Ok(fd) => fd,
        Err(error) => return Some(Err(error)),
    };
    // Android 8 does not set it.
    let closed = fcntl_setfd(&fd, FdFlags::CLOEXEC)
        .map_err(|errno| failed("fcntl(F_SETFD)", errno, Subject::Nothing));
    Some(closed.map(|()| fd))
}

/// Returns the function, which is looked up only once.
fn find() -> Option<Create> {
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    /// Its address means that the system does not have the function.
    static NONE: u8 = 0;
    let none = || (&raw const NONE).cast_mut().cast::<c_void>();

    let mut found = FOUND.load(Relaxed);
    if found.is_null() {
        found = look_up().unwrap_or_else(none);
        FOUND.store(found, Relaxed);
    }
    if found == none() {
        return None;
    }
    // SAFETY: `look_up` returned the address of the function of this name, whose library is never
    // unloaded. It has had this type since the API level that introduced it.
    Some(unsafe { mem::transmute::<*mut c_void, Create>(found) })
}

fn look_up() -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero. Loading this library runs only the system's own
    // initialisers, which every program may run.
    let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the library was loaded above and is never unloaded, and the name ends with a zero.
    let found = unsafe { libc::dlsym(library, FUNCTION.as_ptr()) };
    (!found.is_null()).then_some(found)
}
