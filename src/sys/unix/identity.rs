//! Whether others can open what this process holds, and a stock of random numbers for ids, which a
//! forked child forgets.
//!
//! Every memfd id holds a random nonce. Remembered in an ordinary variable, a forked child would draw
//! the nonces of its parent. So they are in a page with `MADV_WIPEONFORK` (`madvise(2)`, since Linux
//! 4.14), which a child finds zeroed, whichever way it was forked. Where the kernel does not know it, or
//! an emulator only says that it does, each nonce is asked for.
//!
//! What a process can change (its user, its dumpable flag, its root directory, its limits) is asked each
//! time. Its capabilities are not: it can only lose them, and then its segments are found more easily
//! than it believes.
#![allow(unsafe_code)]

use core::mem::size_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use rustix::process::{DumpableBehavior, dumpable_behavior, geteuid};

use super::capabilities::Capabilities;
use super::procfs;
use crate::error::Result;
use crate::sys::random;

/// How many nonces are fetched at once. `getrandom(2)` gives up to 256 bytes without a break.
const STOCK: usize = 32;

/// A random number, for one name alone.
pub(crate) fn nonce() -> Result<u64> {
    if let Some(page) = page() {
        // A thread that would have to wait, or a signal handler that would do so forever, asks
        // anew.
        if page.busy.swap(1, Acquire) == 0 {
            let drawn = page.draw();
            page.busy.store(0, Release);
            return drawn;
        }
    }
    let mut nonce = [0; size_of::<u64>()];
    random(&mut nonce)?;
    Ok(u64::from_ne_bytes(nonce))
}

/// The number under which other processes of the user find this one's descriptors in `/proc`, if they
/// do at this moment.
///
/// `/proc` may be missing; and a process that cannot be dumped, or has capabilities that ordinary ones
/// do not have, is closed to them (`ptrace(2)`).
pub(crate) fn visible_pid() -> Option<u32> {
    match dumpable_behavior() {
        Ok(DumpableBehavior::Dumpable) if !is_privileged() => procfs::own_pid(),
        _ => None,
    }
}

/// Whether this process has capabilities that other processes of its user usually lack: root's have
/// them all.
fn is_privileged() -> bool {
    const UNKNOWN: u32 = 0;
    const NO: u32 = 1;
    const YES: u32 = 2;

    let known = page().map(|page| &page.privileged);
    match known.map_or(UNKNOWN, |known| known.load(Relaxed)) {
        UNKNOWN => {
            // Root can become another user and keep some of its capabilities.
            if geteuid().is_root() {
                return false;
            }
            let is = Capabilities::own().is_some_and(|own| own.permitted != 0);
            if let Some(known) = known {
                known.store(if is { YES } else { NO }, Relaxed);
            }
            is
        }
        known => known == YES,
    }
}

/// What is remembered. All zeros, as a child finds it: nothing.
#[repr(C)]
struct Page {
    /// Not 0 while a thread works on the rest.
    busy: AtomicU32,
    /// Whether the process has capabilities; 0 if that was not asked yet.
    privileged: AtomicU32,
    /// How many nonces are left.
    left: AtomicU32,
    /// The halves of the nonces: not every machine has larger atomics.
    stock: [[AtomicU32; 2]; STOCK],
}

impl Page {
    /// Takes a nonce, after filling up the stock if it is empty. Only for who holds `busy`.
    fn draw(&self) -> Result<u64> {
        let mut left = self.left.load(Relaxed) as usize;
        if left == 0 {
            self.fill()?;
            left = STOCK;
        }
        left -= 1;
        self.left.store(u32::try_from(left).unwrap_or(0), Relaxed);
        // Nobody else is here, so it need not be a swap, which would lock the bus.
        let take = |half: &AtomicU32| {
            let value = half.load(Relaxed);
            half.store(0, Relaxed);
            value
        };
        let [high, low] = match self.stock.get(left) {
            Some([high, low]) => [take(high), take(low)],
            None => [0; 2],
        };
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn fill(&self) -> Result<()> {
        let mut bytes = [0; STOCK * size_of::<u64>()];
        random(&mut bytes)?;
        let halves = self.stock.as_flattened();
        for (half, random) in halves.iter().zip(bytes.chunks_exact(size_of::<u32>())) {
            let mut number = [0; size_of::<u32>()];
            number.copy_from_slice(random);
            half.store(u32::from_ne_bytes(number), Relaxed);
        }
        Ok(())
    }
}

/// The page of this process, made by the first who asks and never given back.
fn page() -> Option<&'static Page> {
    static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());
    static NONE: AtomicU32 = AtomicU32::new(0);

    let mut page = PAGE.load(Acquire);
    if page.is_null() {
        if NONE.load(Relaxed) != 0 {
            return None;
        }
        let Some(new) = map_page() else {
            NONE.store(1, Relaxed);
            return None;
        };
        page = new.as_ptr();
        if let Err(other) = PAGE.compare_exchange(ptr::null_mut(), page, AcqRel, Acquire) {
            // SAFETY: nobody knows of our page, another thread was first.
            unsafe { super::fd::unmap(new.cast(), size_of::<Page>()) };
            page = other;
        }
    }
    // SAFETY: what is stored here came from `map_page`, has not been unmapped, and is never written
    // but through atomics. That a child finds zeros is a valid value of them as well.
    Some(unsafe { &*page })
}

/// A page that is zeroed in a forked child, if the kernel can do that.
fn map_page() -> Option<NonNull<Page>> {
    let (len, prot) = (size_of::<Page>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, prot, MapFlags::PRIVATE) }.ok()?;
    let page = NonNull::new(base.cast::<Page>())?;
    // SAFETY: the advice concerns our own new mapping, and does not change what it holds.
    let advised = unsafe { mm::madvise(base, len, Advice::LinuxWipeOnFork) };
    if advised.is_err() || !super::advice_is_heeded() {
        // SAFETY: the mapping is ours, and nobody knows of it.
        unsafe { super::fd::unmap(page.cast(), len) };
        return None;
    }
    Some(page)
}
