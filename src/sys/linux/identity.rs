//! What other processes need to find this one's memfds: a process id that works in `/proc`, and
//! nonces.
//!
//! Every memfd id contains a random nonce. Nonces are fetched many at a time and cached. A forked
//! child must not inherit the cache, or it would use the nonces of its parent, so the cache is in
//! memory that the kernel wipes on fork ([`WipedOnFork`]). Where it cannot, or an emulator only
//! claims to, each nonce is fetched separately.
//!
//! What a process can change (its user, dumpable flag, root directory, limits) is looked up each
//! time. Its capabilities are cached: it can only lose them, and then its segments are easier to
//! find than it assumes.
#![allow(unsafe_code)]

use core::mem::size_of;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use rustix::process::{DumpableBehavior, dumpable_behavior, geteuid};

use super::capabilities::Capabilities;
use super::procfs;
use super::wipe_on_fork::{Wipeable, WipedOnFork};
use crate::error::Result;
use crate::sys::{random, random_u64};

/// How many nonces are fetched at once: 256 bytes, the most that `getrandom(2)` always returns
/// without being interrupted by a signal.
const CACHED: usize = 32;

static PAGE: WipedOnFork<Page> = WipedOnFork::new();

/// Returns a random number that nobody can predict.
pub(crate) fn nonce() -> Result<u64> {
    if let Some(page) = PAGE.get() {
        // While another thread uses the cache, this one does without it instead of waiting: it
        // could be a signal handler that interrupted that thread, and would wait forever.
        if page.busy.swap(1, Acquire) == 0 {
            let taken = page.take();
            page.busy.store(0, Release);
            return taken;
        }
    }
    random_u64()
}

/// Returns the process id under which other processes of the user can open this one's descriptors
/// in `/proc`, or `None` if they cannot at this moment.
///
/// `/proc` may not be mounted, and other processes may not look into one that is not dumpable or
/// has capabilities that they do not have (`ptrace(2)`).
pub(crate) fn visible_pid() -> Option<u32> {
    match dumpable_behavior() {
        Ok(DumpableBehavior::Dumpable) if !is_privileged() => procfs::own_pid(),
        _ => None,
    }
}

/// Returns `true` if this process has capabilities that other processes of its user usually lack.
/// Those of root have all capabilities.
fn is_privileged() -> bool {
    const UNKNOWN: u32 = 0;
    const NO: u32 = 1;
    const YES: u32 = 2;

    let known = PAGE.get().map(|page| &page.privileged);
    match known.map_or(UNKNOWN, |known| known.load(Relaxed)) {
        UNKNOWN => {
            // Not cached: root can become another user and keep some of its capabilities.
            if geteuid().is_root() {
                return false;
            }
            let is = Capabilities::current().is_some_and(|sets| sets.permitted != 0);
            if let Some(known) = known {
                known.store(if is { YES } else { NO }, Relaxed);
            }
            is
        }
        known => known == YES,
    }
}

/// The cache. Zeroed, as a new child finds it, it is empty.
#[repr(C)]
struct Page {
    /// Not 0 while a thread uses the nonces.
    busy: AtomicU32,
    /// Whether the process has capabilities; 0 if that is not known yet.
    privileged: AtomicU32,
    /// The number of nonces left.
    left: AtomicU32,
    /// The halves of each nonce: not every machine has 64-bit atomics.
    nonce_cache: [[AtomicU32; 2]; CACHED],
}

// SAFETY: it consists of atomic integers, for which zero is valid, and has 268 bytes.
unsafe impl Wipeable for Page {}

impl Page {
    /// Takes a nonce out of the cache, and fills the cache first if it is empty. The caller must
    /// have set `busy`.
    fn take(&self) -> Result<u64> {
        let mut left = self.left.load(Relaxed) as usize;
        if left == 0 {
            self.fill()?;
            left = CACHED;
        }
        left -= 1;
        self.left.store(u32::try_from(left).unwrap_or(0), Relaxed);
        // No other thread writes here while `busy` is set, so a load and a store do. A swap would
        // be slower, because it locks the bus.
        let take = |half: &AtomicU32| {
            let value = half.load(Relaxed);
            half.store(0, Relaxed);
            value
        };
        let [high, low] = match self.nonce_cache.get(left) {
            Some([high, low]) => [take(high), take(low)],
            None => [0; 2],
        };
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn fill(&self) -> Result<()> {
        let mut bytes = [0; CACHED * size_of::<u64>()];
        random(&mut bytes)?;
        let halves = self.nonce_cache.as_flattened();
        for (half, random) in halves.iter().zip(bytes.chunks_exact(size_of::<u32>())) {
            let mut number = [0; size_of::<u32>()];
            number.copy_from_slice(random);
            half.store(u32::from_ne_bytes(number), Relaxed);
        }
        Ok(())
    }
}
