//! [`Published`]: a value that a forked child always finds whole.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

/// A reference that is replaced as a whole, without a lock that another thread could have while this one
/// forks.
pub(crate) struct Published<T: Sync + 'static>(AtomicPtr<T>);

impl<T: Sync> Published<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        let current = self.0.load(Acquire).cast_const();
        // SAFETY: it is null, or came from a reference that is valid for ever.
        unsafe { current.as_ref() }
    }

    /// Replaces the value by another one, if it is still this.
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
