//! [`ShMemOptions`]: what can be asked for beyond a plain segment, and [`OptionReport`]: what was granted.

use core::fmt;

use crate::error::{Error, Result};

/// What can be asked for beyond a plain segment: for its memory when it is created, and for the
/// mapping when it is created or attached.
///
/// By default nothing is asked for. No option changes what an id means, how long a segment lives,
/// or what it contains. If a system, a mechanism or a limit does not allow an option, the segment
/// is created without it, and the [`OptionReport`] contains the reason. Only
/// [`require_huge_pages`](Self::require_huge_pages), [`single_writer`](Self::single_writer) and
/// [`reserve`](Self::reserve) make it an error.
///
/// See `docs/performance.md` for measurements.
///
/// # Platform notes
///
/// Memfd, System V and POSIX segments on Linux support the options, and so do served segments whose
/// memory is one of these. On other systems no option is granted, except a reservation on Windows.
///
/// # Examples
///
/// ```
/// use shmem_providers::{OptionStatus, ShMem, ShMemOptions, ShMemProvider, StdShMemProvider};
///
/// let options = ShMemOptions::new().prefault().lock();
/// let (segment, report) = StdShMemProvider::new()?.new_shmem_with(65536, options)?;
/// assert_eq!(segment.len(), 65536);
/// if let OptionStatus::Refused(reason) = &report.lock {
///     eprintln!("the segment may be swapped out: {reason}");
/// }
/// assert_eq!(report.no_dump, OptionStatus::NotAsked);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[expect(clippy::struct_excessive_bools, reason = "each of them is an option")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShMemOptions {
    pub(crate) huge_pages: Option<(HugePages, Priority)>,
    pub(crate) transparent_huge_pages: bool,
    pub(crate) prefault: bool,
    pub(crate) lock: bool,
    pub(crate) no_dump: bool,
    pub(crate) single_writer: bool,
    /// In bytes.
    pub(crate) reserve: Option<usize>,
}

/// The size of the pages that the administrator has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Pages of 2 MiB.
    TwoMiB,
    /// Pages of 1 GiB.
    OneGiB,
}

/// What happens if an option is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    BestEffort,
    Required,
}

/// What was granted of each of the [`ShMemOptions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionReport {
    /// The status of [`try_huge_pages`](ShMemOptions::try_huge_pages) or
    /// [`require_huge_pages`](ShMemOptions::require_huge_pages).
    pub huge_pages: OptionStatus,
    /// The status of [`transparent_huge_pages`](ShMemOptions::transparent_huge_pages).
    pub transparent_huge_pages: OptionStatus,
    /// The status of [`prefault`](ShMemOptions::prefault).
    pub prefault: OptionStatus,
    /// The status of [`lock`](ShMemOptions::lock).
    pub lock: OptionStatus,
    /// The status of [`no_dump`](ShMemOptions::no_dump).
    pub no_dump: OptionStatus,
    /// The status of [`single_writer`](ShMemOptions::single_writer), which is never refused: creating
    /// the segment fails instead.
    pub single_writer: OptionStatus,
}

/// Whether one option was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OptionStatus {
    /// It was not asked for.
    #[default]
    NotAsked,
    /// It was asked for and is in effect.
    Granted,
    /// It was asked for and is not in effect, for this reason.
    Refused(Error),
}

