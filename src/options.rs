//! [`ShMemOptions`]: what may be asked for beyond a plain segment, and [`OptionReport`]: what came of it.

use core::fmt;

use crate::error::{Error, Result};

/// What may be asked for beyond a plain segment: for the memory when it is made, and for the mapping
/// when it is made or attached.
///
/// By default nothing is asked for. No option changes what an id means, how long a segment lives, or
/// what it contains. What a system, a mechanism or a limit does not allow is reported in the
/// [`OptionReport`], with the reason, and the segment is made without it; only
/// [`require_huge_pages`](Self::require_huge_pages) makes it an error.
///
/// `docs/performance.md` has the figures.
///
/// # Platform notes
///
/// On Linux memfd, System V and POSIX segments know the options, and so do served ones of such memory.
/// Elsewhere nothing is granted.
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
#[expect(clippy::struct_excessive_bools, reason = "each of them is one wish")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShMemOptions {
    pub(crate) huge_pages: Option<(HugePages, Priority)>,
    pub(crate) transparent_huge_pages: bool,
    pub(crate) prefault: bool,
    pub(crate) lock: bool,
    pub(crate) no_dump: bool,
}

/// Pages that the administrator has set aside: how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// 2 MiB.
    TwoMiB,
    /// 1 GiB.
    OneGiB,
}

/// What happens if something is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    BestEffort,
    Required,
}

/// What came of each of the [`ShMemOptions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionReport {
    /// Of [`try_huge_pages`](ShMemOptions::try_huge_pages) and
    /// [`require_huge_pages`](ShMemOptions::require_huge_pages).
    pub huge_pages: OptionStatus,
    /// Of [`transparent_huge_pages`](ShMemOptions::transparent_huge_pages).
    pub transparent_huge_pages: OptionStatus,
    /// Of [`prefault`](ShMemOptions::prefault).
    pub prefault: OptionStatus,
    /// Of [`lock`](ShMemOptions::lock).
    pub lock: OptionStatus,
    /// Of [`no_dump`](ShMemOptions::no_dump).
    pub no_dump: OptionStatus,
}

