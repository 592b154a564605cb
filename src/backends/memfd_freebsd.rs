//! memfd on FreeBSD: `memfd_create(2)`, since FreeBSD 13.
//!
//! As on Linux, a memfd is an anonymous file in memory, which the kernel frees with its last
//! descriptor and mapping, and which is sealed against shrinking before any other process can have
//! it. But FreeBSD has no `/proc` that opens descriptors of another process, so sharing one takes a
//! service.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, SealFlags};

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Growable, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, failed};

/// Creates segments with `memfd_create(2)`, to be shared through the service: the memory of the
/// default provider.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends, however it ends.
///
/// # Security
///
/// A memfd has no name: a process gets in only with a descriptor. No peer can shrink it.
///
/// # Platform notes
///
/// FreeBSD 13 and later. An id alone opens nothing: use
/// [`ServedShMemProvider`](crate::ServedShMemProvider) over this backend, which is what
/// [`StdShMemProvider`](crate::StdShMemProvider) is. On Linux, the provider of this name needs no
/// service.
pub type MemfdShMemProvider = Provider<MemfdBackend>;

/// A segment of [`MemfdShMemProvider`].
pub type MemfdShMem = Segment<MemfdBackend>;

/// The backend of [`MemfdShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MemfdBackend;

/// The seals that a memfd must have before it is mapped.
const NEEDED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl Backend for MemfdBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
        request.options.refuse(&UNSUPPORTED, report)?;
        let size = request.size;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let handle = fs::memfd_create("shmem", flags)
            .map_err(|errno| failed("memfd_create", errno, Subject::Nothing))
            .and_then(sys::above_stdio)?;
        sys::reserve(&handle, size)?;
        fs::fcntl_add_seals(&handle, NEEDED.union(SealFlags::SEAL))
            .map_err(|errno| failed("fcntl(F_ADD_SEALS)", errno, Subject::Nothing))?;
        let created = Created {
            mapping: sys::map_fd(&handle, size)?,
            id: ShMemId::default(),
            handle,
            cleanup: Cleanup::Kernel,
        };
        Ok(created.filled_with(request.content))
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<OwnedFd> {
        match id.as_str() {
            "" => Err(Error::Unsupported {
                what: "an id alone does not open a memfd here: share it through the service, with \
                       StdShMemProvider",
            }),
            _ => Err(id.invalid("the id of a memfd is empty on this system")),
        }
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        let info = FileInfo::of(handle)?;
        sys::check_owner(info.owner)?;
        // `F_GET_SEALS` fails with EINVAL for everything but a memfd.
        match fs::fcntl_get_seals(handle) {
            Ok(seals) if seals.contains(NEEDED) => {
                sys::map_fd_as(handle, info.mapped_len(attach.len)?, attach.protection)
            }
            _ => Err(Error::Foreign {
                found: "it is not sealed against shrinking",
            }),
        }
    }

    fn unlink(&self, _handle: &OwnedFd, _id: &ShMemId) -> Result<()> {
        Ok(())
    }

    fn descriptor<'a>(&self, handle: &'a OwnedFd) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn adopt(&self, fd: OwnedFd, _known: Option<ShMemId>) -> Result<(OwnedFd, ShMemId)> {
        Ok((fd, ShMemId::default()))
    }
}

impl Lifecycle for MemfdBackend {}

impl Exclusive for MemfdBackend {}

impl Sparse for MemfdBackend {}

impl Growable for MemfdBackend {}

impl Snapshots for MemfdBackend {}
