//! memfd: `memfd_create(2)`, since Linux 3.17.
//!
//! An anonymous file in memory. The kernel frees it with the last descriptor and mapping, so
//! nothing can be left behind. It has no name by which others could open it; but `/proc/PID/fd/N`
//! of any process that holds it opens it anew, and the kernel lets only the same user do that
//! (`proc_pid_fd(5)`, `PTRACE_MODE_READ_FSCREDS`). So the id tells process and descriptor of the
//! creator, and a random nonce, which is part of the memfd's own name and shows in the link under
//! `/proc`. If the creator is gone or its numbers were given to something else, the nonce is looked
//! for among the descriptors of all processes: whoever holds the segment serves as well. That is
//! why everyone who attaches keeps a descriptor.
//!
//! It is sealed against shrinking and growing before anybody else can have it, and only what has
//! these seals is mapped: so no peer can cause a SIGBUS. Not chosen: `pidfd_getfd(2)`, which needs
//! the right to attach as a debugger, and which Yama and Docker's seccomp profile deny.

mod locator;

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, ExclusiveLock, Expected, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::{IdKind, MemfdLocator};
use crate::memory::mapping::Mapping;
use crate::options::{HugePages, OptionReport, OptionStatus, Priority, ShMemOptions};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, PageSize, failed, identity, limits};

/// Makes segments with `memfd_create(2)`.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel sees to that,
/// so it holds for SIGKILL as well. The id opens it for just as long, whether its creator still
/// runs or not.
///
/// # Security
///
/// Only processes of the same user get in, and no peer can shrink a segment under the others.
///
/// # Platform notes
///
/// Linux 3.17 and later. To attach by id, `/proc` must be mounted, and one holder must let this process
/// look at its descriptors, by the rules of `ptrace(2)` ("Ptrace access mode checking"): it has the same
/// user and primary group, no more capabilities, is dumpable (`PR_SET_DUMPABLE`), and is seen in this
/// pid namespace; user namespaces and security modules (Landlock, AppArmor, SELinux) can forbid it. If
/// none does, the error says which of these it was, as far as can be seen. A segment costs each holder
/// one descriptor. The size of `/dev/shm` does not matter. Pages are allocated when they are first
/// touched.
///
/// # Examples
///
/// ```
/// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider};
///
/// let mut provider = MemfdShMemProvider::new()?;
/// # if let Err(error) = provider.new_shmem(1) {
/// #     eprintln!("skipped: {error}");
/// #     return Ok(());
/// # }
/// let mut segment = provider.new_shmem(65536)?;
/// segment[0] = 1;
/// let again = provider.shmem_from_id(segment.id())?; // in any process of this user
/// assert_eq!((again[0], again.len()), (1, 65536));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type MemfdShMemProvider = Provider<MemfdBackend>;

/// A segment of [`MemfdShMemProvider`].
pub type MemfdShMem = Segment<MemfdBackend>;

/// The backend of [`MemfdShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MemfdBackend;

/// What every segment gets: nobody can change its size any more, nor add seals that would keep
/// others from writing.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// What it must have before we map it.
const NEEDED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

#[cfg(feature = "std")]
impl MemfdShMemProvider {
    /// A file in memory without a segment's seals: to be written, resized and given to a child as
    /// its standard output, for instance.
    ///
    /// It is empty, close-on-exec, and freed with its last descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Seek};
    /// use std::process::Command;
    /// use shmem_providers::MemfdShMemProvider;
    ///
    /// let mut file = MemfdShMemProvider::new_file()?;
    /// Command::new("echo").arg("hello").stdout(file.try_clone()?).status()?;
    /// let mut said = String::new();
    /// file.rewind()?;
    /// file.read_to_string(&mut said)?;
    /// assert_eq!(said, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new_file() -> Result<std::fs::File> {
        let fd = create(b"shmem-file", MemfdFlags::CLOEXEC)?;
        Ok(fd.into())
    }
}

