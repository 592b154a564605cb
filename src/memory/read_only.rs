//! [`ReadOnly`]: a segment that this process can read and not write. Its methods are in
//! `src/read_only.rs` and `src/freeze.rs`.

/// A segment that is mapped for reading only: it neither dereferences to its bytes, which others may
/// write, nor gives access by which safe code could write to them.
///
/// Created by [`shmem_from_id_read_only`](crate::ShMemProvider::shmem_from_id_read_only) of every
/// provider, or by [`Segment::freeze`](crate::Segment::freeze). It is a holder like any other: as long as
/// it exists, the id opens the segment, for writing too if the segment permits that.
///
/// # Security
///
/// The pages are mapped without the permission to write (`PROT_READ`), so that a stray write of this
/// process raises SIGSEGV. Where the mechanism allows it, they are mapped through a descriptor that permits
/// reading only, so that `mprotect` cannot restore the permission.
///
/// This protects the segment from mistakes of this process, not from its intent: a hostile process of the
/// same user opens an ordinary segment for writing, by its id or through any descriptor of it in `/proc`.
/// [`ShMemOptions::single_writer`](crate::ShMemOptions::single_writer) and
/// [`Segment::freeze`](crate::Segment::freeze) prevent that.
///
/// # Platform notes
///
/// `mprotect` is refused on Linux with `/proc` for memfd, POSIX and their served segments; everywhere for
/// System V (`SHM_RDONLY`), POSIX (`O_RDONLY`) and Windows (`FILE_MAP_READ`), and on Apple's systems for
/// segments with a single writer. Other served segments, FreeBSD's memfds and regions of `/dev/ashmem` have descriptors for reading and writing, so only
/// the pages are protected.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let segment = provider.shmem_from_bytes(b"a picture")?;
/// let reader = provider.shmem_from_id_read_only(segment.id())?; // in any process of this user
/// let mut word = [0; 7];
/// reader.access().read_at(2, &mut word)?;
/// assert_eq!(&word, b"picture");
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct ReadOnly<S> {
    segment: S,
}

impl<S> ReadOnly<S> {
    /// Takes over a segment, which may be mapped for reading only. Nothing else refers to it.
    pub(crate) fn new(segment: S) -> Self {
        Self { segment }
    }

    /// Returns the segment, to ask it for what does not touch its bytes.
    pub(crate) fn segment(&self) -> &S {
        &self.segment
    }

    /// Converts the segment into another kind of segment that owns it.
    #[cfg(feature = "std")]
    pub(crate) fn map<T>(self, convert: impl FnOnce(S) -> T) -> ReadOnly<T> {
        ReadOnly {
            segment: convert(self.segment),
        }
    }
}
