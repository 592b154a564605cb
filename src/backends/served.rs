//! Served segments: memory of another mechanism, whose descriptors a service keeps and hands out.
//!
//! For where an id alone cannot open a segment: on Apple's systems and Android, and between
//! processes that do not see each other in `/proc`, because they are in different containers or
//! sandboxes, but share a folder. The process that makes a segment makes the memory (a POSIX name is
//! removed at once) and hands a descriptor to the service under a random id; who opens the id gets
//! one back. The service maps nothing, and what is in a descriptor is checked by who maps it, as if
//! it had been opened by itself.

use alloc::sync::Arc;
use core::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Lifecycle, Request, Snapshots, Sparse,
};
use crate::error::Result;
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::memory::size::mapped_len;
use crate::options::OptionReport;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::service::client::{Client, ServedHandle};

/// Makes segments of another provider, and shares them through a [service](crate::ShMemService)
/// instead of by names.
///
/// All programs of a user that use it find each other. The first one that needs the service hosts
/// it, in a thread; when that process ends, however it ends, another one takes over, and the
/// processes that hold segments hand them to it. Ids stay the same.
///
/// # Lifetime
///
/// Until the last process that holds the segment drops it or ends. The kernel tells the service of
/// a process that was killed. Socket and lock of a killed host stay until the next program of this user
/// uses the same address: see [`start_at`](crate::ShMemService::start_at).
///
/// # Security
///
/// Only processes of the same user get in; see [`ShMemService`](crate::ShMemService). Ids are random,
/// and open nothing for others.
///
/// # Platform notes
///
/// Every Unix that tells who is on the other side of a socket: Linux, Android, Apple's, the BSDs. A
/// segment costs each holder one descriptor, and the host one as well. A provider and its clones
/// share a connection, and a thread that looks after it once there is a segment.
///
/// Whatever the service does, making, opening, [`pre_fork`] and [`post_fork`] end within five seconds,
/// with an error if need be. Cloning and dropping do not wait for the service, but for what other threads
/// do with the same provider, which ends within five seconds as well.
///
/// A child that was forked has a connection of its own from [`post_fork`] on, or from its first
/// request on. Call [`pre_fork`] and [`post_fork`], so that the service knows of the child before
/// it could lose its parent. The parent may have threads, if the allocator gets through a fork, as those
/// of glibc and musl do: a child that was announced takes no lock that one of them could have left locked.
///
/// [`pre_fork`]: crate::ShMemProvider::pre_fork
/// [`post_fork`]: crate::ShMemProvider::post_fork
///
/// # Examples
///
/// ```
/// use shmem_providers::{MemfdShMemProvider, ServedShMemProvider, ShMem, ShMemProvider};
///
/// # let folder = tempfile::tempdir()?;
/// # let address = folder.path().join("service");
/// let mut provider = ServedShMemProvider::<MemfdBackend>::at(&address);
/// let mut segment = provider.new_shmem(100)?;
/// segment[0] = 1;
/// // In any process of this user that uses the same address:
/// let mut provider = ServedShMemProvider::<MemfdBackend>::at(&address);
/// assert_eq!(provider.shmem_from_id(segment.id())?[0], 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type ServedShMemProvider<B> = Provider<ServedBackend<B>>;

/// A segment of [`ServedShMemProvider`].
pub type ServedShMem<B> = Segment<ServedBackend<B>>;

/// The backend of [`ServedShMemProvider`], over the backend that provides the memory.
#[derive(Clone, Debug, Default)]
pub struct ServedBackend<B> {
    memory: B,
    client: Arc<Client>,
}

impl<B: Backend<Handle = OwnedFd>> Provider<ServedBackend<B>> {
    /// A provider that uses the service at this address, the path of a socket, and hosts it if
    /// nobody does. It connects when it has to. A relative path is made absolute now.
    ///
    /// What [`new`](crate::ShMemProvider::new) and `default` use, says
    /// [`ShMemService::start`](crate::ShMemService::start).
    #[must_use]
    pub fn at(address: impl AsRef<Path>) -> Self {
        Self {
            backend: ServedBackend {
                memory: B::default(),
                client: Arc::new(Client::at(address.as_ref())),
            },
        }
    }

