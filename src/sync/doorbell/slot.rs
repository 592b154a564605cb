//! [`DoorbellSlot`]: who listens, in shared memory.
//!
//! The listener announces itself and then looks at its condition once more; the other side changes the condition
//! and then asks. `slot::tests` explores the schedules of both with loom and shuttle, over a model
//! of the pipe.
#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::id::DoorbellId;
use crate::error::Result;
use crate::memory::layout::{SharedLayout, fingerprint};
use crate::sync::word::Word;

/// The id of a doorbell in shared memory. All zero is none. A [`Slot`] adds who listens.
///
/// No lock protects it: words of two ids, and words that a peer has changed, fail the checksum. If they do not,
/// opening the doorbell compares the inode.
#[repr(C)]
pub(crate) struct Address<W>([W; DoorbellId::WORDS]);

impl<W: Word> Address<W> {
    /// Writes the id, unless it is there.
    pub(crate) fn publish(&self, id: DoorbellId) {
        let new = id.to_words();
        if self.words() == new {
            return;
        }
        for (word, new) in self.0.iter().zip(new) {
            word.store(new, Release);
        }
    }

    pub(crate) fn read(&self) -> Option<DoorbellId> {
        DoorbellId::from_words(self.words())
    }

    fn words(&self) -> [u32; DoorbellId::WORDS] {
        self.0.each_ref().map(|word| word.load(Acquire))
    }
}

/// A process listens.
const ARMED: u32 = 1;
/// The unit of the number in the other bits.
const ARMING: u32 = 2;

/// Who listens to changes of some condition, and by which doorbell.
#[repr(C)]
struct Slot<W> {
    /// [`ARMED`] while the doorbell is to be rung, and in the other bits how often it was armed.
    armed: W,
    address: Address<W>,
}

impl<W: Word> Slot<W> {
    /// Announces the listener, who looks at its condition once more before it waits.
    fn arm(&self, id: Option<DoorbellId>) {
        if let Some(id) = id {
            self.address.publish(id);
        }
        self.armed.fetch_add(ARMING, SeqCst);
        self.armed.fetch_or(ARMED, SeqCst);
        W::fence(SeqCst);
    }

    /// Calls `ring` if somebody listens. The caller has changed the condition.
    fn ring_by(&self, ring: impl FnOnce(&Address<W>) -> Result<bool>) -> Result<bool> {
        W::fence(SeqCst);
        let found = self.armed.load(Acquire);
        if found & ARMED == 0 {
            return Ok(false);
        }
        let result = ring(&self.address)?;
        // Only now, so that a process that is killed before leaves it to the next one. Fails if the slot was armed
        // once more, perhaps too late for this ring.
        let _ = (self.armed).compare_exchange(found, found & !ARMED, SeqCst, Relaxed);
        Ok(result)
    }
}

/// A place in shared memory by which a process that waits in an event loop is notified.
///
/// Place it next to the words whose changes it is about, one for each process that listens, for instance as the
/// field of a structure ([`SharedLayout`]). All zero, as memory of a new segment is, means that nobody listens.
/// The listener calls [`Doorbell::arm`](super::Doorbell::arm), and the processes that change the words call
/// [`ring`](Self::ring) afterwards. If several doorbells are armed in one slot, only the last one is rung.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU32, Ordering::{Acquire, Release}};
/// use shmem_providers::sync::{Doorbell, DoorbellSlot};
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
///
/// let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
/// let (count, slot) = (shared.view::<AtomicU32>(0)?, shared.view::<DoorbellSlot>(4)?);
/// let doorbell = Doorbell::new()?;
///
/// doorbell.arm(&slot);
/// assert_eq!(count.load(Acquire), 0); // it has not changed, so wait for the descriptor to become readable
///
/// // In any process of this user:
/// let mut ringer = None;
/// count.store(1, Release);
/// assert!(slot.ring(&mut ringer)?);
/// count.store(2, Release);
/// assert!(!slot.ring(&mut ringer)?); // nobody waits any more, and no system call is made
///
/// doorbell.clear()?;
/// assert_eq!(count.load(Acquire), 2);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[repr(transparent)]
pub struct DoorbellSlot(Slot<AtomicU32>);

// SAFETY: the structure consists of atomic integers and is `repr(C)`; any bytes are valid.
unsafe impl SharedLayout for DoorbellSlot {
    const FINGERPRINT: u64 = fingerprint("DoorbellSlot", &[size_of::<Self>() as u64]);
}

#[cfg_attr(
    not(all(unix, feature = "std")),
    allow(dead_code, reason = "there are no doorbells, only the layout")
)]
impl DoorbellSlot {
    pub(super) fn arm(&self, id: Option<DoorbellId>) {
        self.0.arm(id);
    }

    pub(super) fn ring_by(
        &self,
        ring: impl FnOnce(&Address<AtomicU32>) -> Result<bool>,
    ) -> Result<bool> {
        self.0.ring_by(ring)
    }

    /// Returns the id of the doorbell that was armed last, or `None` if there is none or the words in memory are
    /// damaged.
    #[must_use]
    pub fn doorbell(&self) -> Option<DoorbellId> {
        self.0.address.read()
    }
}

impl fmt::Debug for DoorbellSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DoorbellSlot")
            .field(&self.doorbell())
            .finish()
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;
