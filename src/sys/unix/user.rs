//! The user this process acts for.

use rustix::process::geteuid;

use crate::error::{Error, Result};

/// The user this process acts for at this moment.
///
/// Asked each time: a process can change its user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    uid: u32,
    /// Whether no other user shows under the same number.
    is_distinct: bool,
}

impl User {
    pub(crate) fn current() -> Self {
        let uid = geteuid().as_raw();
        Self {
            uid,
            is_distinct: is_distinct(uid),
        }
    }

    /// Whether `uid`, as the system reports it, is this user.
    pub(crate) fn is(self, uid: u32) -> bool {
        self.is_distinct && self.uid == uid
    }

    /// Returns an error for what belongs to another user.
    pub(crate) fn check(self, uid: u32) -> Result<()> {
        if self.is(uid) {
            Ok(())
        } else {
            Err(Error::OtherUser { owner: Some(uid) })
        }
    }
}

/// Returns an error for what belongs to another user.
pub(crate) fn check_owner(uid: u32) -> Result<()> {
    check_user()?.check(uid)
}

/// The user this process acts for, or an error if that cannot be told from others.
pub(crate) fn check_user() -> Result<User> {
    let user = User::current();
    if user.is_distinct {
        return Ok(user);
    }
    Err(Error::Unsupported {
        what: "this process has no user of its own: its user namespace does not map its user id, \
               and every unmapped user shows under the same number (kernel.overflowuid). Map it \
               (`unshare --map-current-user`, /proc/PID/uid_map)",
    })
}

/// Returns `true` if `uid` is the user this process acts for.
#[cfg(feature = "std")]
pub(crate) fn is_me(uid: u32) -> bool {
    User::current().is(uid)
}

#[cfg(any(target_os = "android", target_os = "linux"))]
use self::namespace::is_distinct;

/// Without user namespaces, every number stands for one user.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn is_distinct(_uid: u32) -> bool {
    true
}

/// In a user namespace, all users that it does not map show under one number
/// (`user_namespaces(7)`, "Unmapped user and group IDs").
#[cfg(any(target_os = "android", target_os = "linux"))]
mod namespace {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use crate::sys::procfs;

    /// The largest value of `kernel.overflowuid`.
    const MOST: u32 = 65535;
    const DEFAULT: u32 = 65534;

    /// Returns `false` if other users may show under the number as well.
    pub(super) fn is_distinct(uid: u32) -> bool {
        uid != overflow_uid() || all_users_are_mapped()
    }

    /// The number under which unmapped users show. It belongs to the whole system, so it is read
    /// once.
    fn overflow_uid() -> u32 {
        static KNOWN: AtomicU32 = AtomicU32::new(u32::MAX);

        match KNOWN.load(Relaxed) {
            u32::MAX => {
                let uid = procfs::number("/proc/sys/kernel/overflowuid")
                    .and_then(|uid| u32::try_from(uid).ok())
                    .filter(|&uid| uid <= MOST);
                // Without /proc it may become known later.
                if let Some(uid) = uid {
                    KNOWN.store(uid, Relaxed);
                }
                uid.unwrap_or(DEFAULT)
            }
            uid => uid,
        }
    }

    /// Returns `true` if the user namespace of this process maps every user, as the initial one
    /// does.
    fn all_users_are_mapped() -> bool {
        let mut text = [0; 128];
        let Some(map) = procfs::text("/proc/self/uid_map", &mut text) else {
            return false;
        };
        // One line: first id inside, first id outside, how many. The id `u32::MAX` does not exist.
        let mut words = map.split_ascii_whitespace().map(str::parse::<u32>);
        matches!(
            (words.next(), words.next(), words.next(), words.next()),
            (Some(Ok(0)), Some(Ok(_)), Some(Ok(u32::MAX)), None)
        )
    }
}
