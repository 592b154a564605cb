//! [`ShMemOptions`]: what may be asked for beyond a plain segment, and [`Grants`]: what came of it.

use core::fmt;

use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::size::check_size;
use crate::segment::{Expected, Provider, Room, Segment};

/// What may be asked for beyond a plain segment: for the memory when it is made, and for the mapping
/// when it is made or attached.
///
/// By default nothing is asked for. No option changes what an id means, how long a segment lives, or
/// what it contains. What a system, a mechanism or a limit does not allow is reported in the
/// [`Grants`], with the reason, and the segment is made without it; only
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
/// use shmem_providers::{Grant, ShMem, ShMemOptions, ShMemProvider, StdShMemProvider};
///
/// let options = ShMemOptions::new().prefault().lock();
/// let (segment, grants) = StdShMemProvider::new()?.new_shmem_with(65536, options)?;
/// assert_eq!(segment.len(), 65536);
/// if let Grant::Refused(reason) = &grants.lock {
///     eprintln!("the segment may be swapped out: {reason}");
/// }
/// assert_eq!(grants.no_dump, Grant::NotAsked);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[expect(clippy::struct_excessive_bools, reason = "each of them is one wish")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShMemOptions {
    pub(crate) huge_pages: Option<(HugePages, Need)>,
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
pub(crate) enum Need {
    Try,
    Require,
}

/// What came of each of the [`ShMemOptions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grants {
    /// Of [`try_huge_pages`](ShMemOptions::try_huge_pages) and
    /// [`require_huge_pages`](ShMemOptions::require_huge_pages).
    pub huge_pages: Grant,
    /// Of [`transparent_huge_pages`](ShMemOptions::transparent_huge_pages).
    pub transparent_huge_pages: Grant,
    /// Of [`prefault`](ShMemOptions::prefault).
    pub prefault: Grant,
    /// Of [`lock`](ShMemOptions::lock).
    pub lock: Grant,
    /// Of [`no_dump`](ShMemOptions::no_dump).
    pub no_dump: Grant,
}

/// What came of one option.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grant {
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
        self.huge_pages = Some((size, Need::Try));
        self
    }

    /// As [`try_huge_pages`](Self::try_huge_pages), but without such pages no segment is made.
    #[must_use]
    pub const fn require_huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some((size, Need::Require));
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
    pub(crate) fn refused(self, reason: &Error) -> Result<Grants> {
        if self.requires_something() {
            return Err(reason.clone());
        }
        let mut grants = Grants::default();
        for (grant, asked) in [
            (&mut grants.huge_pages, self.huge_pages.is_some()),
            (
                &mut grants.transparent_huge_pages,
                self.transparent_huge_pages,
            ),
            (&mut grants.prefault, self.prefault),
            (&mut grants.lock, self.lock),
            (&mut grants.no_dump, self.no_dump),
        ] {
            if asked {
                *grant = Grant::Refused(reason.clone());
            }
        }
        Ok(grants)
    }

    /// Whether without something of it there shall be no segment.
    pub(crate) fn requires_something(self) -> bool {
        matches!(self.huge_pages, Some((_, Need::Require)))
    }

    /// The same, and nothing of it is required.
    pub(crate) fn without_required(self) -> Self {
        Self {
            huge_pages: self.huge_pages.map(|(pages, _)| (pages, Need::Try)),
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

/// Why a mechanism grants nothing.
pub(crate) const CANNOT: Error = Error::Unsupported {
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

impl Grant {
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

impl Grants {
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
            Grant::Refused(reason) => Some((name, reason)),
            _ => None,
        })
    }
}

impl<R: Room> Provider<R> {
    /// Makes a segment of `map_size` zero bytes, with as much of `options` as can be had, and says
    /// how much that was.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](crate::ShMemProvider::new_shmem), and the reason why something that was required is
    /// not to be had.
    ///
    /// # Lifetime
    ///
    /// That of any segment of this provider.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{HugePages, ShMem, ShMemOptions, ShMemProvider, StdShMemProvider};
    ///
    /// let options = ShMemOptions::new().try_huge_pages(HugePages::TwoMiB).transparent_huge_pages();
    /// let (segment, grants) = StdShMemProvider::new()?.new_shmem_with(8 << 20, options)?;
    /// for (option, reason) in grants.refusals() {
    ///     eprintln!("no {option}: {reason}");
    /// }
    /// # assert_eq!(segment.len(), 8 << 20);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn new_shmem_with(
        &mut self,
        map_size: usize,
        options: ShMemOptions,
    ) -> Result<(Segment<R>, Grants), crate::Error> {
        let (fresh, grants) = self.room.create_with(check_size(map_size)?, options)?;
        Ok((self.adopt(fresh), grants))
    }

    /// Makes a segment that holds these bytes.
    ///
    /// It pays where content is at hand: it is written into the object before that is mapped, so
    /// that no page is zeroed first, and none causes a page fault. Whoever reads a page then has it
    /// mapped by a fault of its own, many at a time.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](crate::ShMemProvider::new_shmem) of as many bytes.
    ///
    /// # Lifetime
    ///
    /// That of any segment of this provider.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMemProvider, StdShMemProvider};
    ///
    /// let segment = StdShMemProvider::new()?.shmem_from_bytes(b"a picture")?;
    /// assert_eq!(segment[..], *b"a picture");
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn shmem_from_bytes(&mut self, bytes: &[u8]) -> Result<Segment<R>, crate::Error> {
        check_size(bytes.len())?;
        let fresh = self.room.create_from(bytes)?;
        Ok(self.adopt(fresh))
    }

    /// Attaches to the first `size` bytes of a segment, or to all of it, with as much of `options` as
    /// can be had, and says how much that was.
    ///
    /// To attach and then write all of it, [`prefault`](ShMemOptions::prefault) is worth most: one
    /// system call instead of a page fault every 4 KiB. Huge pages are the segment's own: asked for
    /// here, the grant tells whether it has them.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](crate::ShMemProvider::shmem_from_id_and_size), and the reason why
    /// something that was required is not to be had.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMem, ShMemOptions, ShMemProvider, StdShMemProvider};
    ///
    /// let mut provider = StdShMemProvider::new()?;
    /// let segment = provider.shmem_from_bytes(&[1; 4096])?;
    /// let prefault = ShMemOptions::new().prefault();
    /// let (attached, _) = provider.shmem_from_id_with(segment.id(), None, prefault)?;
    /// assert_eq!(attached[..], [1; 4096]);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn shmem_from_id_with(
        &mut self,
        id: ShMemId,
        size: Option<usize>,
        options: ShMemOptions,
    ) -> Result<(Segment<R>, Grants), crate::Error> {
        size.map_or(Ok(0), check_size)?;
        let handle = self.room.open_expecting(&id, Expected::segment(size))?;
        let (mapping, grants) = self.room.map_with(&handle, size, options)?;
        Ok((self.attached(handle, id, mapping), grants))
    }
}
