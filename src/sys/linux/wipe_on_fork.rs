//! [`WipedOnFork`]: a variable that the kernel zeroes in every forked child.
//!
//! It is in a page of its own with `MADV_WIPEONFORK` (`madvise(2)`, since Linux 4.14). The kernel
//! wipes it for every child that does not share the memory, whichever call created it: `fork`,
//! `_Fork`, or a bare `clone` into a new pid namespace.
#![allow(unsafe_code)]

use core::mem::size_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::advice_is_heeded;

/// A type that a forked child may find zeroed at any moment.
///
/// # Safety
///
/// All zero bytes are a valid value of the type. The value changes through atomic operations only,
/// and the type is not larger than 4096 bytes, the smallest page.
pub(super) unsafe trait Wipeable: Sync + 'static {}

/// A `T` that is zero at first, and in every forked child again.
pub(super) struct WipedOnFork<T> {
    /// Null until the first use, then a mapping that is never unmapped, or
    /// [`UNAVAILABLE`](Self::UNAVAILABLE).
    page: AtomicPtr<T>,
}

impl<T: Wipeable> WipedOnFork<T> {
    /// Stands for the decision to do without a page. Nothing is ever mapped at this address.
    const UNAVAILABLE: *mut T = ptr::without_provenance_mut(1);

    pub(super) const fn new() -> Self {
        Self {
            page: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns the value, or `None` if the kernel cannot wipe it on fork. The first answer holds
    /// for the rest of the process, and for its children.
    #[inline]
    pub(super) fn get(&self) -> Option<&'static T> {
        let mut page = self.page.load(Acquire);
        if page.is_null() {
            page = self.create();
        }
        if page == Self::UNAVAILABLE {
            return None;
        }
        // SAFETY: the pointer came from `map` and is never unmapped once it was stored. The page is
        // aligned for every type and holds either zeros or a value of `T`, and `Wipeable` promises
        // that zeros are a value and that it changes by atomic operations only.
        Some(unsafe { &*page })
    }

    /// Maps the page, unless another thread has done so, and returns what is stored then.
    #[cold]
    fn create(&self) -> *mut T {
        let new = map::<T>();
        let page = new.map_or(Self::UNAVAILABLE, NonNull::as_ptr);
        let stored = self
            .page
            .compare_exchange(ptr::null_mut(), page, AcqRel, Acquire);
        match stored {
            Ok(_) => page,
            Err(other) => {
                if let Some(new) = new {
                    unmap(new);
                }
                other
            }
        }
    }
}

/// Maps a zeroed page that is wiped on fork, if the kernel supports that.
fn map<T>() -> Option<NonNull<T>> {
    let (len, prot) = (size_of::<T>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, prot, MapFlags::PRIVATE) }.ok()?;
    let page = NonNull::new(base.cast::<T>())?;
    // SAFETY: the range is the mapping created above, and the advice does not change its content.
    let advised = unsafe { mm::madvise(base, len, Advice::LinuxWipeOnFork) };
    if advised.is_err() || !advice_is_heeded() {
        unmap(page);
        return None;
    }
    Some(page)
}

/// Unmaps a page that was not stored.
fn unmap<T>(page: NonNull<T>) {
    // SAFETY: the callers pass a mapping of `map` that was not stored, so nothing else refers to
    // it.
    unsafe { crate::sys::fd::unmap(page.cast(), size_of::<T>()) };
}
