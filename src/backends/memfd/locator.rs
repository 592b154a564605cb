//! Opens a memfd by its id: through the descriptor of its creator, or else of any other holder.

use rustix::fd::OwnedFd;

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::MemfdLocator;
use crate::memory::mapping::Protection;
use crate::sys::procfs::object::Wanted;
use crate::sys::procfs::own_pid;
use crate::sys::procfs::processes::{Clock, Look, look_at, look_through, search};
use crate::sys::{self, failed};
use crate::util::fixed_str::FixedStr;

/// Opens the segment through the descriptor of its creator or of any other holder: a file that has
/// the name and that `is_genuine` accepts.
pub(super) fn open(
    locator: MemfdLocator,
    id: &ShMemId,
    protection: Protection,
    is_genuine: &dyn Fn(&OwnedFd) -> bool,
) -> Result<OwnedFd> {
    let refused = |errno| failed("open", errno, Subject::Id(*id));
    let name = name(locator);
    let link = FixedStr::<64>::joined(&[b"/memfd:", name.as_bytes(), b" (deleted)"]);
    let wanted = Wanted {
        user: sys::user::check_user()?,
        link: link.as_bytes(),
        protection,
        is_genuine,
    };
    if let Some((pid, number)) = locator.process_and_fd() {
        let look = look_at(pid, number, &wanted).map_err(refused)?;
        if let Look::Found(fd) = look {
            return Ok(fd);
        }
    }
    let Some(own_pid) = own_pid() else {
        return Err(Error::Unsupported {
            what: "/proc is not mounted here, or does not show this process, so the id of a memfd \
                   cannot be opened: mount it, or use `UnixShMemProvider` or \
                   `StdServedShMemProvider`",
        });
    };
    let mut clock = Clock::start();
    // If this process has the segment already, that is found fastest.
    let own = look_through(own_pid, &wanted, &mut clock).map_err(refused)?;
    if let Look::Found(fd) = own {
        return Ok(fd);
    }
    // The error about the process that the id names, in case no other process has the segment.
    let mut error = None;
    if let Some((pid, _)) = locator.process_and_fd() {
        match look_through(pid, &wanted, &mut clock).map_err(refused)? {
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
    match search(&wanted, &mut clock).map_err(refused)? {
        Ok(fd) => Ok(fd),
        Err(search) => Err(error.unwrap_or(if search.is_complete() {
            Error::Gone { id: *id }
        } else {
            Error::NotFound { id: *id, search }
        })),
    }
}

/// Returns the name of the memfd.
pub(super) fn name(locator: MemfdLocator) -> FixedStr<32> {
    FixedStr::joined(&[b"shmem-", &locator.nonce_digits()])
}
