//! [`Limit`]: the limits of the system that a segment can reach, with their values and what to do about them.

use core::fmt;

/// A limit that was reached, with its value at that moment.
///
/// [`Display`](fmt::Display) names it as the system's administrator knows it, and tells what to do
/// about it.
///
/// # Examples
///
/// ```
/// use shmem_providers::error::Limit;
///
/// // As in `Error::Os`, if the process has no descriptor left.
/// let limit = Limit::OpenFiles { limit: 1024 };
/// println!("raise it and try again: {limit}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Open descriptors of this process (`RLIMIT_NOFILE`).
    OpenFiles {
        /// How many it may have open.
        limit: u64,
    },
    /// Descriptors that this user's processes have sent through sockets and that were not received
    /// yet. The limit is that for open descriptors of one process (`RLIMIT_NOFILE`).
    InFlightDescriptors {
        /// How many there may be.
        limit: u64,
    },
    /// Open files of the whole system (`fs.file-max`).
    SystemOpenFiles {
        /// How many there may be.
        limit: u64,
    },
    /// The size of a file that this process creates (`RLIMIT_FSIZE`).
    FileSize {
        /// In bytes.
        limit: u64,
    },
    /// The address space of this process (`RLIMIT_AS`).
    AddressSpace {
        /// In bytes.
        limit: u64,
    },
    /// The mappings of one process (`vm.max_map_count`), or its address space.
    Mappings {
        /// How many mappings it may have.
        limit: u64,
        /// How many it has.
        used: u64,
    },
    /// Processes and threads of this user (`RLIMIT_NPROC`).
    Processes {
        /// How many there may be.
        limit: u64,
    },
    /// Descriptors that one user may watch with `epoll` (`fs.epoll.max_user_watches`).
    Watches {
        /// How many there may be.
        limit: u64,
    },
    /// The memory that the system commits at most, where it does not overcommit
    /// (`vm.overcommit_memory=2`).
    Overcommit {
        /// In bytes.
        limit: u64,
        /// How much is committed, in bytes.
        used: u64,
    },
    /// Memory that this process may lock (`RLIMIT_MEMLOCK`).
    LockedMemory {
        /// In bytes.
        limit: u64,
    },
    /// Huge pages of one size, reserved by the administrator.
    HugePages {
        /// The size of one page, in bytes.
        size: u64,
        /// How many are free.
        free: u64,
    },
    /// The memory of the machine.
    Memory {
        /// RAM and swap together, in bytes.
        total: u64,
    },
    /// The memory of the machine that is not used yet.
    FreeMemory {
        /// RAM and swap together, in bytes, by the kernel's estimate.
        free: u64,
        /// In bytes.
        total: u64,
    },
    /// Space in the file system of POSIX shared memory.
    DevShm {
        /// In bytes.
        free: u64,
        /// In bytes.
        total: u64,
    },
    /// Files in the file system of POSIX shared memory.
    DevShmInodes {
        /// How many it may have.
        total: u64,
    },
    /// The state of `/dev/shm`, in which no segment can be created.
    DevShmMount {
        /// What is wrong with it, and what to do about it.
        problem: &'static str,
    },
    /// The state of the directory for temporary files, in which no segment can be created.
    TemporaryDirectory {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Space in the file system of the directory for temporary files.
    TemporarySpace {
        /// In bytes.
        free: u64,
        /// In bytes.
        total: u64,
    },
    /// A sandbox, which forbids the call.
    Sandbox,
    /// System V segments of the system (`kernel.shmmni`).
    SystemVSegments {
        /// How many there may be.
        limit: u64,
        /// How many there are.
        used: u64,
    },
    /// Size of one System V segment (`kernel.shmmax`).
    SystemVSize {
        /// In bytes.
        limit: u64,
    },
    /// System V memory of the system (`kernel.shmall`).
    SystemVPages {
        /// In pages.
        limit: u64,
    },
    /// The memory that Windows can commit for all programs together (the commit limit).
    Commit {
        /// In bytes.
        free: u64,
        /// In bytes.
        total: u64,
    },
    /// A privilege that this process does not have (Windows).
    Privilege {
        /// Its name in Windows.
        name: &'static str,
    },
}

