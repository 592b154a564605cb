//! What the id of a memfd says, and how that leads to it.

use rustix::fd::OwnedFd;

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::sys::procfs::{self, Clock, Look, Wanted};
use crate::sys::{self, failed};
use crate::util::base64;
use crate::util::fixed_str::Text;

/// Whether others can open the segment of this id without looking through all processes.
pub(in crate::backends) fn is_reachable(id: &ShMemId) -> bool {
    !id.as_array().starts_with(b"mAAAAAAA")
}

/// What an id says: where the segment was made, and what its memfd is called.
///
/// 106 of the 108 bits of 18 characters: 22 for the process, 20 for the descriptor, and 64 for the
/// nonce, which so fills the last 11 characters, as it does in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Process and descriptor, unless one of them does not fit, or others cannot look there.
    found: Option<(u32, u32)>,
    nonce: u64,
}

/// Linux has no process numbers beyond this (`PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;
/// Descriptors beyond this need `fs.nr_open` raised far above its default, 2^20.
const FD_BITS: u32 = 20;
const NONCE_CHARS: usize = 11;

impl Place {
    /// Of a segment with this nonce, which this process and descriptor lead to.
    pub(super) fn new(found: Option<(u32, u32)>, nonce: u64) -> Self {
        Self { found, nonce }
    }

    pub(super) fn of(id: &ShMemId) -> Option<Self> {
        let (place, nonce) = id.as_str().strip_prefix('m')?.split_at_checked(7)?;
        if nonce.len() != NONCE_CHARS {
            return None;
        }
        let place = base64::number(place)?;
        // 11 characters have room for 66 bits; what does not fit was not made here.
        let nonce = base64::number(nonce)?;
        let pid = u32::try_from(place >> FD_BITS).ok()?;
        let number = u32::try_from(place & ((1 << FD_BITS) - 1)).ok()?;
        Some(Self {
            found: (pid != 0).then_some((pid, number)),
            nonce,
        })
    }

    pub(super) fn id(self) -> ShMemId {
        let fits = |&(pid, number): &(u32, u32)| pid >> PID_BITS == 0 && number >> FD_BITS == 0;
        let (pid, number) = self.found.filter(fits).unwrap_or((0, 0));
        let place = base64::digits::<7>(u64::from(pid) << FD_BITS | u64::from(number));
        let text = Text::<20>::joined(&[b"m", &place, &nonce_digits(self.nonce)]);
        ShMemId::holding(text.as_bytes())
    }

    /// Opens the segment by the descriptor of its creator or of any other holder: what has the name
    /// and is taken for genuine.
    pub(super) fn open(
        self,
        id: &ShMemId,
        is_genuine: &dyn Fn(&OwnedFd) -> bool,
    ) -> Result<OwnedFd> {
        let refused = |errno| failed("open", errno, Subject::Id(*id));
        let name = name(self.nonce);
        let link = Text::<64>::joined(&[b"/memfd:", name.as_bytes(), b" (deleted)"]);
        let wanted = Wanted {
            user: sys::check_user()?,
            link: link.as_bytes(),
            is_genuine,
        };
        if let Some((pid, number)) = self.found {
            let look = procfs::look_at(pid, number, &wanted).map_err(refused)?;
            if let Look::Found(fd) = look {
                return Ok(fd);
            }
        }
        let Some(own_pid) = procfs::own_pid() else {
            return Err(Error::Unsupported {
                what: "/proc is not mounted here, or does not show this process: the id of a memfd \
                       leads nowhere. Mount it, or use `UnixShMemProvider` or \
                       `StdServedShMemProvider`",
            });
        };
        let mut clock = Clock::start();
        // A process that has the segment already need not look far.
        let own = procfs::look_through(own_pid, &wanted, &mut clock).map_err(refused)?;
        if let Look::Found(fd) = own {
            return Ok(fd);
        }
        // What is said of the process that the id names, if nobody else has the segment.
        let mut error = None;
        if let Some((pid, _)) = self.found {
            match procfs::look_through(pid, &wanted, &mut clock).map_err(refused)? {
                Look::Found(fd) => return Ok(fd),
                Look::OtherUser(uid) => error = Some(Error::OtherUser { owner: Some(uid) }),
                Look::Closed(reason) => {
                    error = Some(Error::Denied {
                        id: *id,
                        process: pid,
                        reason,
                    });
                }
                Look::Nothing | Look::NoProcess => {}
            }
        }
        match procfs::search(&wanted, &mut clock).map_err(refused)? {
            Ok(fd) => Ok(fd),
            Err(search) => Err(error.unwrap_or(if search.is_complete() {
                Error::Gone { id: *id }
            } else {
                Error::NotFound { id: *id, search }
            })),
        }
    }
}

/// What the memfd of a segment with this nonce is called.
pub(super) fn name(nonce: u64) -> Text<32> {
    Text::joined(&[b"shmem-", &nonce_digits(nonce)])
}

/// The nonce as it is written in ids and names.
fn nonce_digits(nonce: u64) -> [u8; NONCE_CHARS] {
    base64::digits(nonce)
}
