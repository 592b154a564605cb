//! [`Published`]: a value that a forked child always finds in a consistent state.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

/// A reference that is replaced atomically, without a lock that another thread could hold during a
/// fork.
pub(crate) struct Published<T: Sync + 'static>(AtomicPtr<T>);

impl<T: Sync> Published<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        let current = self.0.load(Acquire).cast_const();
        // SAFETY: the pointer is null or comes from a `&'static T`.
        unsafe { current.as_ref() }
    }

    /// Replaces `current` by `new`. Returns `false` if the value is no longer `current`.
    pub(crate) fn replace(&self, current: Option<&'static T>, new: &'static T) -> bool {
        let pointer = |value: &'static T| ptr::from_ref(value).cast_mut();
        let current = current.map_or(ptr::null_mut(), pointer);
        self.0
            .compare_exchange(current, pointer(new), AcqRel, Acquire)
            .is_ok()
    }
}

impl<T: Sync> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}
