//! Which limit stood behind a refusal, and what its value is.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result, Subject};
use crate::limit::Limit;

/// The limit behind a call that failed, where the error number tells it.
pub(super) fn behind(call: &'static str, errno: Errno) -> Option<Limit> {
    match (call, errno) {
        (_, Errno::MFILE) => current(Resource::Nofile).map(|limit| Limit::OpenFiles { limit }),
        (_, Errno::FBIG) => file_size(),
        ("mmap" | "shmat", Errno::NOMEM) => match address_space() {
            Some(limit) => Some(Limit::AddressSpace { limit }),
            None => system::behind(call, errno),
        },
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
    use rustix::fs::{Mode, OFlags, open, statvfs};
    use rustix::io::{Errno, read};
    use rustix::path::DecInt;

    use crate::error::Error;
    use crate::limit::Limit;
    use crate::options::HugePages;
    use crate::text::Text;

    pub(super) fn behind(call: &'static str, errno: Errno) -> Option<Limit> {
        match (call, errno) {
            (_, Errno::TOOMANYREFS) => super::current(super::Resource::Nofile)
                .map(|limit| Limit::InFlightDescriptors { limit }),
            (_, Errno::NFILE) => {
                number("/proc/sys/fs/file-max").map(|limit| Limit::SystemOpenFiles { limit })
            }
            ("mmap" | "shmat", Errno::NOMEM) => {
                number("/proc/sys/vm/max_map_count").map(|limit| Limit::Mappings { limit })
            }
            ("mlock", Errno::NOMEM | Errno::PERM | Errno::AGAIN) => {
                super::current(super::Resource::Memlock).map(|limit| Limit::LockedMemory { limit })
            }
            ("shmget", Errno::NOSPC) => system_v(),
            ("shmget", Errno::INVAL) => {
                number("/proc/sys/kernel/shmmax").map(|limit| Limit::SystemVSize { limit })
            }
            ("shmget", Errno::NOMEM) => Some(Limit::Memory {
                total: ram_and_swap(),
            }),
            ("shm_open" | "fallocate" | "pwrite", Errno::NOSPC) => dev_shm(),
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

    /// How many huge pages of this size, in bytes, are free; what more there may be on demand is not
    /// told.
    fn free_huge_pages(size: usize) -> Option<Limit> {
        let kib = DecInt::new(size >> 10);
        let path = Text::<80>::joined(&[
            b"/sys/kernel/mm/hugepages/hugepages-",
            kib.as_bytes(),
            b"kB/free_hugepages",
        ]);
        let path = core::str::from_utf8(path.as_bytes()).ok()?;
        let size = size as u64;
        number(path).map(|free| Limit::HugePages { size, free })
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

    /// `shmget` says ENOSPC both for too many segments and for too many pages.
    fn system_v() -> Option<Limit> {
        let limit = number("/proc/sys/kernel/shmmni")?;
        let used = lines("/proc/sysvipc/shm")?.saturating_sub(1);
        if used >= limit {
            return Some(Limit::SystemVSegments { limit, used });
        }
        number("/proc/sys/kernel/shmall").map(|limit| Limit::SystemVPages { limit })
    }

    fn dev_shm() -> Option<Limit> {
        let stat = statvfs("/dev/shm").ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Limit::DevShm {
            free: bytes(stat.f_bavail),
            total: bytes(stat.f_blocks),
        })
    }

    /// The number that a file of `/proc/sys` holds; `fs.file-max` and the like are a single one.
    fn number(path: &str) -> Option<u64> {
        let mut text = [0; 32];
        let len = read(opened(path)?, &mut text).ok()?;
        core::str::from_utf8(text.get(..len)?)
            .ok()?
            .trim()
            .parse()
            .ok()
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

    use crate::limit::Limit;

    /// What these systems call their limits is not told yet.
    pub(super) fn behind(_call: &'static str, _errno: Errno) -> Option<Limit> {
        None
    }
}