impl ShMemOptions {
    /// Creates options that ask for nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            huge_pages: None,
            transparent_huge_pages: false,
            prefault: false,
            lock: false,
            no_dump: false,
            single_writer: false,
            reserve: None,
        }
    }

    /// Asks for all pages to be allocated and mapped before the segment is returned, so that no
    /// access to it causes a page fault in this process.
    ///
    /// Use it where all or most of a segment is used, above all by a process that attaches to an
    /// existing segment. Do not use it where little of the segment is touched: every page takes
    /// memory at once.
    ///
    /// # Platform notes
    ///
    /// Linux: `MADV_POPULATE_READ` (`madvise(2)`, since 5.14); on older kernels every page is
    /// touched. If the processor does not record by itself which pages were written, as some ARM
    /// processors do not, the first write to a page can still cause a fault.
    #[must_use]
    pub const fn prefault(mut self) -> Self {
        self.prefault = true;
        self
    }

    /// Asks for pages of this size if there are any, and for ordinary pages otherwise.
    ///
    /// Huge pages are worth it for large segments that are used all over: one page fault instead of
    /// 512, and fewer TLB misses. They are a bad fit where little is touched, because the first
    /// byte takes a whole page. The administrator has to reserve them (`vm.nr_hugepages`), which
    /// takes the memory from everything else.
    ///
    /// A process that attaches gets the huge pages too, without asking, and all of them at once: if
    /// one is missing and none is free, attaching fails. A peer that frees one later can cause a
    /// SIGBUS: see the [contract](crate::ShMem#the-contract-of-the-slice).
    ///
    /// # Platform notes
    ///
    /// Linux, memfd (`MFD_HUGETLB`, since 4.16 with seals) and System V (`SHM_HUGETLB`, which needs
    /// `CAP_IPC_LOCK` or a group in `vm.hugetlb_shm_group`). The size of a memfd must be a multiple
    /// of the page size, because a process that attaches by the id alone gets the whole file.
    #[must_use]
    pub const fn try_huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some((size, Priority::BestEffort));
        self
    }

    /// As [`try_huge_pages`](Self::try_huge_pages), but creating the segment fails if there are no
    /// such pages.
    #[must_use]
    pub const fn require_huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some((size, Priority::Required));
        self
    }

    /// Advises the system to use huge pages of 2 MiB where they fit, and maps the segment at a
    /// multiple of their size, without which the system could use none.
    ///
    /// Granted means that the system is allowed to use them, not that it did: it decides when a
    /// page is first touched, and needs contiguous memory. The benefits and costs are those of
    /// [`try_huge_pages`](Self::try_huge_pages), but no reserved pages are needed. The option has
    /// no effect on a segment of reserved huge pages.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd: `MADV_HUGEPAGE`, if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows
    /// it, which it does not by default.
    #[must_use]
    pub const fn transparent_huge_pages(mut self) -> Self {
        self.transparent_huge_pages = true;
        self
    }

    /// Keeps the memory from being swapped out while this process has it mapped.
    ///
    /// Use it where a page fault that reads from a disk would take too long. It allocates all pages
    /// at once, as [`prefault`](Self::prefault) does, and they count against `RLIMIT_MEMLOCK`.
    ///
    /// # Platform notes
    ///
    /// Linux: `mlock(2)`. A forked child does not inherit it.
    #[must_use]
    pub const fn lock(mut self) -> Self {
        self.lock = true;
        self
    }

    /// Excludes the memory from core dumps of this process.
    ///
    /// Use it where a crash would write a large map, or a secret, to the disk. The memory cannot be
    /// examined after a crash.
    ///
    /// # Platform notes
    ///
    /// Linux: `MADV_DONTDUMP` (`madvise(2)`, since 3.4). It does not apply to the mappings of other
    /// processes.
    #[must_use]
    pub const fn no_dump(mut self) -> Self {
        self.no_dump = true;
        self
    }

    /// Creates the segment so that this process alone can write to it, from the moment it exists.
    ///
    /// No other process can map it for writing, write to its memory, or free parts of it; every process of
    /// the user can open it with
    /// [`shmem_from_id_read_only`](crate::ShMemProvider::shmem_from_id_read_only), and attaching for
    /// writing is [`Error::Foreign`]. That includes this process: the mapping that creation returns is
    /// the only writable one there will ever be, so `clone_ref` is refused. [`Segment::trim`] is refused
    /// too, because nobody can free memory of the segment while it exists.
    /// [`Segment::freeze`] takes the permission from this process as well.
    ///
    /// Creating the segment fails where the system cannot enforce this: it is a promise to readers, so it
    /// is never silently left out. A segment with a single writer has no
    /// [reserved huge pages](Self::try_huge_pages).
    ///
    /// # Security
    ///
    /// The kernel enforces it against every process of the same user, as long as the process cannot
    /// debug this one. One that may (`ptrace(2)`) can write to its memory in any case:
    /// `process_vm_writev`, `/proc/PID/mem`. A child that this process forks inherits the writable
    /// mapping, until it executes another program. A process of the same user can prevent
    /// [`Segment::freeze`], by sealing the seals of the file.
    ///
    /// On Apple's systems, the object has a random name of 64 bits for the moment of its creation. By that
    /// name, the mode 0400 lets every process but those of root open it for reading only; another process of
    /// root that finds the name in that moment can write to the segment.
    ///
    /// # Platform notes
    ///
    /// Linux 5.1 and later, memfd (`F_SEAL_FUTURE_WRITE`, `fcntl(2)`), also through the service. It
    /// needs `/proc` and file leases, to check that no other process opened the file before it was
    /// sealed, and takes a second descriptor, which tells whether a forked child has the mapping.
    ///
    /// Apple's systems, the default provider, that is POSIX memory through the service: the service and all
    /// holders have descriptors that permit reading only (`O_RDONLY`), which nothing there opens again. This
    /// follows from the sources of the kernel, and was never run there: the tests run it on Linux. Forked
    /// children are not noticed, so that [`ReadOnly::as_frozen`](crate::ReadOnly::as_frozen) returns `None`
    /// even after [`Segment::freeze`].
    ///
    /// Other mechanisms and systems return [`Error::Unsupported`]: on the BSDs and illumos every process of
    /// the user can change the mode of the object while it has a name.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let mut provider = MemfdShMemProvider::new()?;
    /// let options = ShMemOptions::new().single_writer();
    /// let (mut segment, _) = provider.new_shmem_with(4096, options)?;
    /// segment[0] = 7;
    /// assert!(provider.shmem_from_id(segment.id()).is_err());
    /// let reader = provider.shmem_from_id_read_only(segment.id())?; // in any process of this user
    /// let mut byte = [0];
    /// reader.access().read_at(0, &mut byte)?;
    /// assert_eq!(byte, [7]);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    ///
    /// [`Segment::freeze`]: crate::Segment::freeze
    /// [`Segment::trim`]: crate::Segment::trim
    #[must_use]
    pub const fn single_writer(mut self) -> Self {
        self.single_writer = true;
        self
    }

    /// Reserves address space for `max` bytes, rounded up to whole pages, so that the segment can
    /// [grow](crate::Segment::grow_to) without moving.
    ///
    /// The segment starts with the size that it is created with, and memory is allocated for no more
    /// than that. If `max` is smaller than the size, the segment cannot grow. Every process that attaches
    /// gets the reservation too, without asking. The option is required: if it is not available, creating
    /// the segment fails. A process that attaches with this option gets an error if the reservation of the
    /// segment is smaller.
    ///
    /// A reservation consists of ordinary pages: huge pages are refused. `prefault` and `lock` apply to
    /// the size at the start, `no_dump` to all of it.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd and POSIX segments, and served segments whose memory is one of these: the
    /// reservation counts against `RLIMIT_AS` and `RLIMIT_FSIZE`, but needs no memory. Windows
    /// (`SEC_RESERVE`).
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let options = ShMemOptions::new().reserve(1 << 30);
    /// let (segment, _) = MemfdShMemProvider::new()?.new_shmem_with(4096, options)?;
    /// assert_eq!((segment.len(), segment.reserved()), (4096, 1 << 30));
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[must_use]
    pub const fn reserve(mut self, max: usize) -> Self {
        self.reserve = Some(max);
        self
    }

    /// Reports that nothing of what was asked for is granted, for this reason. Returns the reason
    /// as an error if something was required.
    pub(crate) fn refuse(self, reason: &Error, report: &mut OptionReport) -> Result<()> {
        if self.single_writer {
            return Err(NO_SINGLE_WRITER);
        }
        if self.reserve.is_some() {
            return Err(NO_GROWTH);
        }
        if self.requires_something() {
            return Err(reason.clone());
        }
        for (status, asked) in [
            (&mut report.huge_pages, self.huge_pages.is_some()),
            (
                &mut report.transparent_huge_pages,
                self.transparent_huge_pages,
            ),
            (&mut report.prefault, self.prefault),
            (&mut report.lock, self.lock),
            (&mut report.no_dump, self.no_dump),
        ] {
            if asked {
                *status = OptionStatus::Refused(reason.clone());
            }
        }
        Ok(())
    }

    /// Returns `true` if creating the segment must fail without one of the options.
    pub(crate) fn requires_something(self) -> bool {
        self.single_writer
            || self.reserve.is_some()
            || matches!(self.huge_pages, Some((_, Priority::Required)))
    }

    /// Returns the same options without a reservation, which the caller has dealt with.
    pub(crate) fn without_reservation(self) -> Self {
        Self {
            reserve: None,
            ..self
        }
    }

    /// Returns the options that apply to the mapping of a growable segment, which has ordinary pages.
    /// Refuses the others.
    pub(crate) fn of_growable(self, report: &mut OptionReport) -> Result<Self> {
        let rest = self.without_reservation().without_huge_pages();
        let refused = Self {
            huge_pages: self.huge_pages,
            transparent_huge_pages: self.transparent_huge_pages,
            ..Self::new()
        };
        refused.refuse(&NOT_HUGE, report)?;
        Ok(rest)
    }

    /// Returns the same options without required huge pages.
    pub(crate) fn without_required(self) -> Self {
        Self {
            huge_pages: self
                .huge_pages
                .map(|(pages, _)| (pages, Priority::BestEffort)),
            ..self
        }
    }

    /// Returns the options that apply to a mechanism with pages of a single size.
    pub(crate) fn without_huge_pages(self) -> Self {
        Self {
            huge_pages: None,
            transparent_huge_pages: false,
            ..self
        }
    }
}

