//! Served segments: memory of another mechanism, whose descriptors a service keeps and hands out.
//!
//! They are for systems and processes where an id alone cannot open a segment: Apple's systems,
//! Android, and processes that do not see each other in `/proc` because they are in different
//! containers or sandboxes, but that share a directory. The creator of a segment creates the memory
//! (a POSIX name is removed at once) and sends a descriptor to the service under a random id. A
//! process that opens the id receives the descriptor. The service maps nothing. The process that
//! maps the descriptor checks it as if it had opened the object itself.

use alloc::sync::Arc;
use core::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Growable, Lifecycle, Request,
    Snapshots, Sparse,
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
use crate::sys::locks::Locks;
use crate::sys::{FileInfo, growth};

/// Creates segments of another backend, and shares them through a [service](crate::ShMemService)
/// instead of by names.
///
/// All programs of a user that use the same address find each other. The first process that needs
/// the service hosts it in a thread. When that process ends, however it ends, another one takes
/// over, and the processes that hold segments register them there. Ids stay the same.
///
/// # Lifetime
///
/// Until the last process that holds the segment drops it or ends. The kernel reports a killed
/// process to the service. The socket and the lock file of a killed host stay until the next
/// program of this user uses the same address: see [`start_at`](crate::ShMemService::start_at).
///
/// # Security
///
/// Only processes of the same user can connect; see [`ShMemService`](crate::ShMemService). Ids are
/// random, and open nothing for other users.
///
/// # Platform notes
///
/// Every Unix that reports the user of the peer of a socket: Linux, Android, Apple's systems, the
/// BSDs. A segment takes one descriptor in each holder, and one in the host. A provider and its
/// clones share a connection, and, once there is a segment, a thread that monitors it.
///
/// Whatever the service does, creating, opening, [`pre_fork`] and [`post_fork`] return within five
/// seconds, if necessary with an error. Cloning and dropping do not wait for the service, but can
/// wait for calls of other threads to the same provider, which end within five seconds too.
///
/// A forked child has a connection of its own after [`post_fork`], or after its first request. Call
/// [`pre_fork`] and [`post_fork`], so that the service knows of the child before its parent can
/// end. The parent can have threads if the allocator supports `fork()`, as those of glibc and musl
/// do: a child that was announced takes no lock that another thread could have left locked.
///
/// [`pre_fork`]: crate::ShMemProvider::pre_fork
/// [`post_fork`]: crate::ShMemProvider::post_fork
///
/// # Examples
///
/// ```
/// use shmem_providers::{MemfdBackend, ServedShMemProvider, ShMem, ShMemProvider};
///
/// # let directory = tempfile::tempdir()?;
/// # let address = directory.path().join("service");
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

/// The form of ids.
const FORM: &str = "the id of a served segment is `s` and 18 characters of base64url";

impl<B: Backend<Handle = OwnedFd>> Provider<ServedBackend<B>> {
    /// Creates a provider that uses the service at this address, which is the path of a socket, and
    /// hosts the service if no other process does. It connects when it first has to. A relative
    /// path is made absolute now.
    ///
    /// [`ShMemService::start`](crate::ShMemService::start) explains which address
    /// [`new`](crate::ShMemProvider::new) and `default` use.
    #[must_use]
    pub fn at(address: impl AsRef<Path>) -> Self {
        Self {
            backend: ServedBackend {
                memory: B::default(),
                client: Arc::new(Client::at(address.as_ref())),
            },
        }
    }

    /// Returns the address of the service. If none was chosen, it is taken from the environment,
    /// once, when it is first used or asked for: see
    /// [`ShMemService::start`](crate::ShMemService::start). The default address can change when its
    /// directories appear or disappear, so do not hand it to other processes.
    ///
    /// # Errors
    ///
    /// [`Error::Service`](crate::Error::Service) if it is not a valid address.
    pub fn address(&self) -> Result<PathBuf> {
        self.backend.client.address()
    }
}

