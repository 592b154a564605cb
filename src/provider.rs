//! [`Provider`]: creates and opens the segments of one backend.

use crate::backend::{Attach, Backend, Expected, Request};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::read_only::ReadOnly;
use crate::memory::size::check_size;
use crate::options::{OptionReport, ShMemOptions};
use crate::segment::Segment;
#[cfg(feature = "std")]
use crate::sys::OwnedFd;
use crate::traits::{ShMem, ShMemProvider};

/// Creates and opens the segments of one backend.
///
/// The alias selects the backend: [`StdShMemProvider`](crate::StdShMemProvider),
/// [`MemfdShMemProvider`](crate::MemfdShMemProvider), [`UnixShMemProvider`](crate::UnixShMemProvider),
/// [`MmapShMemProvider`](crate::MmapShMemProvider).
#[derive(Clone, Debug, Default)]
pub struct Provider<B> {
    pub(crate) backend: B,
}

impl<B: Backend> Provider<B> {
    /// Creates a segment of `map_size` zero bytes with as many of the options as possible, and returns
    /// a report about each of them.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](ShMemProvider::new_shmem). If a required option is not available, returns the
    /// reason.
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
    /// let (segment, report) = StdShMemProvider::new()?.new_shmem_with(8 << 20, options)?;
    /// for (option, reason) in report.refusals() {
    ///     eprintln!("no {option}: {reason}");
    /// }
    /// # assert_eq!(segment.len(), 8 << 20);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn new_shmem_with(
        &mut self,
        map_size: usize,
        options: ShMemOptions,
    ) -> Result<(Segment<B>, OptionReport)> {
        let request = Request {
            options,
            ..Request::zeroed(check_size(map_size)?)
        };
        let mut report = OptionReport::default();
        let created = self.backend.create(request, &mut report)?;
        let mut segment = Segment::from_created(created, &self.backend);
        if options.single_writer {
            segment = segment.with_witness();
        }
        Ok((segment, report))
    }

    /// Creates a segment that contains `bytes`.
    ///
    /// Faster than to create a segment and copy the bytes into it: they are written to the object
    /// before it is mapped, so that no page is zeroed first and none causes a page fault. A reader of the
    /// segment has page faults of its own, one for several pages.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](ShMemProvider::new_shmem).
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
    pub fn shmem_from_bytes(&mut self, bytes: &[u8]) -> Result<Segment<B>> {
        check_size(bytes.len())?;
        self.create(Request::with_content(bytes))
    }

    /// Attaches to the first `size` bytes of a segment, or to all of it, with as many of the options as
    /// possible, and returns a report about each of them.
    ///
    /// An attacher that writes the whole segment gains most from
    /// [`prefault`](ShMemOptions::prefault): one system call instead of a page fault every 4 KiB. Huge
    /// pages are a property of the segment: here the report tells whether the segment has them.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](ShMemProvider::shmem_from_id_and_size). If a required option is
    /// not available, returns the reason.
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
    ) -> Result<(Segment<B>, OptionReport)> {
        if options.single_writer {
            return Err(Error::Unsupported {
                what: "a segment gets its single writer when it is created, not when it is attached",
            })?;
        }
        let mut report = OptionReport::default();
        let asked = options.reserve.unwrap_or(0);
        let attach = Attach {
            options: options.without_reservation(),
            ..Attach::plain(size)
        };
        let segment = self.attach(id, attach, &mut report)?;
        let reserved = segment.reserved();
        if asked > reserved {
            return Err(Error::NotReserved { asked, reserved });
        }
        Ok((segment, report))
    }

    /// Creates a segment without a report.
    pub(crate) fn create(&self, request: Request<'_>) -> Result<Segment<B>> {
        let created = self.backend.create(request, &mut OptionReport::default())?;
        Ok(Segment::from_created(created, &self.backend))
    }

    fn attach(&self, id: ShMemId, attach: Attach, report: &mut OptionReport) -> Result<Segment<B>> {
        attach.len.map_or(Ok(0), check_size)?;
        let handle = self.backend.open(&id, Expected::segment(attach.len))?;
        self.map(handle, id, attach, report)
    }

    /// Attaches by a descriptor, which `sys::received` has returned. `id` is the id of the segment, if it
    /// is known.
    #[cfg(feature = "std")]
    pub(crate) fn adopt(
        &self,
        fd: OwnedFd,
        id: Option<ShMemId>,
        attach: Attach,
    ) -> Result<Segment<B>> {
        attach.len.map_or(Ok(0), check_size)?;
        let (handle, id) = self.backend.adopt(fd, id)?;
        self.map(handle, id, attach, &mut OptionReport::default())
    }

    fn attach_read_only(&self, id: ShMemId, len: Option<usize>) -> Result<ReadOnly<Segment<B>>> {
        len.map_or(Ok(0), check_size)?;
        let handle = self.backend.open(&id, Expected::readable(len))?;
        let attach = Attach::for_reading(len);
        let segment = self.map(handle, id, attach, &mut OptionReport::default())?;
        Ok(ReadOnly::new(segment))
    }

    fn map(
        &self,
        handle: B::Handle,
        id: ShMemId,
        attach: Attach,
        report: &mut OptionReport,
    ) -> Result<Segment<B>> {
        let mapping = self.backend.map(&handle, attach, report)?;
        Ok(Segment::attached(handle, id, mapping, &self.backend))
    }
}

