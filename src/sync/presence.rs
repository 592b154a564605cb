//! [`Presence`]: a participant, whose death the other participants notice.
//!
//! A participant holds a lock of the kernel, or of the service of the segment, on the bytes of a slot, and the number of the slot's generation, which it
//! has incremented after it got the lock. It is dead if the slot is not locked or has another generation.
//! `tests/model/mutex.rs` shows that locks without generations fail: a process that takes the slot of a
//! dead one would be mistaken for it.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use crate::error::{Error, Result};
use crate::memory::layout::{SharedLayout, fingerprint};
use crate::sharing::SharedRef;
use crate::sync::mutex::Liveness;
use crate::sys::open_presence;
use crate::sys::presence::Token;

/// How many bits of an id are the slot. The other ones, except for the highest bit, are the generation.
const SLOT_BITS: u32 = 10;
const MAX_SLOTS: usize = 1 << SLOT_BITS;
const GENERATIONS: u32 = 1 << (31 - SLOT_BITS);

/// A table in shared memory, in which up to `N` participants are present at the same time.
///
/// `N` is 1 to 1024. Bytes that are zero are a table without participants. See [`Presence`].
#[repr(transparent)]
pub struct Slots<const N: usize>([AtomicU32; N]);

// SAFETY: the structure is transparent, and its field consists of atomic integers.
#[allow(unsafe_code)]
unsafe impl<const N: usize> SharedLayout for Slots<N> {
    const FINGERPRINT: u64 = fingerprint("Slots", &[N as u64]);
}

impl<const N: usize> fmt::Debug for Slots<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("len", &N)
            .finish_non_exhaustive()
    }
}

/// A participant in a segment, whose death the other participants notice.
///
/// It takes one slot of a table. The kernel frees the slot when the process ends, at whatever instruction,
/// and no process id is involved: participants may be in different pid namespaces.
///
/// # Lifetime
///
/// The participant leaves when the value is dropped, or when the process ends or executes another program.
/// A forked child is no participant: it has to join by itself, and what it does with a `Presence` that it has
/// inherited is an error.
///
/// # Platform notes
///
/// - Linux and Android: a lock of an open file description (`F_OFD_SETLK`) on the bytes of the slot, and
///   `/proc` has to be mounted. Children that are created by a bare `clone` system call,
///   without the C library, keep their parent present until they end or execute a program.
/// - System V segments on Linux have no descriptor. Their slots are locked in the file of the IPC namespace,
///   `/proc/thread-self/ns/ipc` (Linux 3.19). Every process in the namespace, also one of another user, can
///   lock bytes of that file. A dead participant then appears to be alive, and its slot taken: a wait
///   for it ends with its timeout. A living participant never appears to be dead. A thread that has entered
///   another IPC namespace since the segment was attached must not join, because it would not notice the other
///   participants, nor they it.
/// - Windows: an event in the namespace of the section, whose name is that of the section and the place of the
///   slot. A process that asks whether another one is alive has its event open for that moment, so a
///   dead participant may count as alive, and its slot as taken, until such calls have returned. A
///   handle to the event that a debugger or another program has duplicated has the same effect.
/// - Apple's systems, the BSDs, illumos and Solaris: the service of a served segment
///   (`StdServedShMemProvider`, the default there) has the lock, which ends with a connection of the participant.
///   Each participant is a client of the service, and has three descriptors. For other segments,
///   [`join`](Self::join) returns [`Error::Unsupported`].
///
///   Whether a participant is alive is a request to the service. If the service does not answer, this returns
///   [`Error::Service`] within five seconds, which a wait for a mutex may exceed its timeout by. If the process
///   that hosts the service dies, the participants lock their slots again at the next one. Until all of them
///   have done so or died, it returns [`Error::Service`] for those that have not, and nobody can join: for a moment
///   or, if one of them is stopped, until that continues. A live participant is never taken for a dead one. If the
///   host, the creator of the segment and all participants have died, nobody can join in this segment any more;
///   nor in one that was opened by a descriptor under another id. A child of a bare system call keeps its
///   parent present here, too.
/// - Haiku and others: [`join`](Self::join) returns [`Error::Unsupported`].
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use shmem_providers::sync::{Presence, Slots};
/// use shmem_providers::{MemfdShMemProvider, Typed};
///
/// let mut provider = MemfdShMemProvider::default();
/// let slots = Typed::<Slots<16>>::create(&mut provider, |_| {})?;
/// // In each process:
/// let me = Presence::join(&slots.clone().into_ref())?;
/// let other = Presence::join(&slots.into_ref())?;
/// let id = other.id();
/// assert!(me.is_alive(id)?);
/// drop(other); // or its process is killed
/// assert!(!me.is_alive(id)?);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[must_use = "the participant leaves when it is dropped"]
pub struct Presence {
    id: u32,
    token: Token,
    slots: SharedRef<[AtomicU32]>,
    /// Where the table starts in the segment, in bytes.
    start: usize,
}

