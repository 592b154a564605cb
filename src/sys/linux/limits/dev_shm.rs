//! The limits of `/dev/shm`, the file system of POSIX shared memory.

use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;

use crate::error::limit::Limit;

/// The limits on objects in `/dev/shm` (`shm_open`, `shm_unlink`) and on their memory (`fallocate`,
/// `write`).
pub(crate) fn for_dev_shm(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOSPC => space(),
        Errno::NOENT => Some(Limit::DevShmMount {
            problem: "does not exist: mount a file system in memory there (`mount -t tmpfs -o \
                      mode=1777 tmpfs /dev/shm`)",
        }),
        Errno::ROFS => Some(Limit::DevShmMount {
            problem: "is mounted read-only: remount it (`mount -o remount,rw /dev/shm`)",
        }),
        Errno::ACCESS if access("/dev/shm", Access::WRITE_OK | Access::EXEC_OK).is_err() => {
            Some(Limit::DevShmMount {
                problem: "does not let this user create files: change its mode (`chmod 1777 \
                          /dev/shm`)",
            })
        }
        Errno::ACCESS => Some(Limit::DevShmMount {
            problem: "may not be used by this process, although its mode allows it: a security module \
                      (Landlock, AppArmor, SELinux) forbids it. Permit it",
        }),
        _ => None,
    }
}

/// A new file needs an inode, and its memory needs blocks.
fn space() -> Option<Limit> {
    let stat = statvfs("/dev/shm").ok()?;
    // A file system without a limit on inodes reports a total of 0.
    if stat.f_files > 0 && stat.f_ffree == 0 {
        return Some(Limit::DevShmInodes {
            total: stat.f_files,
        });
    }
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Limit::DevShm {
        free: bytes(stat.f_bavail),
        total: bytes(stat.f_blocks),
    })
}
