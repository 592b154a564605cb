//! memfd: `memfd_create(2)`, since Linux 3.17.
//!
//! A memfd is an anonymous file in memory. The kernel frees it with the last descriptor and
//! mapping, so nothing can be left behind. It has no name by which other processes could open it,
//! but `/proc/PID/fd/N` of any process that holds it opens it again, and the kernel allows that
//! only to the same user (`proc_pid_fd(5)`, `PTRACE_MODE_READ_FSCREDS`). So the id contains the
//! process and the descriptor of the creator, and a random nonce, which is part of the memfd's own
//! name and appears in the link under `/proc`. If the creator is gone, or if its numbers belong to
//! something else now, the nonce is searched for among the descriptors of all processes: any holder
//! serves. Therefore every process that attaches keeps a descriptor.
//!
//! A memfd is sealed against shrinking and growing before any other process can have it, and only
//! files with these seals are mapped, so no peer can cause a SIGBUS. `pidfd_getfd(2)` is not used:
//! it needs the right to attach as a debugger, which Yama and Docker's seccomp profile deny.

mod locator;
mod sealed;
mod single_writer;

use core::cell::Cell;
use core::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, ExclusiveLock, Expected, Growable, Lifecycle,
    NOT_THE_ONE, Request, Snapshots, Sparse,
};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{HugePages, OptionReport, OptionStatus, Priority, ShMemOptions};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::growth::{self, Memory};
use crate::sys::{self, PageSize, limits};

/// Creates segments with `memfd_create(2)`.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel frees it, so
/// this holds for SIGKILL as well. The id opens it for just as long, whether or not its creator
/// still runs.
///
/// # Security
///
/// Only processes of the same user get in, and no peer can shrink a segment.
///
/// # Platform notes
///
/// Linux 3.17 and later. To attach by id, `/proc` must be mounted, and one holder must let this
/// process look at its descriptors by the rules of `ptrace(2)` ("Ptrace access mode checking"): it
/// has the same user and primary group, has no more capabilities, is dumpable (`PR_SET_DUMPABLE`),
/// and is visible in this pid namespace. User namespaces and security modules (Landlock, AppArmor,
/// SELinux) can forbid it. If no holder does, the error contains the reason, as far as it is known.
/// A segment takes one descriptor in each holder. The size of `/dev/shm` does not matter. Pages are
/// allocated when they are first touched.
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
/// let attached = provider.shmem_from_id(segment.id())?; // in any process of this user
/// assert_eq!((attached[0], attached.len()), (1, 65536));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type MemfdShMemProvider = Provider<MemfdBackend>;

/// A segment of [`MemfdShMemProvider`].
pub type MemfdShMem = Segment<MemfdBackend>;

/// The backend of [`MemfdShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MemfdBackend;

#[cfg(feature = "std")]
impl MemfdShMemProvider {
    /// Creates a file in memory without the seals of a segment, which can be written and resized
    /// and, for example, be the standard output of a child.
    ///
    /// The file is empty, close-on-exec, and freed with its last descriptor.
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
    /// let mut text = String::new();
    /// file.rewind()?;
    /// file.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new_file() -> Result<std::fs::File> {
        let fd = sealed::create(b"shmem-file", MemfdFlags::CLOEXEC)?;
        Ok(fd.into())
    }
}

