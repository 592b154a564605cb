//! Segments that grow without moving: [`Segment::grow_to`].

use crate::backend::{Backend, Growable};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::traits::ShMem;

impl<B: Backend> Segment<B> {
    /// Returns how many bytes the segment has now, including those by which other holders have grown it.
    /// This takes no system call.
    ///
    /// It is at least [`len`](ShMem::len), which does not change until [`grow_to`](Self::grow_to) is
    /// called. If the segment was created without [`reserve`](crate::ShMemOptions::reserve), the two are
    /// the same.
    ///
    /// # Security
    ///
    /// A peer of the same user can make this return any number between [`len`](ShMem::len) and
    /// [`reserved`](Self::reserved). Using bytes that are not committed can only fail as the
    /// [contract of the slice](ShMem#the-contract-of-the-slice) states for all segments.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let mut provider = MemfdShMemProvider::new()?;
    /// let (mut log, _) = provider.new_shmem_with(4096, ShMemOptions::new().reserve(1 << 20))?;
    /// let reader = provider.shmem_from_id(log.id())?; // in any process of this user
    /// log.grow_to(8192)?;
    /// assert_eq!((reader.len(), reader.committed()), (4096, 8192));
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[must_use]
    pub fn committed(&self) -> usize {
        self.mapping.committed()
    }

    /// Returns how many bytes the segment can have: the argument of
    /// [`reserve`](crate::ShMemOptions::reserve), rounded up to whole pages, or [`len`](ShMem::len) if the
    /// segment was created without.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMemOptions, ShMemProvider, StdShMemProvider};
    ///
    /// let segment = StdShMemProvider::new()?.new_shmem(100)?;
    /// assert_eq!(segment.reserved(), 100);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.mapping.reserved()
    }
}

impl<B: Growable> Segment<B> {
    /// Makes this segment cover at least `len` bytes, and allocates the memory for them, unless this or
    /// another holder has done so before.
    ///
    /// The bytes stay where they are: pointers into the segment remain valid, in all processes. New bytes
    /// are zero. Other holders see them in [`committed`](Self::committed), and cover them by a call with
    /// that number. If several grow the segment at the same time, it gets the largest size. It never
    /// shrinks; [`trim`](Self::trim) frees memory. If `len` is not larger than [`len`](ShMem::len),
    /// nothing changes.
    ///
    /// A [`ReadOnly`](crate::ReadOnly) or [`Shared`](crate::Shared) keeps the size that it has: attach again
    /// to use more bytes.
    ///
    /// # Errors
    ///
    /// [`Error::NotReserved`] if `len` is larger than [`reserved`](Self::reserved), [`Error::Released`] if
    /// the segment was released, [`Error::Os`] with the limit that was reached if there is no memory. Then
    /// the segment is as before.
    ///
    /// # Platform notes
    ///
    /// Linux: `fallocate(2)`, so that no later access has to allocate memory. It does not check the limit of
    /// a cgroup (`memory.max`): where that is exceeded, the kernel may kill a process of the cgroup instead.
    /// Windows: `VirtualAlloc`, up to the commit limit of the system.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let mut provider = MemfdShMemProvider::new()?;
    /// let (mut arena, _) = provider.new_shmem_with(4096, ShMemOptions::new().reserve(1 << 20))?;
    /// let mut reader = provider.shmem_from_id(arena.id())?; // in any process of this user
    ///
    /// let start = arena.as_ptr();
    /// arena.grow_to(65536)?;
    /// assert_eq!((arena.as_ptr(), arena.len()), (start, 65536));
    /// arena[65535] = 7;
    ///
    /// reader.grow_to(reader.committed())?; // needs no memory
    /// assert_eq!(reader[65535], 7);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    ///
    /// No slice of the segment can live during the call:
    ///
    /// ```compile_fail,E0502
    /// use shmem_providers::{MemfdShMemProvider, ShMemOptions, ShMemProvider};
    ///
    /// let options = ShMemOptions::new().reserve(1 << 20);
    /// let (mut arena, _) = MemfdShMemProvider::new()?.new_shmem_with(4096, options)?;
    /// let slice = &arena[..];
    /// arena.grow_to(8192)?;
    /// assert_eq!(slice.len(), 4096);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn grow_to(&mut self, len: usize) -> Result<()> {
        if len <= self.len() {
            return Ok(());
        }
        let Some(handle) = &self.handle else {
            return Err(Error::Released { id: self.id });
        };
        let reserved = self.mapping.reserved();
        if len > reserved {
            let asked = len;
            return Err(Error::NotReserved { asked, reserved });
        }
        self.backend.grow(handle, &mut self.mapping, len)
    }
}
