//! Which limit stood behind a refusal, and what its value is.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};

/// The limit behind a call that failed, where the error number tells it.
pub(super) fn behind(call: &'static str, errno: Errno) -> Option<Limit> {
    match (call, errno) {
        (_, Errno::MFILE) => current(Resource::Nofile).map(|limit| Limit::OpenFiles { limit }),
        (_, Errno::FBIG) => file_size(),
        ("mmap" | "shmat", Errno::NOMEM) => system::full_mappings()
            .or_else(|| address_space().map(|limit| Limit::AddressSpace { limit }))
            .or_else(|| system::behind(call, errno)),
        _ => system::behind(call, errno),
    }
}

/// How many descriptors this process may have, if that is limited.
#[cfg(feature = "std")]
pub(crate) fn open_files() -> Option<u64> {
    current(Resource::Nofile)
}

/// How large a file of this process may become, if there is a limit.
pub(crate) fn file_size() -> Option<Limit> {
    current(Resource::Fsize).map(|limit| Limit::FileSize { limit })
}

/// Refuses what is over that limit: to try would not only fail, it would raise SIGXFSZ, which kills
/// (`setrlimit(2)`).
pub(crate) fn check_file_size(size: usize) -> Result<()> {
    match file_size() {
        Some(limit @ Limit::FileSize { limit: bytes }) if size as u64 > bytes => Err(Error::Os {
            call: "ftruncate",
            errno: Errno::FBIG.raw_os_error(),
            subject: Subject::Bytes(size),
            limit: Some(limit),
        }),
        _ => Ok(()),
    }
}

/// How much address space this process may use, if there is a limit.
#[cfg(not(target_os = "openbsd"))]
fn address_space() -> Option<u64> {
    current(Resource::As)
}

/// OpenBSD has no such limit.
#[cfg(target_os = "openbsd")]
fn address_space() -> Option<u64> {
    None
}

fn current(resource: Resource) -> Option<u64> {
    getrlimit(resource).current
}

#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use system::{behind_huge_pages, ram_and_swap};

#[cfg(any(target_os = "android", target_os = "linux"))]
mod system {
    use rustix::fd::OwnedFd;
    use rustix::fs::{Access, Mode, OFlags, access, open, statvfs};
    use rustix::io::{Errno, read};
    use rustix::path::DecInt;

    use crate::error::Error;
    use crate::error::limit::Limit;
    use crate::options::HugePages;
    use crate::sys::procfs::{self, number};
    use crate::util::fixed_str::FixedStr;

    pub(super) fn behind(call: &'static str, errno: Errno) -> Option<Limit> {
        match (call, errno) {
            (_, Errno::TOOMANYREFS) => super::current(super::Resource::Nofile)
                .map(|limit| Limit::InFlightDescriptors { limit }),
            (_, Errno::NFILE) => {
                number("/proc/sys/fs/file-max").map(|limit| Limit::SystemOpenFiles { limit })
            }
            ("mmap" | "shmat", Errno::NOMEM) => overcommit().or_else(mappings),
            // Where all memory is locked (`mlockall(2)`), mapping says AGAIN.
            ("mlock", Errno::NOMEM | Errno::PERM | Errno::AGAIN)
            | ("mmap" | "shmat", Errno::AGAIN) => {
                super::current(super::Resource::Memlock).map(|limit| Limit::LockedMemory { limit })
            }
            ("pthread_create", Errno::AGAIN) => super::current(super::Resource::Nproc)
                .or_else(|| number("/proc/sys/kernel/threads-max"))
                .map(|limit| Limit::Processes { limit }),
            ("epoll_ctl", Errno::NOSPC) => {
                number("/proc/sys/fs/epoll/max_user_watches").map(|limit| Limit::Watches { limit })
            }
            ("shmget", Errno::NOSPC) => system_v(),
            ("shmget", Errno::INVAL) => {
                number("/proc/sys/kernel/shmmax").map(|limit| Limit::SystemVSize { limit })
            }
            ("shmget", Errno::NOMEM) => overcommit().or_else(|| {
                Some(Limit::Memory {
                    total: ram_and_swap(),
                })
            }),
            ("shm_open" | "fallocate" | "pwrite", Errno::NOSPC) => dev_shm(),
            ("shm_open" | "shm_unlink", Errno::NOENT | Errno::ROFS | Errno::ACCESS) => {
                dev_shm_mount(errno)
            }
            _ => None,
        }
    }

