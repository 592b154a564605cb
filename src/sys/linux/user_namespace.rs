//! User ids in a user namespace. All users that it does not map have the same id
//! (`user_namespaces(7)`, "Unmapped user and group IDs").

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::procfs;

/// The largest value of `kernel.overflowuid`.
const MOST: u32 = 65535;
/// Its default.
const DEFAULT: u32 = 65534;

/// Returns `false` if several users may have this id.
pub(in crate::sys) fn is_distinct(uid: u32) -> bool {
    uid != overflow_uid() || all_users_are_mapped()
}

/// Returns the id of unmapped users. It is the same in the whole system, so it is cached.
fn overflow_uid() -> u32 {
    static KNOWN: AtomicU32 = AtomicU32::new(u32::MAX);

    match KNOWN.load(Relaxed) {
        u32::MAX => {
            let uid = procfs::number("/proc/sys/kernel/overflowuid")
                .and_then(|uid| u32::try_from(uid).ok())
                .filter(|&uid| uid <= MOST);
            // The default is not cached: /proc may be mounted later.
            if let Some(uid) = uid {
                KNOWN.store(uid, Relaxed);
            }
            uid.unwrap_or(DEFAULT)
        }
        uid => uid,
    }
}

/// Returns `true` if the user namespace of this process maps every user, as the initial one does.
fn all_users_are_mapped() -> bool {
    let mut text = [0; 128];
    let Some(map) = procfs::text("/proc/self/uid_map", &mut text) else {
        return false;
    };
    // One line: first id inside, first id outside, number of ids. The id `u32::MAX` does not exist.
    let mut words = map.split_ascii_whitespace().map(str::parse::<u32>);
    matches!(
        (words.next(), words.next(), words.next(), words.next()),
        (Some(Ok(0)), Some(Ok(_)), Some(Ok(u32::MAX)), None)
    )
}
