//! A number that every fork changes.
//!
//! On Linux it is stored in a page with `MADV_WIPEONFORK` (`madvise(2)`, since Linux 4.14), which the
//! kernel zeroes for every child that does not share the memory, whichever call made it: `fork`,
//! `_Fork`, or a bare `clone` into a new pid namespace. Reading it takes no system call.
//!
//! Elsewhere a handler of `pthread_atfork` counts the forks. It runs for `fork` only, so the process
//! number is part of the result: a child of `_Fork` or of a bare system call has another one, unless
//! it is in a new pid namespace, which systems without such a page do not have (Linux before 4.14
//! and emulators do: there, such a child has to come from `fork`).
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::process::getpid;

/// How many bits of the fallback hold the process number: all that it can have, or on 32 bits all
/// that Linux, the BSDs, macOS and Solaris give it.
const PID_BITS: u32 = if usize::BITS >= 64 { 32 } else { 22 };

/// The generation that was given out last to this process or, before the fork, its parent. It only
/// increases along a line of descent.
static LAST: AtomicUsize = AtomicUsize::new(1);

/// The generation of this process. It differs from that of every process that this one is descended
/// from.
pub(crate) fn generation() -> usize {
    #[cfg(all(
        any(target_os = "android", target_os = "linux"),
        not(shmem_apple_rules)
    ))]
    if let Some(page) = page::get() {
        return page.generation();
    }
    counted()
}

/// The same from the number of forks and the process number.
fn counted() -> usize {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> c_int;
    }
    extern "C" fn in_child() {
        LAST.fetch_add(1, Relaxed);
    }

    // Two threads may both register it. Then each fork counts twice, which is as good.
    if !IS_REGISTERED.load(Acquire) {
        // SAFETY: the handler may run in any child: it changes an atomic variable, nothing else. On
        // ENOMEM it is not registered, and the process number has to do until the next attempt.
        let registered = unsafe { pthread_atfork(None, None, Some(in_child)) } == 0;
        IS_REGISTERED.store(registered, Release);
    }
    let pid = getpid().as_raw_nonzero().get().unsigned_abs() as usize;
    LAST.load(Relaxed).wrapping_shl(PID_BITS) ^ pid
}

#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
mod page {
    //! The page that a child finds zeroed.

    use core::mem::size_of;
    use core::ptr::{self, NonNull};
    use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
    use core::sync::atomic::{AtomicPtr, AtomicUsize};

    use rustix::mm::{self, Advice, MapFlags, ProtFlags};

    use super::LAST;
    use crate::sys::advice_is_heeded;

    pub(super) struct Page {
        /// 0, as a child finds it, until it is asked for.
        generation: AtomicUsize,
    }

    impl Page {
        pub(super) fn generation(&self) -> usize {
            match self.generation.load(Relaxed) {
                0 => self.next(),
                known => known,
            }
        }

        /// Takes the next generation for this process, unless another thread is first.
        #[cold]
        fn next(&self) -> usize {
            let next = LAST.fetch_add(1, Relaxed) + 1;
            match self.generation.compare_exchange(0, next, Relaxed, Relaxed) {
                Ok(_) => next,
                Err(known) => known,
            }
        }
    }

    /// Stands for the decision that there is no page.
    static NONE: Page = Page {
        generation: AtomicUsize::new(0),
    };

    /// The page, if the kernel can wipe it. The first answer stays the answer, in children as well:
    /// the numbers with and without a page are not to be compared.
    pub(super) fn get() -> Option<&'static Page> {
        static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

        let none = ptr::from_ref(&NONE).cast_mut();
        let mut page = PAGE.load(Acquire);
        if page.is_null() {
            let new = map();
            page = new.map_or(none, NonNull::as_ptr);
            if let Err(other) = PAGE.compare_exchange(ptr::null_mut(), page, AcqRel, Acquire) {
                if let Some(new) = new {
                    unmap(new);
                }
                page = other;
            }
        }
        if page == none {
            return None;
        }
        // SAFETY: what is stored here came from `map`, is never unmapped, and is only written by
        // atomic operations. Zeros, as a child finds them, are a valid value.
        Some(unsafe { &*page })
    }

    fn map() -> Option<NonNull<Page>> {
        let (len, prot) = (size_of::<Page>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
        let base =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), len, prot, MapFlags::PRIVATE) }.ok()?;
        let page = NonNull::new(base.cast::<Page>())?;
        // SAFETY: the advice concerns our own new mapping, and does not change what it holds.
        let advised = unsafe { mm::madvise(base, len, Advice::LinuxWipeOnFork) };
        if advised.is_err() || !advice_is_heeded() {
            unmap(page);
            return None;
        }
        Some(page)
    }

    /// Unmaps a page that was not stored.
    fn unmap(page: NonNull<Page>) {
        // SAFETY: the mapping is ours, and nobody else knows of it.
        unsafe { crate::sys::unmap(page.cast(), size_of::<Page>()) };
    }
}

#[cfg(all(test, feature = "std", target_os = "linux", not(target_arch = "s390x")))]
mod tests {
    use core::ptr;

    use super::generation;

    #[test]
    fn a_bare_system_call_makes_another_generation() {
        let parent = generation();
        let null = ptr::null_mut::<u8>();
        // SAFETY: without a stack and flags this is a fork; the child does nothing but compare and end.
        let child =
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, null, null, null, null) };
        if child == 0 {
            let is_same = generation() == parent;
            // SAFETY: no preconditions.
            unsafe { libc::_exit(i32::from(is_same)) };
        }
        let mut status = 0;
        let child = libc::pid_t::try_from(child).unwrap_or(-1);
        // SAFETY: the pointer is valid for the write of a status.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert_eq!(generation(), parent);
    }
}
