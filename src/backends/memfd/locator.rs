//! Opens a memfd by its id: through the descriptor of its creator, or else of any other holder.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{CWD, readlinkat_raw};
use rustix::path::DecInt;

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::MemfdLocator;
use crate::memory::mapping::Protection;
use crate::sys::procfs::object::{Wanted, is_memory};
use crate::sys::procfs::own_pid;
use crate::sys::procfs::processes::{Clock, Look, look_at, look_through, search};
use crate::sys::{self, access, failed, identity};
use crate::util::base64;
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
    let link = link(locator);
    let wanted = Wanted {
        user: sys::user::check_user()?,
        link: link.as_bytes(),
        access: access(protection),
        is_candidate: &is_memory,
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

/// Returns an id that opens an existing memfd through this descriptor, or `None` if its name does not
/// have the form of [`name`], or cannot be read.
pub(super) fn id_of(fd: &OwnedFd) -> Option<ShMemId> {
    let own = FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", DecInt::from_fd(fd).as_bytes()]);
    let mut buffer = [0; 64];
    let len = readlinkat_raw(CWD, own.as_bytes(), &mut buffer).ok()?;
    let found = buffer.get(..len)?;
    let rest = found.strip_prefix(b"/memfd:shmem-")?;
    let digits = core::str::from_utf8(rest.strip_suffix(b" (deleted)")?).ok()?;
    let number = u32::try_from(fd.as_raw_fd()).ok();
    let hint = identity::visible_pid().zip(number);
    let locator = MemfdLocator::new(hint, base64::number(digits)?);
    // The same number can be spelled with more or fewer digits.
    (found == link(locator).as_bytes()).then(|| locator.id())
}

/// Returns the text of links to the memfd in `/proc`.
fn link(locator: MemfdLocator) -> FixedStr<64> {
    FixedStr::joined(&[b"/memfd:", name(locator).as_bytes(), b" (deleted)"])
}

/// Returns the name of the memfd.
pub(super) fn name(locator: MemfdLocator) -> FixedStr<32> {
    FixedStr::joined(&[b"shmem-", &locator.nonce_digits()])
}
