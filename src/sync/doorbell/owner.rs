//! [`Doorbell`]: the end that a process waits for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::id::DoorbellId;
use super::slot::DoorbellSlot;
use crate::error::{Error, Result};
use crate::sys;

/// A descriptor that becomes readable when another process of this user rings.
///
/// A process has one for its event loop, and arms it in the [`DoorbellSlot`] of whatever it waits for:
///
/// 1. Look at the condition: a word, a queue. If there is something to do, do it and start again.
/// 2. [`arm`](Self::arm) the doorbell, and look at the condition **once more**.
/// 3. If it has still not changed, wait until the descriptor is readable, together with all others of the loop.
/// 4. [`clear`](Self::clear), and start again.
///
/// No notification is lost that way: either step 2 sees the change, or the process that made it sees that the
/// doorbell is armed. Notifications that are not needed any more can arrive: readable means that it is worth
/// looking.
///
/// The descriptor is readable until it is cleared ("level-triggered"). It also works edge-triggered, as `mio` uses it.
/// For `tokio`, create a `tokio::net::unix::pipe::Receiver` from a duplicate of the descriptor, and read that in place
/// of `clear`: see `examples/tokio_doorbell.rs`.
///
/// # Lifetime
///
/// The doorbell ends with the process, however that ends, or once it is dropped; nothing is left.
/// [`DoorbellSlot::ring`] then returns `false`.
///
/// A forked child has the same pipe, not one of its own: it would take notifications that are meant for its parent.
/// It drops its copy and creates another doorbell. Until it ends or drops it, the pipe is still there after its
/// parent has ended, and processes that have it open do not notice; the id no longer opens it.
///
/// # Platform notes
///
/// Linux and Android: other processes open it by its [`id`](Self::id), through `/proc`, under the conditions of
/// `ptrace(2)` that apply to segments. On other Unix systems, and where `/proc` is not mounted, pass the descriptor
/// [`ringer_fd`](Self::ringer_fd).
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use rustix::event::{PollFd, PollFlags, Timespec, poll};
/// use shmem_providers::sync::{Doorbell, Ringer};
///
/// let doorbell = Doorbell::new()?;
/// let id = doorbell.id()?; // send it to the other process, or arm the doorbell in a slot
/// let ringing = std::thread::spawn(move || Ringer::open(id)?.ring());
/// poll(&mut [PollFd::new(&doorbell, PollFlags::IN)], None).unwrap();
/// doorbell.clear()?;
/// assert!(ringing.join().unwrap()?);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct Doorbell {
    read_end: OwnedFd,
    /// Kept, because a pipe without writers is always readable.
    write_end: OwnedFd,
    id: Result<DoorbellId>,
}

impl Doorbell {
    /// Creates a doorbell. Its descriptors are close-on-exec and do not block.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if no descriptor is left.
    pub fn new() -> Result<Self> {
        let (read_end, write_end) = sys::doorbell::create()?;
        let id = sys::doorbell::locate(&read_end).and_then(|(process, number, inode)| {
            DoorbellId::new(process, number, inode).ok_or(Error::Unsupported {
                what: "/proc shows no id of this process: pass `Doorbell::ringer_fd`",
            })
        });
        Ok(Self {
            read_end,
            write_end,
            id,
        })
    }

    /// Returns the id by which other processes of this user [open](super::Ringer::open) it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] on systems without `/proc`, [`Error::Os`] if a sandbox forbids the call that marks the
    /// pipe as a doorbell (`fchmod`).
    pub fn id(&self) -> Result<DoorbellId> {
        self.id.clone()
    }

    /// Announces in this slot that the doorbell is to be rung once, at the next change. Look at the condition
    /// afterwards, before waiting.
    ///
    /// If the doorbell has no [`id`](Self::id), only ringers by [descriptor](super::Ringer::from_fd) find it.
    pub fn arm(&self, slot: &DoorbellSlot) {
        slot.arm(self.id.as_ref().ok().copied());
    }

    /// Makes the descriptor not readable until the next ring. Call it when it was readable, before looking at the
    /// condition.
    ///
    /// Returns `false` if it may be still readable: another process rings without end. With edge-triggered
    /// notification, clear it again then before waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    pub fn clear(&self) -> Result<bool> {
        sys::doorbell::drain(&self.read_end)
    }

    /// Returns the descriptor by which others ring, for processes that cannot open the id: send it through a socket
    /// (`SCM_RIGHTS`), or let a started program inherit a duplicate. The other side calls
    /// [`Ringer::from_fd`](super::Ringer::from_fd).
    #[must_use]
    pub fn ringer_fd(&self) -> BorrowedFd<'_> {
        self.write_end.as_fd()
    }
}

/// The descriptor to wait for. Do not read it: [`clear`](Doorbell::clear) does.
impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}

/// As [`AsFd`], for event loops that take numbers.
impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.read_end.as_raw_fd()
    }
}
