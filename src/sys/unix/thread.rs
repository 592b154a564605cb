//! Threads of this crate in the processes of its users. They receive no signals, and can have
//! descriptors of their own.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::mem::{self, MaybeUninit};
use core::panic::AssertUnwindSafe;
use core::ptr;
use std::panic;

use rustix::io::{self, Errno};

pub(crate) use crate::sys::own_descriptors;
use crate::sys::set_thread_name;

/// A thread. Dropping this detaches it.
///
/// Threads of the standard library are not used, because they take a process-wide lock when they
/// start and when they end (`std::sys::…::stack_overflow::thread_info`). If another thread holds
/// that lock while the process forks, the child inherits it locked, and the next thread that starts
/// in the child deadlocks. Without that lock, a child of a multithreaded program can be a client
/// and host the service.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: libc::pthread_t,
}

// SAFETY: `pthread_t` identifies the thread, and any thread may use it (POSIX).
unsafe impl Send for Thread {}
// SAFETY: no method takes a shared reference.
unsafe impl Sync for Thread {}

/// The argument of a new thread.
struct Start {
    name: &'static CStr,
    work: Box<dyn FnOnce() + Send>,
}

/// Starts a thread that receives no signals: those are for the program's own threads. If the work
/// panics, the thread ends.
///
/// Systems show the first 15 characters of the name.
pub(crate) fn spawn(
    name: &'static CStr,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    /// The size of the stack in bytes. If that is too small, because the program has more
    /// thread-local data, the system chooses the size.
    const STACK: usize = 256 << 10;
    let work = Box::new(work);
    let start = Box::into_raw(Box::new(Start { name, work })).cast();
    let created = create(STACK, start).or_else(|errno| match errno {
        Errno::INVAL => create(0, start),
        _ => Err(errno),
    });
    if created.is_err() {
        // SAFETY: the pointer came from `Box::into_raw`, and no thread was started that owns it.
        drop(unsafe { Box::from_raw(start.cast::<Start>()) });
    }
    created
}

/// Starts a thread with a stack of `stack` bytes, or of the system's default size if that is 0. If
/// it starts, it owns `start`.
fn create(stack: usize, start: *mut c_void) -> io::Result<Thread> {
    let checked = |code| match code {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the pointer is to a local variable of the type that the call initialises.
    checked(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    let sized = if stack == 0 {
        Ok(())
    } else {
        // SAFETY: the attributes were initialised above.
        checked(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack) })
    };
    let mut handle = MaybeUninit::uninit();
    let created = sized.and_then(|()| {
        // SAFETY: the attributes were initialised above, the handle is a local variable, and the
        // only caller passes the `start` that `begin` expects.
        checked(unsafe {
            libc::pthread_create(handle.as_mut_ptr(), attributes.as_ptr(), begin, start)
        })
    });
    // SAFETY: the attributes were initialised above, and are not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    created.map(|()| Thread {
        // SAFETY: the thread was created, so the call has stored its handle.
        handle: unsafe { handle.assume_init() },
    })
}

/// The start function of a new thread.
extern "C" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` got the pointer from `Box::into_raw` and leaves it to this thread.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    block_signals();
    set_thread_name(start.name);
    // The program's panic hook has reported a panic, and nobody needs the result.
    let _ = panic::catch_unwind(AssertUnwindSafe(start.work));
    ptr::null_mut()
}

impl Thread {
    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        // SAFETY: `self` is the only handle, so the thread was neither joined nor detached, and
        // `forget` prevents `drop` from detaching it.
        unsafe { libc::pthread_join(self.handle, ptr::null_mut()) };
        mem::forget(self);
    }

    /// Forgets the thread, in a forked child that does not have it.
    pub(crate) fn forget_in_child(self) {
        mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: `self` is the only handle, so the thread was neither joined nor detached, and the
        // handle is not used afterwards.
        unsafe { libc::pthread_detach(self.handle) };
    }
}

/// Blocks all signals for the calling thread.
fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to a local variable of the type that the call initialises.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised above, and the pointer for the old set may be null.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}