    /// The error of a call that asked for huge pages: if it was memory that was missing, then these.
    pub(crate) fn behind_huge_pages(error: Error, pages: HugePages) -> Error {
        match error {
            Error::Os {
                call,
                errno,
                subject,
                ..
            } if errno == Errno::NOMEM.raw_os_error() => Error::Os {
                call,
                errno,
                subject,
                limit: free_huge_pages(pages.bytes()),
            },
            other => other,
        }
    }

    /// How many huge pages of this size, in bytes, are free, and not reserved for others; what more there
    /// may be on demand is not told.
    fn free_huge_pages(size: usize) -> Option<Limit> {
        let kib = DecInt::new(size >> 10);
        let count = |which: &[u8]| {
            let path = FixedStr::<80>::joined(&[
                b"/sys/kernel/mm/hugepages/hugepages-",
                kib.as_bytes(),
                which,
            ]);
            number(core::str::from_utf8(path.as_bytes()).ok()?)
        };
        let reserved = count(b"kB/resv_hugepages").unwrap_or(0);
        count(b"kB/free_hugepages").map(|free| Limit::HugePages {
            size: size as u64,
            free: free.saturating_sub(reserved),
        })
    }

    /// RAM and swap of the machine, in bytes.
    pub(crate) fn ram_and_swap() -> u64 {
        let info = rustix::system::sysinfo();
        // The kernel counts in `unsigned long`, which is narrower on some machines.
        #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
        let pages = |count| u64::try_from(count).unwrap_or(u64::MAX);
        pages(info.totalram)
            .saturating_add(pages(info.totalswap))
            .saturating_mul(info.mem_unit.into())
    }

    fn mappings() -> Option<Limit> {
        Some(Limit::Mappings {
            limit: number("/proc/sys/vm/max_map_count")?,
            used: lines("/proc/self/maps")?,
        })
    }

    /// The limit on mappings, if this process has reached it.
    pub(super) fn full_mappings() -> Option<Limit> {
        mappings()
            .filter(|limit| matches!(limit, Limit::Mappings { limit, used } if used + 4 >= *limit))
    }

    /// The limit on what the system promises, if it keeps to one.
    fn overcommit() -> Option<Limit> {
        if number("/proc/sys/vm/overcommit_memory")? != 2 {
            return None;
        }
        let mut text = [0; 4096];
        let text = procfs::text("/proc/meminfo", &mut text)?;
        let bytes = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Limit::Overcommit {
            limit: bytes("CommitLimit:")?,
            used: bytes("Committed_AS:")?,
        })
    }

    /// `shmget` says ENOSPC both for too many segments and for too many pages.
    fn system_v() -> Option<Limit> {
        let limit = number("/proc/sys/kernel/shmmni")?;
        let used = lines("/proc/sysvipc/shm")?.saturating_sub(1);
        if used >= limit {
            return Some(Limit::SystemVSegments { limit, used });
        }
        number("/proc/sys/kernel/shmall").map(|limit| Limit::SystemVPages { limit })
    }

    /// Without inodes there is no new file, and without blocks no memory for it.
    fn dev_shm() -> Option<Limit> {
        let stat = statvfs("/dev/shm").ok()?;
        // A file system without a limit says that it has none at all.
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

    fn dev_shm_mount(errno: Errno) -> Option<Limit> {
        let problem = match errno {
            Errno::NOENT => {
                "does not exist: mount a file system in memory there (`mount -t tmpfs -o mode=1777 \
                 tmpfs /dev/shm`)"
            }
            Errno::ROFS => "is mounted read-only: remount it (`mount -o remount,rw /dev/shm`)",
            // Otherwise it is a security module that forbids it.
            _ if access("/dev/shm", Access::WRITE_OK | Access::EXEC_OK).is_err() => {
                "does not let this user make files: change its mode (`chmod 1777 /dev/shm`)"
            }
            _ => return None,
        };
        Some(Limit::DevShmMount { problem })
    }

    fn lines(path: &str) -> Option<u64> {
        let file = opened(path)?;
        let mut part = [0; 1024];
        let mut lines = 0;
        loop {
            match read(&file, &mut part).ok()? {
                0 => return Some(lines),
                len => lines += part.iter().take(len).filter(|&&byte| byte == b'\n').count() as u64,
            }
        }
    }

    fn opened(path: &str) -> Option<OwnedFd> {
        open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
mod system {
    use rustix::io::Errno;

    use crate::error::limit::Limit;

    pub(super) fn full_mappings() -> Option<Limit> {
        None
    }

    /// What these systems call their limits is not told yet.
    pub(super) fn behind(_call: &'static str, _errno: Errno) -> Option<Limit> {
        None
    }
}