impl Backend for MemfdBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
        let Request { size, options, .. } = request;
        if options.single_writer {
            return single_writer::create(request, report);
        }
        if let Some(max) = options.reserve {
            let options = options.of_growable(report)?;
            let object_size = growth::object_size(max.max(size))?;
            let (fd, id) = sealed::create_segment(object_size, MemfdFlags::empty())?;
            let mut mapping = growth::create(&fd, size, max.max(size), Memory::OnDemand)?;
            sys::apply_options(&mut mapping, options, report);
            return Ok(created(fd, id, mapping).filled_with(request.content));
        }
        if let Some((pages, priority)) = options.huge_pages {
            match create_huge(size, pages) {
                Ok(mut created) => {
                    report.huge_pages = OptionStatus::Granted;
                    sys::apply_options(&mut created.mapping, options, report);
                    return Ok(created.filled_with(request.content));
                }
                Err(error) if priority == Priority::Required => return Err(error),
                Err(error) => report.huge_pages = OptionStatus::Refused(error),
            }
        }
        let (mut fd, id) = sealed::create_segment(size, MemfdFlags::empty())?;
        if request.exclusive_check {
            // If this fails, a pool never reuses the segment, and nothing else is affected.
            let _ = sys::lease::make_countable(&mut fd);
        }
        if let Some(content) = request.content {
            sys::write_at(&fd, 0, content, limits::for_descriptor)?;
        }
        let mut mapping = map(&fd, size, PageSize::Ordinary, options)?;
        sys::apply_options(&mut mapping, options, report);
        Ok(created(fd, id, mapping))
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<OwnedFd> {
        let IdKind::Memfd(locator) = id.kind() else {
            return Err(id.invalid("it is not the id of a memfd"));
        };
        // Set if a file has the name but is not what is expected. The search for other holders goes on,
        // and if there is none, this is the error.
        let decoy = Cell::new(None);
        let is_genuine = |fd: &OwnedFd| match sealed::check_expected(fd, expected) {
            Ok(()) => true,
            Err(error) => {
                decoy.set(Some(error));
                false
            }
        };
        let opened = locator::open(locator, id, expected.protection, &is_genuine);
        opened.map_err(|error| match (error, decoy.take()) {
            (Error::Gone { .. } | Error::NotFound { .. }, Some(decoy)) => decoy,
            (error, _) => error,
        })
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        let Attach {
            len,
            options,
            protection,
        } = attach;
        let info = sealed::check_mappable(handle, protection)?;
        let pages = PageSize::of(handle, &info)?;
        // The memory of huge pages is not allocated on demand, whatever the mode tells.
        if pages == PageSize::Ordinary && growth::is_growable(&info) {
            let options = options.of_growable(report)?;
            let mut mapping = growth::attach(handle, &info, len, protection, Memory::OnDemand)?;
            sys::apply_options(&mut mapping, options, report);
            return Ok(mapping);
        }
        if protection == Protection::Read {
            let mapping = sys::map_file_for_reading(handle, info.mapped_len(len)?, pages)?;
            return if_present(mapping, pages);
        }
        if let Some((wanted, priority)) = options.huge_pages {
            report.huge_pages = match priority {
                _ if pages == PageSize::Huge(wanted) => OptionStatus::Granted,
                Priority::Required => return Err(NOT_HUGE),
                Priority::BestEffort => OptionStatus::Refused(NOT_HUGE),
            };
        }
        let mut mapping = map_existing(handle, info.mapped_len(len)?, pages, options)?;
        sys::apply_options(&mut mapping, options, report);
        Ok(mapping)
    }

    fn unlink(&self, _handle: &OwnedFd, _id: &ShMemId) -> Result<()> {
        Ok(())
    }

    fn descriptor<'a>(&self, handle: &'a OwnedFd) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(OwnedFd, ShMemId)> {
        let nonce = |id: &ShMemId| match id.kind() {
            IdKind::Memfd(locator) => Some(locator.nonce()),
            _ => None,
        };
        let known = known.filter(|id| nonce(id).is_some());
        let found = locator::id_of(&fd);
        match (known, found) {
            (Some(known), Some(found)) if nonce(&known) != nonce(&found) => Err(NOT_THE_ONE),
            (known, found) => Ok((fd, known.or(found).unwrap_or_default())),
        }
    }
}

impl Lifecycle for MemfdBackend {}

impl Sparse for MemfdBackend {
    fn next_data(&self, handle: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        sys::next_data(handle, from, len)
    }

    fn trim(&self, handle: &OwnedFd, range: Range<usize>) -> Result<()> {
        let (info, seals) = sealed::check(handle)?;
        if seals.contains(SealFlags::FUTURE_WRITE) {
            return Err(Error::Unsupported {
                what: "the memory of a segment with a single writer cannot be freed: the seal that \
                       keeps other processes from writing forbids it to all",
            });
        }
        match PageSize::of(handle, &info)? {
            PageSize::Ordinary => sys::punch_hole(handle, range, info.size),
            // If none were free when the memory is needed again, that would be a SIGBUS.
            PageSize::Huge(_) => Err(Error::Unsupported {
                what: "the huge pages of the segment are reserved and cannot be freed",
            }),
        }
    }
}

