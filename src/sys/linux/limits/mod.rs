//! The limit that a call ran into, and its value: one function for each kind of object. The caller
//! knows which object its call was about.

#[cfg(target_os = "linux")]
mod dev_shm;
#[cfg(target_os = "linux")]
mod system_v;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use rustix::path::DecInt;
use rustix::process::Resource;

#[cfg(target_os = "linux")]
pub(crate) use self::dev_shm::for_dev_shm;
#[cfg(target_os = "linux")]
pub(crate) use self::system_v::for_system_v;
use super::procfs::{self, number};
use crate::error::limit::Limit;
use crate::options::HugePages;
use crate::sys::rlimits;
pub(crate) use crate::sys::rlimits::check_file_size;
#[cfg(feature = "std")]
pub(crate) use crate::sys::rlimits::open_files;
use crate::util::fixed_str::FixedStr;

/// The limits that an error number identifies by itself, whatever the object: they concern
/// descriptors and files.
pub(crate) fn for_descriptor(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::TOOMANYREFS => {
            rlimits::current(Resource::Nofile).map(|limit| Limit::InFlightDescriptors { limit })
        }
        Errno::NFILE => {
            number("/proc/sys/fs/file-max").map(|limit| Limit::SystemOpenFiles { limit })
        }
        _ => rlimits::for_descriptor(errno),
    }
}

/// The limits on new mappings (`mmap`, `shmat`).
pub(crate) fn for_mapping(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOMEM => full_mappings()
            .or_else(rlimits::address_space)
            .or_else(overcommit)
            .or_else(mappings),
        // Where all memory of the process is locked (`mlockall(2)`), mapping locks as well.
        Errno::AGAIN => locked_memory(),
        _ => None,
    }
}

/// The limits on the memory of a memfd (`fallocate`).
pub(crate) fn for_memory(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOMEM | Errno::NOSPC => overcommit().or_else(|| {
            Some(Limit::FreeMemory {
                free: free_memory()?,
                total: ram_and_swap(),
            })
        }),
        _ => None,
    }
}

/// The limit on locked memory (`mlock`).
pub(crate) fn for_lock(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOMEM | Errno::PERM | Errno::AGAIN => locked_memory(),
        _ => None,
    }
}

/// The limits on new threads (`pthread_create`).
#[cfg(feature = "std")]
pub(crate) fn for_thread(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::AGAIN => rlimits::current(Resource::Nproc)
            .or_else(|| number("/proc/sys/kernel/threads-max"))
            .map(|limit| Limit::Processes { limit }),
        _ => None,
    }
}

/// The limit on descriptors that are watched (`epoll_ctl`).
#[cfg(feature = "std")]
pub(crate) fn for_watches(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOSPC => {
            number("/proc/sys/fs/epoll/max_user_watches").map(|limit| Limit::Watches { limit })
        }
        _ => None,
    }
}

/// Returns how many huge pages of this size are free and not reserved. More may become available on
/// demand; the kernel does not report how many.
pub(crate) fn free_huge_pages(pages: HugePages) -> Option<Limit> {
    let size = pages.bytes() as u64;
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
        size,
        free: free.saturating_sub(reserved),
    })
}

/// Returns how much memory of RAM and swap together can still be used, in bytes, by the kernel's
/// estimate.
pub(in crate::sys) fn free_memory() -> Option<u64> {
    let [ram, swap] = memory_info(["MemAvailable:", "SwapFree:"])?;
    Some(ram.saturating_add(swap))
}

/// Returns the size of RAM and swap together, in bytes.
pub(in crate::sys) fn ram_and_swap() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "the kernel's `unsigned long` is narrower on some machines"
    )]
    let pages = |count| u64::try_from(count).unwrap_or(u64::MAX);
    pages(info.totalram)
        .saturating_add(pages(info.totalswap))
        .saturating_mul(info.mem_unit.into())
}

fn locked_memory() -> Option<Limit> {
    rlimits::current(Resource::Memlock).map(|limit| Limit::LockedMemory { limit })
}

fn mappings() -> Option<Limit> {
    Some(Limit::Mappings {
        limit: number("/proc/sys/vm/max_map_count")?,
        used: lines("/proc/self/maps")?,
    })
}

/// Returns the limit on the number of mappings if this process has reached it, apart from a few.
fn full_mappings() -> Option<Limit> {
    mappings()
        .filter(|limit| matches!(limit, Limit::Mappings { limit, used } if used + 4 >= *limit))
}

/// Returns the commit limit, if the system enforces one.
fn overcommit() -> Option<Limit> {
    if number("/proc/sys/vm/overcommit_memory")? != 2 {
        return None;
    }
    let [limit, used] = memory_info(["CommitLimit:", "Committed_AS:"])?;
    Some(Limit::Overcommit { limit, used })
}

/// Returns two values of `/proc/meminfo`, in bytes.
fn memory_info(names: [&str; 2]) -> Option<[u64; 2]> {
    let mut text = [0; 4096];
    let text = procfs::text("/proc/meminfo", &mut text)?;
    let bytes = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        kib.checked_mul(1024)
    };
    let [one, other] = names;
    Some([bytes(one)?, bytes(other)?])
}

/// Counts the lines of a file.
fn lines(path: &str) -> Option<u64> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut part = [0; 1024];
    let mut lines = 0;
    loop {
        match read(&file, &mut part).ok()? {
            0 => return Some(lines),
            len => lines += part.iter().take(len).filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}
