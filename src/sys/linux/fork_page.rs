//! The generation of a process, in memory that a forked child finds zeroed. Reading it takes no
//! system call.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use super::wipe_on_fork::{Wipeable, WipedOnFork};

struct Page {
    /// 0, as in a new child, until the process asks for it.
    generation: AtomicUsize,
}

// SAFETY: it consists of one atomic integer, for which zero is valid.
unsafe impl Wipeable for Page {}

/// Returns the generation of this process, or `None` if the kernel cannot wipe memory on fork.
/// `next` returns a new one.
///
/// A process gets the same kind of answer each time, and so do its children: numbers with and
/// without a page must not be compared.
#[inline]
pub(in crate::sys) fn generation_in_page(next: fn() -> usize) -> Option<usize> {
    static PAGE: WipedOnFork<Page> = WipedOnFork::new();

    let page = PAGE.get()?;
    Some(match page.generation.load(Relaxed) {
        0 => page.set(next()),
        known => known,
    })
}

impl Page {
    /// Sets the generation, unless another thread has done so. Returns what it is then.
    #[cold]
    fn set(&self, next: usize) -> usize {
        match self.generation.compare_exchange(0, next, Relaxed, Relaxed) {
            Ok(_) => next,
            Err(known) => known,
        }
    }
}