impl<B: Backend> ShMemProvider for Provider<B> {
    type ShMem = Segment<B>;

    fn new() -> Result<Self> {
        let provider = Self::default();
        provider.backend.start()?;
        Ok(provider)
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem> {
        self.create(Request::zeroed(check_size(map_size)?))
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem> {
        self.attach(id, Attach::plain(None), &mut OptionReport::default())
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem> {
        self.attach(id, Attach::plain(Some(size)), &mut OptionReport::default())
    }

    fn shmem_from_id_read_only(&mut self, id: ShMemId) -> Result<ReadOnly<Self::ShMem>> {
        self.attach_read_only(id, None)
    }

    fn shmem_from_id_and_size_read_only(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<ReadOnly<Self::ShMem>> {
        self.attach_read_only(id, Some(size))
    }

    /// Maps the segment by the handle of `mapping`, so this works even if the id no longer opens it.
    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem> {
        let Some(handle) = &mapping.handle else {
            return Err(Error::Released { id: mapping.id });
        };
        let handle = self.backend.duplicate(handle)?;
        let attach = Attach::plain(Some(mapping.len()));
        self.map(handle, mapping.id, attach, &mut OptionReport::default())
    }

    #[cfg(feature = "std")]
    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem> {
        crate::inherit::attach(
            env_name,
            |fd, id, size| self.adopt(fd, Some(id), Attach::plain(size)),
            |id, size| self.attach(id, Attach::plain(size), &mut OptionReport::default()),
        )
    }

    #[cfg(feature = "std")]
    fn existing_from_env_read_only(&mut self, env_name: &str) -> Result<ReadOnly<Self::ShMem>> {
        crate::inherit::attach(
            env_name,
            |fd, id, size| {
                let segment = self.adopt(fd, Some(id), Attach::for_reading(size))?;
                Ok(ReadOnly::new(segment))
            },
            |id, size| self.attach_read_only(id, size),
        )
    }

    fn pre_fork(&mut self) -> Result<()> {
        self.backend.pre_fork()
    }

    fn post_fork(&mut self, is_child: bool) -> Result<()> {
        self.backend.post_fork(is_child)
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        shmem.release();
    }

    fn new_for_name(&mut self, map_size: usize, persistent: bool) -> Result<Self::ShMem> {
        if !persistent {
            return self.new_shmem(map_size);
        }
        let request = Request::zeroed(check_size(map_size)?);
        let created = self
            .backend
            .create_persistable(request, &mut OptionReport::default())?;
        Ok(Segment::from_created(created, &self.backend))
    }

    fn keep_for_name(&mut self, shmem: &mut Self::ShMem, persistent: bool) -> Result<()> {
        if let (true, Some(handle)) = (persistent, &shmem.handle) {
            self.backend.persist(handle)?;
        }
        shmem.keep_name();
        Ok(())
    }

    fn forget_for_name(id: ShMemId, if_unused: bool) {
        B::forget(&id, if_unused);
    }
}
