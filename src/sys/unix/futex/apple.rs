//! `os_sync_wait_on_address_with_timeout`, from macOS 14.4 and iOS 17.4 on (`os/os_sync_wait_on_address.h`).
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::mem;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use libc::{c_int, os_clockid_t, size_t};
use rustix::io::Errno;

use crate::sys::{clock, last_errno};

pub(super) const WAIT: &str = "os_sync_wait_on_address_with_timeout";
pub(super) const WAKE: &str = "os_sync_wake_by_address";

/// The longest wait of one call.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// The pause before the word is looked at again if the kernel could not read it.
const NOT_RESIDENT: Duration = Duration::from_millis(1);

type Wait = unsafe extern "C" fn(*mut c_void, u64, size_t, u32, os_clockid_t, u64) -> c_int;
type Wake = unsafe extern "C" fn(*mut c_void, size_t, u32) -> c_int;

/// A function that only later versions of the system have.
struct Function {
    name: &'static CStr,
    /// [`UNKNOWN`] until it has been looked up. Null if it does not exist.
    address: AtomicPtr<c_void>,
}

/// An address that no function has.
const UNKNOWN: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);

static WAIT_WITH_TIMEOUT: Function = Function::new(c"os_sync_wait_on_address_with_timeout");
static WAKE_ANY: Function = Function::new(c"os_sync_wake_by_address_any");
static WAKE_ALL: Function = Function::new(c"os_sync_wake_by_address_all");

impl Function {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            address: AtomicPtr::new(UNKNOWN),
        }
    }

    /// Returns the address, or `None` if this version of the system does not have the function.
    fn address(&self) -> Option<*mut c_void> {
        let mut address = self.address.load(Relaxed);
        if address == UNKNOWN {
            // SAFETY: the name ends with a zero byte.
            address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, self.name.as_ptr()) };
            self.address.store(address, Relaxed);
        }
        (!address.is_null()).then_some(address)
    }
}

/// Returns `true` if this version of the system has the calls.
pub(crate) fn is_native() -> bool {
    [&WAIT_WITH_TIMEOUT, &WAKE_ANY, &WAKE_ALL]
        .iter()
        .all(|function| function.address().is_some())
}

pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) -> Result<(), Errno> {
    let address = WAIT_WITH_TIMEOUT.address().ok_or(Errno::NOSYS)?;
    // SAFETY: the system's header declares the function of this name with this type.
    let wait = unsafe { mem::transmute::<*mut c_void, Wait>(address) };
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the word is valid, and the kernel only compares it.
    let result = unsafe {
        wait(
            word.as_ptr().cast(),
            u64::from(value),
            size_of::<u32>(),
            libc::OS_SYNC_WAIT_ON_ADDRESS_SHARED,
            libc::OS_CLOCK_MACH_ABSOLUTE_TIME,
            nanoseconds,
        )
    };
    if result >= 0 {
        return Ok(());
    }
    match last_errno() {
        // The page is not in memory. Loading the word again makes it so.
        Errno::FAULT => {
            clock::pause(NOT_RESIDENT.min(time));
            Ok(())
        }
        errno => Err(errno),
    }
}

/// Returns 1 if there were waiters: the system does not count them.
pub(super) fn wake(word: &AtomicU32, most: u32) -> Result<usize, Errno> {
    let function = if most == 1 { &WAKE_ANY } else { &WAKE_ALL };
    let address = function.address().ok_or(Errno::NOSYS)?;
    // SAFETY: the system's header declares the functions of these names with this type.
    let wake = unsafe { mem::transmute::<*mut c_void, Wake>(address) };
    // SAFETY: the word is valid, and the kernel only uses its address.
    let result = unsafe {
        wake(
            word.as_ptr().cast(),
            size_of::<u32>(),
            libc::OS_SYNC_WAKE_BY_ADDRESS_SHARED,
        )
    };
    if result >= 0 {
        return Ok(1);
    }
    match last_errno() {
        // Nothing waits.
        Errno::NOENT => Ok(0),
        errno => Err(errno),
    }
}
