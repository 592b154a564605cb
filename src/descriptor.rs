//! Segments as file descriptors: borrowed, given away, and received.
//!
//! A descriptor is mapped only after the checks that an object found by an id gets: `Backend::map` is the
//! same, and `Backend::adopt` checks what `Backend::open` ensures otherwise.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::backend::{Attach, Backend, NO_DESCRIPTORS};
use crate::error::{Error, Result};
use crate::memory::mapping::Protection;
use crate::memory::read_only::ReadOnly;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::shared::RcShMem;
use crate::sharing::Shared;
use crate::sys;
use crate::traits::ShMemProvider;

impl<B: Backend> Segment<B> {
    /// Returns the descriptor of the segment, for segments that may have none, as those of the default
    /// provider. For the others there is [`AsFd`].
    ///
    /// It is close-on-exec. Send it through a Unix socket (`SCM_RIGHTS`), or map it with another crate. A
    /// process that receives it attaches with [`shmem_from_fd`](Provider::shmem_from_fd), whatever it can
    /// see of this process. To pass it to a program that is started, use
    /// [`ShMem::inherit`](crate::ShMem::inherit).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for System V segments, [`Error::Released`] if the segment is released.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMemProvider, StdShMemProvider};
    ///
    /// let segment = StdShMemProvider::new()?.shmem_from_bytes(b"a picture")?;
    /// if let Ok(fd) = segment.try_as_fd() {
    ///     // SAFETY: no process writes the segment.
    ///     let map = unsafe { memmap2::Mmap::map(&fd)? };
    ///     assert_eq!(map[..9], *b"a picture");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_as_fd(&self) -> Result<BorrowedFd<'_>> {
        if self.handle.is_none() {
            return Err(Error::Released { id: self.id });
        }
        self.descriptor().ok_or(NO_DESCRIPTORS)
    }

    /// Drops the segment and returns its descriptor, close-on-exec.
    ///
    /// # Lifetime
    ///
    /// The descriptor holds the memory, and the id of a memfd opens it. Otherwise this is what dropping the
    /// segment is: a POSIX name is removed by its creator, and the service no longer counts this process as
    /// a holder.
    ///
    /// # Errors
    ///
    /// As [`try_as_fd`](Self::try_as_fd), and [`Error::Os`] if this process has no descriptor left. The
    /// segment is dropped in any case.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{Error, ShMemProvider, StdShMemProvider};
    ///
    /// let mut provider = StdShMemProvider::new()?;
    /// match provider.shmem_from_bytes(b"a picture")?.into_fd() {
    ///     Ok(fd) => assert_eq!(provider.shmem_from_fd(fd)?[..], *b"a picture"),
    ///     Err(Error::Unsupported { .. }) => println!("it is a System V segment"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn into_fd(self) -> Result<OwnedFd> {
        sys::duplicate(self.try_as_fd()?)
    }
}

/// Segments that always have a descriptor.
///
/// A segment that was [released](crate::ShMemProvider::release_shmem) has none any more. Then this returns
/// `AT_FDCWD`, which is no open descriptor: `mmap` and `fcntl` fail with `EBADF`;
/// [`try_as_fd`](Segment::try_as_fd) returns an error instead.
impl<B: Backend<Handle: AsFd>> AsFd for Segment<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor().unwrap_or(rustix::fs::CWD)
    }
}

impl<B: Backend> Shared<Segment<B>> {
    /// Returns the descriptor of the segment: see [`Segment::try_as_fd`].
    ///
    /// # Errors
    ///
    /// As [`Segment::try_as_fd`].
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
    ///
    /// let mut provider = StdShMemProvider::new()?;
    /// let shared = provider.new_shmem(4096)?.share();
    /// if let Ok(fd) = shared.try_as_fd() {
    ///     let received = provider.shmem_from_fd(fd.try_clone_to_owned()?)?.share();
    ///     assert_eq!(received.len(), 4096);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_as_fd(&self) -> Result<BorrowedFd<'_>> {
        self.segment().try_as_fd()
    }
}