impl fmt::Display for Limit {
    #[expect(clippy::too_many_lines, reason = "one sentence for each limit")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OpenFiles { limit } => write!(
                f,
                "RLIMIT_NOFILE is {limit}: raise it (`ulimit -n`), or hold fewer segments"
            ),
            Self::InFlightDescriptors { limit } => write!(
                f,
                "RLIMIT_NOFILE is {limit}, and more descriptors that this user has sent were not \
                 received yet: find the program that does not receive them, or raise the limit \
                 (`ulimit -n`)"
            ),
            Self::SystemOpenFiles { limit } => {
                write!(
                    f,
                    "fs.file-max is {limit}: raise it (`sysctl fs.file-max=…`)"
                )
            }
            Self::FileSize { limit } => write!(
                f,
                "RLIMIT_FSIZE is {limit} bytes: raise it (`ulimit -f`), or use System V segments, \
                 to which it does not apply"
            ),
            Self::AddressSpace { limit } => {
                write!(f, "RLIMIT_AS is {limit} bytes: raise it (`ulimit -v`)")
            }
            Self::Mappings { limit, used } if used + SPARE >= limit => write!(
                f,
                "vm.max_map_count is {limit}, and this process has {used} mappings: hold fewer \
                 segments, or raise it (`sysctl vm.max_map_count=…`)"
            ),
            Self::Mappings { limit, used } => write!(
                f,
                "no unused part of the address space is large enough (vm.max_map_count is {limit}, \
                 and this process has {used} mappings): ask for less"
            ),
            Self::Processes { limit } => write!(
                f,
                "RLIMIT_NPROC allows {limit} processes and threads of this user: raise it (`ulimit \
                 -u`); a container or service may allow fewer (cgroup pids.max, systemd \
                 `TasksMax=`)"
            ),
            Self::Watches { limit } => write!(
                f,
                "fs.epoll.max_user_watches is {limit}: raise it (`sysctl \
                 fs.epoll.max_user_watches=…`)"
            ),
            Self::Overcommit { limit, used } => write!(
                f,
                "vm.overcommit_memory is 2, and {} of {} are committed: ask for less, or raise the \
                 limit (`sysctl vm.overcommit_ratio=…`)",
                Amount(used),
                Amount(limit)
            ),
            Self::LockedMemory { limit } => write!(
                f,
                "RLIMIT_MEMLOCK is {limit} bytes, which applies to `mlock` and `mlockall` together: \
                 raise it (`ulimit -l`), or lock less"
            ),
            Self::HugePages { size, free } => write!(
                f,
                "{free} huge pages of {} are free: reserve more \
                 (/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages)",
                Amount(size),
                size >> 10
            ),
            Self::Memory { total } => {
                write!(
                    f,
                    "RAM and swap have {} together: ask for less",
                    Amount(total)
                )
            }
            Self::FreeMemory { free, total } => write!(
                f,
                "RAM and swap have {} free of {}: ask for less, or end other programs",
                Amount(free),
                Amount(total)
            ),
            Self::DevShm { free, total } => write!(
                f,
                "/dev/shm has {} free of {}: enlarge it (`mount -o remount,size=… \
                 /dev/shm`, `docker run --shm-size=…`), or use memfd or System V segments, which \
                 it does not limit",
                Amount(free),
                Amount(total)
            ),
            Self::DevShmInodes { total } => write!(
                f,
                "/dev/shm has all of its {total} files: remove unused ones, or allow more (`mount -o \
                 remount,nr_inodes=… /dev/shm`), or use memfd or System V segments, which it does not \
                 limit"
            ),
            Self::DevShmMount { problem } => write!(
                f,
                "/dev/shm {problem}, or use memfd or System V segments, which do not need it"
            ),
            Self::TemporaryDirectory { problem } => write!(
                f,
                "the directory for temporary files ($TMPDIR, or else /tmp) {problem}: set TMPDIR to a \
                 directory that this process may write, the same one in all processes that share \
                 segments"
            ),
            Self::TemporarySpace { free, total } => write!(
                f,
                "the file system for temporary files ($TMPDIR, or else /tmp) has {} free of {}: set \
                 TMPDIR to a directory with more space, the same one in all processes that share \
                 segments",
                Amount(free),
                Amount(total)
            ),
            Self::Sandbox => f.write_str(
                "a sandbox (seccomp, a security module) forbids the call, or the kernel does not have it: \
                 use `StdShMemProvider`, which selects a mechanism that is allowed, or \
                 `FileShMemProvider`, which needs nothing but files",
            ),
            Self::SystemVSegments { limit, used } => write!(
                f,
                "kernel.shmmni is {limit} and {used} segments exist: remove unused ones (`ipcs \
                 -m`, `ipcrm -m …`), or raise it (`sysctl kernel.shmmni=…`)"
            ),
            Self::SystemVSize { limit } => write!(
                f,
                "kernel.shmmax is {limit} bytes: raise it (`sysctl kernel.shmmax=…`)"
            ),
            Self::SystemVPages { limit } => write!(
                f,
                "kernel.shmall is {limit} pages: remove unused segments (`ipcs -m`), or raise it \
                 (`sysctl kernel.shmall=…`)"
            ),
            Self::Commit { free, total } => write!(
                f,
                "the system can commit {} more of {}: ask for less, or enlarge the page file",
                Amount(free),
                Amount(total)
            ),
            Self::Privilege { name } => write!(
                f,
                "names in Global\\ need the privilege {name}, which administrators and services \
                 have: run the program as one of them, or choose a name in Local\\"
            ),
        }
    }
}

/// With this many mappings left, or fewer, a process cannot map a segment: one call may need
/// several.
const SPARE: u64 = 4;

/// An amount of memory, printed in the largest unit of which it has at least 1.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >> 30 > 0 => write!(f, "{} GiB", bytes >> 30),
            bytes if bytes >> 20 > 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes >> 10 > 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