impl Growable for MemfdBackend {
    fn grow(&self, handle: &OwnedFd, mapping: &mut Mapping, len: usize) -> Result<()> {
        growth::grow(handle, mapping, len, Memory::OnDemand)
    }
}

impl Snapshots for MemfdBackend {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(OwnedFd, ShMemId)> {
        let (fd, id) = sealed::create_unsealed(bytes.len(), MemfdFlags::empty())?;
        for range in ranges {
            let start = range.start;
            let part = bytes.get(range).unwrap_or_default();
            sys::write_at(&fd, start, part, limits::for_descriptor)?;
        }
        sealed::seal_snapshot(&fd)?;
        Ok((fd, id))
    }

    fn map_private(&self, handle: &OwnedFd) -> Result<Mapping> {
        match sealed::check(handle)? {
            (info, seals) if seals.contains(SealFlags::WRITE) => {
                match PageSize::of(handle, &info)? {
                    PageSize::Ordinary => sys::map_private(handle, info.mapped_len(None)?),
                    // Writing would take pages that are not reserved.
                    PageSize::Huge(_) => Err(Error::Foreign {
                        found: "it consists of huge pages, which snapshots do not support",
                    }),
                }
            }
            _ => Err(sealed::IS_SEGMENT),
        }
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        sys::reset_private(mapping)
    }

    fn check_freezable(&self, handle: &OwnedFd) -> Result<()> {
        single_writer::check_freezable(handle)
    }

    fn freeze(&self, handle: &OwnedFd) -> Result<()> {
        single_writer::freeze(handle)
    }

    fn is_frozen(&self, handle: &OwnedFd) -> bool {
        sealed::check(handle).is_ok_and(|(_, seals)| seals.contains(SealFlags::WRITE))
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

/// Why an existing segment grants no huge pages.
const NOT_HUGE: Error = Error::Unsupported {
    what: "the segment was created with pages of another size",
};

/// Completes a segment whose file is created and mapped.
fn created(handle: OwnedFd, id: ShMemId, mapping: Mapping) -> Created<OwnedFd> {
    Created {
        handle,
        id,
        mapping,
        cleanup: Cleanup::Kernel,
    }
}

/// Creates a segment of reserved huge pages. Mapping it reserves them, so that none is missing
/// later.
fn create_huge(size: usize, pages: HugePages) -> Result<Created<OwnedFd>> {
    if size % pages.bytes() != 0 {
        return Err(Error::Unsupported {
            what: "the size is not a multiple of the size of a huge page",
        });
    }
    let flags = match pages {
        HugePages::TwoMiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        HugePages::OneGiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let (fd, id) = sealed::create_segment(size, flags)?;
    let mapping = sys::map_fd_aligned(&fd, size, PageSize::Huge(pages), None)?;
    Ok(created(fd, id, mapping))
}

/// Maps a segment that another process may have changed: some of its huge pages may be missing.
fn map_existing(
    fd: &OwnedFd,
    len: usize,
    pages: PageSize,
    options: ShMemOptions,
) -> Result<Mapping> {
    if_present(map(fd, len, pages, options)?, pages)
}

/// Returns the mapping if none of its huge pages is missing.
fn if_present(mapping: Mapping, pages: PageSize) -> Result<Mapping> {
    if pages != PageSize::Ordinary {
        sys::populate_or_refuse(&mapping)?;
    }
    Ok(mapping)
}

/// Maps a segment at an address that suits the options.
fn map(fd: &OwnedFd, len: usize, pages: PageSize, options: ShMemOptions) -> Result<Mapping> {
    let huge = HugePages::TwoMiB.bytes();
    let aligned = options.transparent_huge_pages && pages == PageSize::Ordinary && len >= huge;
    sys::map_fd_aligned(fd, len, pages, aligned.then_some(huge))
}