impl Backend for MemfdBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>) -> Result<Created<OwnedFd>> {
        let Request { size, options, .. } = request;
        let mut report = OptionReport::default();
        if let Some((pages, priority)) = options.huge_pages {
            match create_huge(size, pages) {
                Ok(mut created) => {
                    report.huge_pages = OptionStatus::Granted;
                    sys::apply_options(&mut created.mapping, options, &mut report);
                    return Ok(Created { report, ..created }.filled_with(request.content));
                }
                Err(error) if priority == Priority::Required => return Err(error),
                Err(error) => report.huge_pages = OptionStatus::Refused(error),
            }
        }
        let (mut fd, id) = make(size, MemfdFlags::empty())?;
        if request.exclusive_check {
            // A pool never reuses a segment for which this fails, and loses nothing else.
            let _ = sys::lease::make_countable(&mut fd);
        }
        if let Some(content) = request.content {
            sys::write_at(&fd, 0, content, limits::for_descriptor)?;
        }
        let mut mapping = map(&fd, size, PageSize::Ordinary, options)?;
        sys::apply_options(&mut mapping, options, &mut report);
        Ok(created(fd, id, mapping, report))
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<OwnedFd> {
        let IdKind::Memfd(locator) = id.kind() else {
            return Err(id.invalid("it is not the id of a memfd"));
        };
        // What has the name and is not what is expected. It hides no holder, and explains the error if
        // there is none.
        let decoy = Cell::new(None);
        let opened = locator::open(locator, id, &|fd| match check_expected(fd, expected) {
            Ok(()) => true,
            Err(error) => {
                decoy.set(Some(error));
                false
            }
        });
        opened.map_err(|error| match (error, decoy.take()) {
            (Error::Gone { .. } | Error::NotFound { .. }, Some(decoy)) => decoy,
            (error, _) => error,
        })
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach) -> Result<(Mapping, OptionReport)> {
        let Attach { len, options } = attach;
        let facts = writable(handle)?;
        let pages = PageSize::of(handle, &facts)?;
        let mut report = OptionReport::default();
        if let Some((wanted, priority)) = options.huge_pages {
            report.huge_pages = match priority {
                _ if pages == PageSize::Huge(wanted) => OptionStatus::Granted,
                Priority::Required => return Err(NOT_HUGE),
                Priority::BestEffort => OptionStatus::Refused(NOT_HUGE),
            };
        }
        let mut mapping = map_existing(handle, facts.mapped_len(len)?, pages, options)?;
        sys::apply_options(&mut mapping, options, &mut report);
        Ok((mapping, report))
    }

    fn unlink(&self, _handle: &OwnedFd, _id: &ShMemId) -> Result<()> {
        Ok(())
    }
}

impl Lifecycle for MemfdBackend {}

impl Sparse for MemfdBackend {
    fn next_data(&self, handle: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        sys::next_data(handle, from, len)
    }

    fn trim(&self, handle: &OwnedFd, range: Range<usize>) -> Result<()> {
        let facts = FileInfo::of(handle)?;
        match PageSize::of(handle, &facts)? {
            PageSize::Ordinary => sys::punch_hole(handle, range, facts.size),
            // There may be none when the memory is needed again, and that is a SIGBUS.
            PageSize::Huge(_) => Err(Error::Unsupported {
                what: "huge pages are set aside for the segment, and stay so",
            }),
        }
    }
}

impl Snapshots for MemfdBackend {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(OwnedFd, ShMemId)> {
        let (fd, id) = make_open(bytes.len(), MemfdFlags::empty())?;
        for range in ranges {
            let start = range.start;
            let part = bytes.get(range).unwrap_or_default();
            sys::write_at(&fd, start, part, limits::for_descriptor)?;
        }
        seal(&fd, SEALS | SealFlags::WRITE)?;
        Ok((fd, id))
    }

    fn map_private(&self, handle: &OwnedFd) -> Result<Mapping> {
        match check(handle)? {
            (facts, seals) if seals.contains(SealFlags::WRITE) => {
                match PageSize::of(handle, &facts)? {
                    PageSize::Ordinary => sys::map_private(handle, facts.mapped_len(None)?),
                    // What is written takes pages that nobody has set aside.
                    PageSize::Huge(_) => Err(Error::Foreign {
                        found: "it consists of huge pages, of which snapshots are not made",
                    }),
                }
            }
            _ => Err(IS_SEGMENT),
        }
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        sys::reset_private(mapping)
    }
}

impl Exclusive for MemfdBackend {
    fn supports_exclusive(&self, _handle: &OwnedFd) -> bool {
        true
    }

    fn try_lock_exclusive(&self, handle: &OwnedFd) -> Option<ExclusiveLock> {
        sys::lease::take(handle).then_some(ExclusiveLock(0))
    }

    fn unlock_exclusive(&self, handle: &OwnedFd, _lock: ExclusiveLock) -> bool {
        sys::lease::give_back(handle)
    }
}

/// Why a segment that exists report no huge pages.
const NOT_HUGE: Error = Error::Unsupported {
    what: "the segment was made of pages of another size",
};

/// A sealed memfd of this size, and the id for it.
#[inline]
fn make(size: usize, pages: MemfdFlags) -> Result<(OwnedFd, ShMemId)> {
    let (fd, id) = make_open(size, pages)?;
    seal(&fd, SEALS)?;
    Ok((fd, id))
}

fn seal(fd: &OwnedFd, seals: SealFlags) -> Result<()> {
    fs::fcntl_add_seals(fd, seals)
        .map_err(|errno| failed("fcntl(F_ADD_SEALS)", errno, Subject::Nothing))
}