/// Why a mechanism has no segments with a single writer.
pub(crate) const NO_SINGLE_WRITER: Error = Error::Unsupported {
    what: "only memfd segments, on Linux 5.1 and later, and served POSIX segments, on Apple's systems, can \
           have a single writer: create it with `MemfdShMemProvider` or with the default provider there",
};

/// Why a growable segment has no huge pages.
const NOT_HUGE: Error = Error::Unsupported {
    what: "a segment that can grow consists of ordinary pages",
};

/// Why a mechanism has no segments that can grow.
pub(crate) const NO_GROWTH: Error = Error::Unsupported {
    what: "segments of this mechanism cannot grow on this system: create them as large as they will have \
           to be, or, on Linux, use memfd or POSIX segments",
};

/// Why a mechanism grants nothing.
pub(crate) const UNSUPPORTED: Error = Error::Unsupported {
    what: "this mechanism does not support that on this system",
};

impl HugePages {
    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::TwoMiB => 2 << 20,
            Self::OneGiB => 1 << 30,
        }
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TwoMiB => "2 MiB",
            Self::OneGiB => "1 GiB",
        })
    }
}

impl OptionStatus {
    /// Returns `true` if the option is in effect.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        *self == Self::Granted
    }
}

impl OptionReport {
    /// Returns the name of each option that was refused, with the reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, &Error)> {
        [
            ("huge pages", &self.huge_pages),
            ("transparent huge pages", &self.transparent_huge_pages),
            ("prefault", &self.prefault),
            ("lock", &self.lock),
            ("no dump", &self.no_dump),
            ("single writer", &self.single_writer),
        ]
        .into_iter()
        .filter_map(|(name, status)| match status {
            OptionStatus::Refused(reason) => Some((name, reason)),
            _ => None,
        })
    }
}