/// As for the segment.
impl<B: Backend<Handle: AsFd>> AsFd for Shared<Segment<B>> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment().as_fd()
    }
}

/// As for the segment of the inner provider.
impl<P: ShMemProvider<ShMem: AsFd>> AsFd for RcShMem<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }
}

impl<B: Backend> Provider<B> {
    /// Attaches to all of the segment that a descriptor refers to: one that another process has sent, that
    /// this program has inherited, or that another library has created.
    ///
    /// The descriptor can be anything. It is mapped only if an id would open the same object: it is of the
    /// kind that this provider creates, has at least one byte, belongs to this user, and, if it is a memfd,
    /// is sealed against shrinking and not a snapshot, or, if it is a POSIX segment, has one name at most
    /// and permissions for this user only. It has to be open for reading and writing. The segment owns it
    /// then, close-on-exec; after an error it is closed.
    ///
    /// [`id`](crate::ShMem::id) returns an id that opens the segment, if there is one: that of a memfd
    /// created by this crate, if `/proc` is mounted, the name of a POSIX segment in the `/dev/shm` of this
    /// process, or a new id of the service. Otherwise it returns the empty id, which opens nothing: hand
    /// on the descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it cannot be mapped safely, [`Error::OtherUser`] if it belongs to another user,
    /// [`Error::Unsupported`] for System V, [`Error::Os`] if the system refuses.
    ///
    /// # Platform notes
    ///
    /// A memfd of another program needs the seals `F_SEAL_SHRINK` and `F_SEAL_GROW`. On Linux, a POSIX
    /// segment is a file in any file system in memory (`tmpfs`). On other systems, nothing tells shared
    /// memory from other files, and any regular file of this user is accepted.
    ///
    /// A segment is attached whole: where the system rounds sizes up to pages, that includes the rest of the
    /// last page.
    ///
    /// # Examples
    ///
    /// `examples/descriptor.rs` sends a segment to another process, `examples/tokio_socket.rs` receives one
    /// in a task.
    ///
    /// ```
    /// use std::fs::File;
    /// use shmem_providers::{Error, ShMemProvider, StdShMemProvider};
    ///
    /// let mut provider = StdShMemProvider::new()?;
    /// for hostile in ["/dev/zero", "/proc/self/status", "/"] {
    ///     let opened = provider.shmem_from_fd(File::open(hostile)?.into());
    ///     assert!(matches!(opened, Err(Error::Foreign { .. } | Error::Unsupported { .. })));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shmem_from_fd(&mut self, fd: OwnedFd) -> Result<Segment<B>> {
        let fd = sys::received(fd, Protection::ReadWrite)?;
        self.adopt(fd, None, Attach::plain(None))
    }

    /// As [`shmem_from_fd`](Self::shmem_from_fd), for reading only. The descriptor may be one that permits
    /// reading only (`O_RDONLY`), or that of a segment with a
    /// [single writer](crate::ShMemOptions::single_writer).
    ///
    /// # Errors
    ///
    /// As [`shmem_from_fd`](Self::shmem_from_fd).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::os::fd::AsFd;
    /// use shmem_providers::{MemfdShMemProvider, ShMemOptions};
    ///
    /// let mut provider = MemfdShMemProvider::default();
    /// # use shmem_providers::ShMemProvider;
    /// let (segment, _) = provider.new_shmem_with(4096, ShMemOptions::new().single_writer())?;
    /// let fd = segment.as_fd().try_clone_to_owned()?; // as a socket does
    /// assert_eq!(provider.shmem_from_fd_read_only(fd)?.len(), 4096);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shmem_from_fd_read_only(&mut self, fd: OwnedFd) -> Result<ReadOnly<Segment<B>>> {
        let fd = sys::received(fd, Protection::Read)?;
        let segment = self.adopt(fd, None, Attach::for_reading(None))?;
        Ok(ReadOnly::new(segment))
    }
}