/// A memfd of this size that is not sealed yet, and the id for it.
#[inline]
fn make_open(size: usize, pages: MemfdFlags) -> Result<(OwnedFd, ShMemId)> {
    limits::check_file_size(size)?;
    let nonce = identity::nonce()?;
    let fd = create(
        locator::name(MemfdLocator::new(None, nonce)).as_bytes(),
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages,
    )?;
    fs::ftruncate(&fd, size as u64)
        .map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))?;
    let number = u32::try_from(fd.as_raw_fd()).ok();
    let id = MemfdLocator::new(identity::visible_pid().zip(number), nonce).id();
    Ok((fd, id))
}

/// What [`make`] has made, once it is mapped.
fn created(
    handle: OwnedFd,
    id: ShMemId,
    mapping: Mapping,
    report: OptionReport,
) -> Created<OwnedFd> {
    Created {
        handle,
        id,
        mapping,
        cleanup: Cleanup::Kernel,
        report,
    }
}

/// A segment of pages that were set aside. To map it reserves them, so that none is missing later.
fn create_huge(size: usize, pages: HugePages) -> Result<Created<OwnedFd>> {
    if size % pages.bytes() != 0 {
        return Err(Error::Unsupported {
            what: "the size is not a multiple of the huge page's",
        });
    }
    let flags = match pages {
        HugePages::TwoMiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        HugePages::OneGiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let (fd, id) = make(size, flags)?;
    let mapping = sys::map_fd_aligned(&fd, size, PageSize::Huge(pages), None)?;
    Ok(created(fd, id, mapping, OptionReport::default()))
}

/// Maps a segment that another process may have changed meanwhile: of huge pages, some may be missing.
fn map_existing(
    fd: &OwnedFd,
    len: usize,
    pages: PageSize,
    options: ShMemOptions,
) -> Result<Mapping> {
    let mapping = map(fd, len, pages, options)?;
    if pages != PageSize::Ordinary {
        sys::populate_or_refuse(&mapping)?;
    }
    Ok(mapping)
}

/// Maps at an address that suits the options.
fn map(fd: &OwnedFd, len: usize, pages: PageSize, options: ShMemOptions) -> Result<Mapping> {
    let huge = HugePages::TwoMiB.bytes();
    let aligned = options.transparent_huge_pages && pages == PageSize::Ordinary && len >= huge;
    sys::map_fd_aligned(fd, len, pages, aligned.then_some(huge))
}

/// `memfd_create`, not executable where the kernel knows that flag (6.3; later ones can demand it).
fn create(name: &[u8], flags: MemfdFlags) -> Result<OwnedFd> {
    static NO_EXEC_UNKNOWN: AtomicBool = AtomicBool::new(false);

    let refused = |errno| failed("memfd_create", errno, Subject::Nothing);
    if !NO_EXEC_UNKNOWN.load(Relaxed) {
        match fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => NO_EXEC_UNKNOWN.store(true, Relaxed),
            done => return done.map_err(refused).and_then(sys::above_stdio),
        }
    }
    fs::memfd_create(name, flags)
        .map_err(refused)
        .and_then(sys::above_stdio)
}

/// What is to be known before it is mapped: that it is ours, and cannot shrink.
fn check(fd: &OwnedFd) -> Result<(FileInfo, SealFlags)> {
    // First, because the kernel answers this by itself: what is no file in memory has no seals, and
    // gets EINVAL.
    let seals = match fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(NEEDED) => seals,
        _ => {
            return Err(Error::Foreign {
                found: "it is not sealed against shrinking",
            });
        }
    };
    let facts = FileInfo::of(fd)?;
    sys::check_owner(facts.owner)?;
    Ok((facts, seals))
}

/// Checks that it is a segment, or a snapshot, with the bytes that are expected.
fn check_expected(fd: &OwnedFd, expected: Expected) -> Result<()> {
    let (facts, seals) = check(fd)?;
    facts.mapped_len(expected.len)?;
    match (expected.is_snapshot, seals.contains(SealFlags::WRITE)) {
        (false, true) => Err(IS_SNAPSHOT),
        (true, false) => Err(IS_SEGMENT),
        _ => Ok(()),
    }
}

/// Why it is not mapped for writing.
const IS_SNAPSHOT: Error = Error::Foreign {
    found: "it is a snapshot: open it with `view_from_id`",
};

/// Why there are no views of it.
const IS_SEGMENT: Error = Error::Foreign {
    found: "it is a segment and no snapshot",
};

/// The same of what is to be mapped for writing.
fn writable(fd: &OwnedFd) -> Result<FileInfo> {
    match check(fd)? {
        (_, seals) if seals.contains(SealFlags::WRITE) => Err(IS_SNAPSHOT),
        (facts, _) => Ok(facts),
    }
}