impl<B: Backend<Handle = OwnedFd>> ServedBackend<B> {
    /// Registers what the memory backend has created with the service.
    fn register(&self, created: Created<OwnedFd>) -> Result<Created<ServedHandle>> {
        if created.cleanup == Cleanup::Unlink {
            self.memory.unlink(&created.handle, &created.id)?;
        }
        let handle = self
            .client
            .create(created.mapping.mapped(), created.handle)?;
        Ok(Created {
            id: handle.id(),
            handle,
            mapping: created.mapping,
            cleanup: Cleanup::Kernel,
        })
    }
}

impl<B: Backend<Handle = OwnedFd>> Backend for ServedBackend<B> {
    type Handle = ServedHandle;

    fn create(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<ServedHandle>> {
        let request = Request {
            exclusive_check: false,
            ..request
        };
        self.register(self.memory.create_served(request, report)?)
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<ServedHandle> {
        match id.kind() {
            IdKind::Served => self.client.open(*id),
            _ => Err(id.invalid(FORM)),
        }
    }

    fn duplicate(&self, handle: &ServedHandle) -> Result<ServedHandle> {
        self.client.duplicate(handle)
    }

    fn map(
        &self,
        handle: &ServedHandle,
        attach: Attach,
        report: &mut OptionReport,
    ) -> Result<Mapping> {
        // The service knows the size of the whole object.
        if growth::is_growable(&FileInfo::of(handle.fd())?) {
            return self.memory.map(handle.fd(), attach, report);
        }
        // The size that the service knows, because some systems round the size up to whole pages.
        let len = mapped_len(handle.size(), attach.len)?;
        let attach = Attach {
            len: Some(len),
            ..attach
        };
        self.memory.map(handle.fd(), attach, report)
    }

    fn unlink(&self, _handle: &ServedHandle, _id: &ShMemId) -> Result<()> {
        Ok(())
    }

    fn descriptor<'a>(&self, handle: &'a ServedHandle) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn locks<'a>(&self, handle: &'a ServedHandle) -> Option<&'a dyn Locks> {
        Some(handle)
    }

    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(ServedHandle, ShMemId)> {
        let (fd, _) = self.memory.adopt(fd, None)?;
        // Checked before the service gets it, which knows the size of the whole object. Whether it may be
        // written is checked when it is mapped.
        let report = &mut OptionReport::default();
        let attach = Attach::for_reading(None);
        let size = self.memory.map(&fd, attach, report)?.mapped();
        let handle = match known {
            None => self.client.register(size, fd)?,
            Some(id) if id.kind() == IdKind::Served => self.client.adopt(id, size, fd)?,
            Some(id) => return Err(id.invalid(FORM)),
        };
        let id = handle.id();
        Ok((handle, id))
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

/// Without this ability, because the service always holds the segment too.
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

impl<B: Growable<Handle = OwnedFd>> Growable for ServedBackend<B> {
    fn grow(&self, handle: &ServedHandle, mapping: &mut Mapping, len: usize) -> Result<()> {
        self.memory.grow(handle.fd(), mapping, len)
    }
}

impl<B: Snapshots<Handle = OwnedFd>> Snapshots for ServedBackend<B> {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(ServedHandle, ShMemId)> {
        let (snapshot, _) = self.memory.create_snapshot(bytes, ranges)?;
        let handle = self.client.create(bytes.len(), snapshot)?;
        let id = handle.id();
        Ok((handle, id))
    }

    fn map_private(&self, handle: &ServedHandle) -> Result<Mapping> {
        self.memory.map_private(handle.fd())
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        self.memory.reset(mapping)
    }

    fn check_freezable(&self, handle: &ServedHandle) -> Result<()> {
        self.memory.check_freezable(handle.fd())
    }

    fn freeze(&self, handle: &ServedHandle) -> Result<()> {
        self.memory.freeze(handle.fd())
    }

    fn freeze_own(&self, handle: &ServedHandle) -> Result<()> {
        self.memory.freeze_own(handle.fd())
    }

    fn is_frozen(&self, handle: &ServedHandle) -> bool {
        self.memory.is_frozen(handle.fd())
    }
}