    /// The address of the service. If none was chosen, the environment says once which it is, when it
    /// is first asked for or used: see [`ShMemService::start`](crate::ShMemService::start). The
    /// default address can change when its directories come and go, so there is no need to pass it on.
    ///
    /// # Errors
    ///
    /// [`Error::Service`](crate::Error::Service) if it cannot be one.
    pub fn address(&self) -> Result<PathBuf> {
        self.backend.client.address()
    }
}

impl<B: Backend<Handle = OwnedFd>> ServedBackend<B> {
    /// Hands what the memory's room has made to the service.
    fn register(&self, created: Created<OwnedFd>) -> Result<Created<ServedHandle>> {
        if created.cleanup == Cleanup::Unlink {
            self.memory.unlink(&created.handle, &created.id)?;
        }
        let handle = self
            .client
            .register(created.mapping.len(), created.handle)?;
        Ok(Created {
            id: handle.id(),
            handle,
            mapping: created.mapping,
            cleanup: Cleanup::Kernel,
            report: created.report,
        })
    }
}

impl<B: Backend<Handle = OwnedFd>> Backend for ServedBackend<B> {
    type Handle = ServedHandle;

    fn create(&self, request: Request<'_>) -> Result<Created<ServedHandle>> {
        self.register(self.memory.create(Request {
            exclusive_check: false,
            ..request
        })?)
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<ServedHandle> {
        match id.kind() {
            IdKind::Served => self.client.open(*id),
            _ => {
                Err(id.invalid("the id of a served segment is `s` and 18 characters of base64url"))
            }
        }
    }

    fn duplicate(&self, handle: &ServedHandle) -> Result<ServedHandle> {
        self.client.duplicate(handle)
    }

    fn map(&self, handle: &ServedHandle, attach: Attach) -> Result<(Mapping, OptionReport)> {
        // The size that the service knows, because some systems round it up to whole pages.
        let len = mapped_len(handle.size(), attach.len)?;
        let attach = Attach {
            len: Some(len),
            ..attach
        };
        self.memory.map(handle.fd(), attach)
    }

    fn unlink(&self, _handle: &ServedHandle, _id: &ShMemId) -> Result<()> {
        Ok(())
    }
}

impl<B: Backend<Handle = OwnedFd>> Lifecycle for ServedBackend<B> {
    fn start(&self) -> Result<()> {
        self.client.connect()
    }

    fn pre_fork(&self) -> Result<()> {
        self.client.pre_fork()
    }

    fn post_fork(&self, is_child: bool) -> Result<()> {
        self.client.post_fork(is_child)
    }
}

/// The service always holds the segment too.
impl<B: Backend<Handle = OwnedFd>> Exclusive for ServedBackend<B> {}

impl<B: Sparse<Handle = OwnedFd>> Sparse for ServedBackend<B> {
    fn next_data(
        &self,
        handle: &ServedHandle,
        from: usize,
        len: usize,
    ) -> Result<Option<Range<usize>>> {
        self.memory.next_data(handle.fd(), from, len)
    }

    fn trim(&self, handle: &ServedHandle, range: Range<usize>) -> Result<()> {
        self.memory.trim(handle.fd(), range)
    }
}

impl<B: Snapshots<Handle = OwnedFd>> Snapshots for ServedBackend<B> {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(ServedHandle, ShMemId)> {
        let (snapshot, _) = self.memory.create_snapshot(bytes, ranges)?;
        let handle = self.client.register(bytes.len(), snapshot)?;
        let id = handle.id();
        Ok((handle, id))
    }

    fn map_private(&self, handle: &ServedHandle) -> Result<Mapping> {
        self.memory.map_private(handle.fd())
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        self.memory.reset(mapping)
    }
}