/// What came of one option.
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
    /// Nothing is asked for.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            huge_pages: None,
            transparent_huge_pages: false,
            prefault: false,
            lock: false,
            no_dump: false,
        }
    }

    /// All pages are there, and mapped, before the segment is handed out, so that no access to it
    /// causes a page fault in this process.
    ///
    /// It pays where all or most of a segment is used, above all by who attaches to one that exists
    /// already. It hurts where little of it is touched: every page takes memory at once.
    ///
    /// # Platform notes
    ///
    /// Linux: `MADV_POPULATE_READ` (`madvise(2)`, since 5.14); on older kernels every page is touched.
    /// Where the processor does not note by itself which pages were written, as some of ARM's do
    /// not, the first write to a page may still be noted by a fault.
    #[must_use]
    pub const fn prefault(mut self) -> Self {
        self.prefault = true;
        self
    }

    /// Pages of this size, if there are any; otherwise ordinary ones.
    ///
    /// They pay for large segments that are used all over: one page fault instead of 512, and fewer
    /// misses of the TLB. They hurt where little is touched, because the first byte takes a whole
    /// page; and the administrator has to set them aside (`vm.nr_hugepages`), which takes them from
    /// everybody else.
    ///
    /// A process that attaches gets them as well, without asking, and all of them at once: if one is missing and
    /// none is free, attaching is an error. A peer that gives one back later can cause a SIGBUS: see
    /// the [contract](crate::ShMem#the-contract-of-the-slice).
    ///
    /// # Platform notes
    ///
    /// Linux, memfd (`MFD_HUGETLB`, since 4.16 with seals) and System V (`SHM_HUGETLB`, which needs
    /// `CAP_IPC_LOCK` or a group in `vm.hugetlb_shm_group`). The size of a memfd must be a multiple
    /// of the page's, because who attaches by id alone is told the whole of it.
    #[must_use]
    pub const fn try_huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some((size, Priority::BestEffort));
        self
    }

    /// As [`try_huge_pages`](Self::try_huge_pages), but without such pages no segment is made.
    #[must_use]
    pub const fn require_huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some((size, Priority::Required));
        self
    }

    /// Advises the system to put huge pages, of 2 MiB, where they fit, and maps the segment at a
    /// multiple of their size, without which none would.
    ///
    /// Granted means that the system may, not that it has: it takes what memory is unbroken, and
    /// decides when a page is first touched. It pays and hurts as
    /// [`try_huge_pages`](Self::try_huge_pages), and needs no pages set aside. Where those were
    /// granted there is nothing left to advise.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd: `MADV_HUGEPAGE`, if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows it,
    /// which by default it does not.
    #[must_use]
    pub const fn transparent_huge_pages(mut self) -> Self {
        self.transparent_huge_pages = true;
        self
    }

    /// The memory is not swapped out while this process has it mapped.
    ///
    /// It pays where a page fault that reads from a disk would come too late. It takes all pages at
    /// once, as [`prefault`](Self::prefault), and they count against `RLIMIT_MEMLOCK`.
    ///
    /// # Platform notes
    ///
    /// Linux: `mlock(2)`. A child that is forked does not inherit it.
    #[must_use]
    pub const fn lock(mut self) -> Self {
        self.lock = true;
        self
    }

    /// The memory is left out of this process's core dumps.
    ///
    /// It pays where a crash would write a large map to the disk, or a secret. What is left out
    /// cannot be looked at afterwards.
    ///
    /// # Platform notes
    ///
    /// Linux: `MADV_DONTDUMP` (`madvise(2)`, since 3.4). Other processes' mappings are their own
    /// affair.
    #[must_use]
    pub const fn no_dump(mut self) -> Self {
        self.no_dump = true;
        self
    }

    /// Nothing of what was asked for, for this reason; an error if something was required.
    pub(crate) fn refused(self, reason: &Error) -> Result<OptionReport> {
        if self.requires_something() {
            return Err(reason.clone());
        }
        let mut report = OptionReport::default();
        for (grant, asked) in [
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
                *grant = OptionStatus::Refused(reason.clone());
            }
        }
        Ok(report)
    }

    /// Whether without something of it there shall be no segment.
    pub(crate) fn requires_something(self) -> bool {
        matches!(self.huge_pages, Some((_, Priority::Required)))
    }

    /// The same, and nothing of it is required.
    pub(crate) fn without_required(self) -> Self {
        Self {
            huge_pages: self
                .huge_pages
                .map(|(pages, _)| (pages, Priority::BestEffort)),
            ..self
        }
    }

    /// What remains for a mechanism whose pages have but one size.
    pub(crate) fn without_huge_pages(self) -> Self {
        Self {
            huge_pages: None,
            transparent_huge_pages: false,
            ..self
        }
    }
}

/// Why a mechanism report nothing.
pub(crate) const UNSUPPORTED: Error = Error::Unsupported {
    what: "this mechanism cannot do that here",
};

impl HugePages {
    /// In bytes.
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
    /// Whether it is in effect.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        *self == Self::Granted
    }

    /// What came of an attempt.
    pub(crate) fn of(attempt: Result<()>) -> Self {
        attempt.map_or_else(Self::Refused, |()| Self::Granted)
    }
}

impl OptionReport {
    /// Each option's name and why it was refused, of those that were.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, &Error)> {
        [
            ("huge pages", &self.huge_pages),
            ("transparent huge pages", &self.transparent_huge_pages),
            ("prefault", &self.prefault),
            ("lock", &self.lock),
            ("no dump", &self.no_dump),
        ]
        .into_iter()
        .filter_map(|(name, grant)| match grant {
            OptionStatus::Refused(reason) => Some((name, reason)),
            _ => None,
        })
    }
}
