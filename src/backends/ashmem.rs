//! ashmem: Android's anonymous shared memory, and what took its place.
//!
//! `ASharedMemory_create`, since API level 26, makes a region that the kernel frees with the last
//! descriptor and mapping. Behind it is the device `/dev/ashmem`, or, with a recent kernel, a memfd
//! that cannot change its size. Where the function is missing, the device is opened; where that is
//! missing, too, a memfd is made. In this order, because a program of an older Android is ended by a
//! system call that its filter does not know.
//!
//! A region has no name, and Android's rules (`SELinux`) let nobody open a descriptor of another
//! process. So an id alone opens nothing here: descriptors are passed on by the service.

use rustix::fd::OwnedFd;

use super::memfd::MemfdBackend;
use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Lifecycle, Request, Snapshots, Sparse,
};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::memory::size::mapped_len;
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, ashmem};

/// Makes segments with `ASharedMemory_create`, or `/dev/ashmem`, or on Android `memfd_create`:
/// whichever the system has.
///
/// They have the empty id, which opens nothing: they are for this process and those it forks. To
/// share them by ids, use `ServedShMemProvider<AshmemBackend>`, which is the default on
/// Android.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel sees to that,
/// so it holds for SIGKILL as well.
///
/// # Security
///
/// Nobody gets in who was not given a descriptor. Regions cannot be resized once they are mapped, and
/// only what cannot be resized is mapped. Whose region it is, the device does not tell.
///
/// # Platform notes
///
/// Android. Also Linux up to 5.17 with the driver from its staging area, which few have; elsewhere
/// making a segment fails with `ENOENT`, as there is no `/dev/ashmem`. A peer can have the kernel
/// throw the pages away (`ASHMEM_UNPIN`): they are zeros then.
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

    fn create(&self, request: Request<'_>) -> Result<Created<OwnedFd>> {
        let report = request.options.refused(&UNSUPPORTED)?;
        let id = ShMemId::default();
        let created = match ashmem::create(request.size) {
            Err(error) if ashmem::OR_MEMFD && ashmem::is_missing(&error) => {
                let created = MemfdBackend.create(Request::zeroed(request.size))?;
                Created {
                    id,
                    report,
                    ..created
                }
            }
            made => {
                let handle = made?;
                Created {
                    id,
                    mapping: sys::map_fd(&handle, request.size)?,
                    handle,
                    cleanup: Cleanup::Kernel,
                    report,
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
            _ => Err(id.invalid("an ashmem segment's id is empty")),
        }
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    /// What is no region of ashmem has to be a memfd that cannot shrink.
    fn map(&self, handle: &OwnedFd, attach: Attach) -> Result<(Mapping, OptionReport)> {
        let report = attach.options.refused(&UNSUPPORTED)?;
        let mapping = match ashmem::size(handle) {
            Some(size) => sys::map_fd(handle, mapped_len(size, attach.len)?)?,
            None => MemfdBackend.map(handle, Attach::plain(attach.len))?.0,
        };
        Ok((mapping, report))
    }

    fn unlink(&self, _handle: &OwnedFd, _id: &ShMemId) -> Result<()> {
        Ok(())
    }
}

impl Lifecycle for AshmemBackend {}

impl Exclusive for AshmemBackend {}

impl Sparse for AshmemBackend {}

impl Snapshots for AshmemBackend {}
