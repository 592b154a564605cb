//! ashmem: Android's anonymous shared memory, and its replacement.
//!
//! `ASharedMemory_create`, since API level 26, creates a region that the kernel frees with the last
//! descriptor and mapping. It uses the device `/dev/ashmem`, or, with a recent kernel, a memfd that
//! cannot change its size. Where the function is missing, this file opens the device, and where
//! that is missing too, it creates a memfd. The order matters: on older versions of Android, the
//! seccomp filter kills a program that makes an unknown system call.
//!
//! A region has no name, and Android's `SELinux` rules forbid opening descriptors of another
//! process. So an id alone opens nothing: the service passes descriptors on.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::memfd::MemfdBackend;
use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Growable, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::memory::size::mapped_len;
use crate::options::{OptionReport, ShMemOptions, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, ashmem};

/// Creates segments with `ASharedMemory_create`, with `/dev/ashmem`, or, on Android, with
/// `memfd_create`, whichever the system has.
///
/// They have the empty id, which opens nothing: they are for this process and its forked children.
/// To share them by ids, use `ServedShMemProvider<AshmemBackend>`, which is the default on Android.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel frees it, so
/// this holds for SIGKILL as well.
///
/// # Security
///
/// Only a process that was given a descriptor gets in. Regions cannot be resized once they are
/// mapped, and only what cannot be resized is mapped. The device does not report the owner of a
/// region.
///
/// # Platform notes
///
/// Android. Also Linux up to 5.17 with the driver from its staging area, which is rare; elsewhere
/// creating a segment fails with `ENOENT`, because there is no `/dev/ashmem`. A peer can make the
/// kernel discard the pages (`ASHMEM_UNPIN`), which are zero then.
///
/// # Examples
///
/// ```
/// use shmem_providers::{AshmemShMemProvider, ShMem, ShMemProvider};
///
/// let mut provider = AshmemShMemProvider::new()?;
/// match provider.new_shmem(65536) {
///     Ok(segment) => assert_eq!(provider.clone_ref(&segment)?.len(), 65536),
///     Err(error) => eprintln!("no ashmem here: {error}"),
/// }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type AshmemShMemProvider = Provider<AshmemBackend>;

/// A segment of [`AshmemShMemProvider`].
pub type AshmemShMem = Segment<AshmemBackend>;

/// The backend of [`AshmemShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct AshmemBackend;

impl Backend for AshmemBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
        request.options.refuse(&UNSUPPORTED, report)?;
        let id = ShMemId::default();
        let created = match ashmem::create(request.size) {
            Err(error) if ashmem::OR_MEMFD && ashmem::is_missing(&error) => {
                let plain = Request::zeroed(request.size);
                let created = MemfdBackend.create(plain, report)?;
                Created { id, ..created }
            }
            created => {
                let handle = created?;
                Created {
                    id,
                    mapping: sys::map_fd(&handle, request.size)?,
                    handle,
                    cleanup: Cleanup::Kernel,
                }
            }
        };
        Ok(created.filled_with(request.content))
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<OwnedFd> {
        match id.as_str() {
            "" => Err(Error::Unsupported {
                what: "an id alone does not open an ashmem segment: share it through the service, \
                       with ServedShMemProvider<AshmemBackend>",
            }),
            _ => Err(id.invalid("the id of an ashmem segment is empty")),
        }
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    /// A handle that is not an ashmem region has to be a memfd that cannot shrink.
    fn map(&self, handle: &OwnedFd, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        if let Some(size) = ashmem::size(handle) {
            // Opening the device again would create another region, so only the pages are protected.
            let len = mapped_len(size, attach.len)?;
            return sys::map_fd_as(handle, len, attach.protection);
        }
        let options = ShMemOptions::new();
        MemfdBackend.map(handle, Attach { options, ..attach }, report)
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

impl Lifecycle for AshmemBackend {}

impl Exclusive for AshmemBackend {}

impl Sparse for AshmemBackend {}

impl Growable for AshmemBackend {}

impl Snapshots for AshmemBackend {}
