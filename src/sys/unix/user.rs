//! The effective user of this process.

use rustix::process::geteuid;

use crate::error::{Error, Result};
use crate::sys::is_distinct;

/// The effective user of this process at one moment. It is queried each time, because a process can
/// change its user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    uid: u32,
    /// `false` if other users may have the same id.
    is_distinct: bool,
}

impl User {
    /// Queries the system.
    pub(crate) fn current() -> Self {
        let uid = geteuid().as_raw();
        Self {
            uid,
            is_distinct: is_distinct(uid),
        }
    }

    /// Returns `true` if `uid`, as reported by the system, is this user.
    pub(crate) fn is(self, uid: u32) -> bool {
        self.is_distinct && self.uid == uid
    }

    /// Returns an error if `uid` is another user.
    pub(crate) fn check(self, uid: u32) -> Result<()> {
        if self.is(uid) {
            Ok(())
        } else {
            Err(Error::OtherUser { owner: Some(uid) })
        }
    }
}

/// Returns an error if `uid` is not the effective user of this process.
pub(crate) fn check_owner(uid: u32) -> Result<()> {
    check_user()?.check(uid)
}

/// Returns the effective user of this process, or an error if other users may have the same id.
pub(crate) fn check_user() -> Result<User> {
    let user = User::current();
    if user.is_distinct {
        return Ok(user);
    }
    Err(Error::Unsupported {
        what: "this process has no user of its own: its user namespace does not map its user id, \
               and all unmapped users have the same id (kernel.overflowuid). Map it \
               (`unshare --map-current-user`, /proc/PID/uid_map)",
    })
}

/// Returns `true` if `uid` is the effective user of this process.
#[cfg(feature = "std")]
pub(crate) fn is_me(uid: u32) -> bool {
    User::current().is(uid)
}