impl Presence {
    /// Takes a free slot of the table.
    ///
    /// The threads of a process can share a `Presence`, or join several times. A process that also locks the
    /// segment by `fcntl(2)` must not lock the bytes of the table. Participants that join at the same time get
    /// different slots, and each gets one while there are free slots.
    ///
    /// # Errors
    ///
    /// [`Error::NoSlot`] if all slots are taken, [`Error::Unsupported`] where a death cannot be noticed,
    /// [`Error::Os`] if the system refuses, [`Error::Service`] if the service that has the locks does not answer or
    /// does not know all of them.
    pub fn join<const N: usize>(slots: &SharedRef<Slots<N>>) -> Result<Self> {
        const { assert!(N >= 1 && N <= MAX_SLOTS, "a table has 1 to 1024 slots") };
        let slots = slots.clone().map_to_slice(|slots| &slots.0);
        let holder = slots.holder();
        let table = slots.as_ptr().cast();
        let start = holder.offset_of(table).ok_or(Error::Unsupported {
            what: "the table of participants has to lie in the segment",
        })?;
        let segment = holder.description().id;
        let mut token = open_presence(holder.lock_descriptor(), &segment, table)?;
        for (slot, word) in slots.iter().enumerate() {
            if token.try_lock(byte_of(start, slot))? {
                let generation = generation(word.load(Acquire).wrapping_add(1)).max(1);
                word.store(generation, Release);
                return Ok(Self {
                    id: id(slot, generation),
                    token,
                    start,
                    slots: slots.clone(),
                });
            }
        }
        Err(Error::NoSlot { slots: N })
    }

    /// Returns the number of the slot, which is less than the number of slots. The next participant gets the
    /// same one once this one is gone.
    #[must_use]
    pub fn slot(&self) -> usize {
        slot_of(self.id)
    }

    /// Returns the id of this participant, for protocols that store it in the segment. It is never 0, and its
    /// highest bit is clear.
    ///
    /// A slot gives out the same id again after two million participants.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns `false` if the participant with this id has left or died, or if there was none. Any number
    /// is allowed.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] in a forked child, [`Error::Os`] if the system refuses, [`Error::Service`] if it is
    /// not known.
    pub fn is_alive(&self, id: u32) -> Result<bool> {
        self.check()?;
        if id == self.id {
            return Ok(true);
        }
        let slot = slot_of(id);
        let Some(word) = self.slots.get(slot) else {
            return Ok(false);
        };
        if id != self::id(slot, generation(word.load(Acquire))) || slot == self.slot() {
            return Ok(false);
        }
        self.token.is_locked(byte_of(self.start, slot))
    }

    /// Returns the id of the participant that is present in a slot, if there is one.
    ///
    /// # Errors
    ///
    /// As [`is_alive`](Self::is_alive).
    pub fn holder(&self, slot: usize) -> Result<Option<u32>> {
        let Some(word) = self.slots.get(slot) else {
            return Ok(None);
        };
        let id = id(slot, generation(word.load(Acquire)));
        Ok(self.is_alive(id)?.then_some(id))
    }

    /// Returns an error in a forked child.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.token.is_of_this_process() {
            Ok(())
        } else {
            Err(Error::Unsupported {
                what: "a forked child does not take part with the `Presence` of its parent: call \
                       `Presence::join` in the child",
            })
        }
    }
}

impl Liveness for Presence {
    fn is_alive(&self, id: u32) -> Result<bool> {
        self.is_alive(id)
    }
}

/// Returns the place of the byte that the participant in a slot locks: the first one of the slot.
fn byte_of(start: usize, slot: usize) -> usize {
    start.saturating_add(slot.saturating_mul(size_of::<AtomicU32>()))
}

fn generation(word: u32) -> u32 {
    word % GENERATIONS
}

fn id(slot: usize, generation: u32) -> u32 {
    generation << SLOT_BITS | u32::try_from(slot).unwrap_or(0)
}

fn slot_of(id: u32) -> usize {
    id as usize % MAX_SLOTS
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
