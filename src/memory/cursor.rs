//! [`ShMemCursor`]: a segment as a file of fixed length.

use std::io::{self, BufRead, Cursor, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};

use core::ops::DerefMut;

/// A segment as a file of fixed length, with a position: implements `Read`, `Write`, `Seek` and
/// `BufRead`.
///
/// It follows the rules of [`std::io::Cursor`] over a slice. A write at the end writes nothing and
/// returns 0, so that `write_all` fails; a write that reaches beyond the end writes what fits. The
/// position may lie beyond the end, where reads return nothing. A position before the start is an
/// error.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Seek, SeekFrom, Write};
/// use shmem_providers::{NopShMemProvider, ShMemCursor, ShMemProvider};
///
/// let mut cursor = ShMemCursor::new(NopShMemProvider.new_shmem(16)?);
/// write!(cursor, "shared memory")?;
/// cursor.seek(SeekFrom::Start(7))?;
/// let mut word = [0; 6];
/// cursor.read_exact(&mut word)?;
/// assert_eq!(&word, b"memory");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ShMemCursor<SHM> {
    inner: SHM,
    position: u64,
}

impl<SHM> ShMemCursor<SHM> {
    /// Creates a cursor at the start of the segment.
    pub fn new(shmem: SHM) -> Self {
        Self {
            inner: shmem,
            position: 0,
        }
    }

    /// Returns the segment.
    pub fn get_ref(&self) -> &SHM {
        &self.inner
    }

    /// Returns the segment for writing.
    pub fn get_mut(&mut self) -> &mut SHM {
        &mut self.inner
    }

    /// Returns the segment and drops the position.
    pub fn into_inner(self) -> SHM {
        self.inner
    }

    /// Returns the position in bytes from the start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Sets the position in bytes from the start. It may lie beyond the end.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
    }
}

impl<SHM: DerefMut<Target = [u8]>> ShMemCursor<SHM> {
    /// Calls `work` with a cursor of the standard library, and keeps its position.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Cursor<&mut [u8]>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut cursor = Cursor::new(&mut *self.inner);
        cursor.set_position(self.position);
        let result = work(&mut cursor);
        self.position = cursor.position();
        result
    }
}

impl<SHM: DerefMut<Target = [u8]>> Read for ShMemCursor<SHM> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|cursor| cursor.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.with(|cursor| cursor.read_vectored(bufs))
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.with(|cursor| cursor.read_exact(buf))
    }
}

impl<SHM: DerefMut<Target = [u8]>> BufRead for ShMemCursor<SHM> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let start = usize::try_from(self.position)
            .unwrap_or(usize::MAX)
            .min(self.inner.len());
        Ok(self.inner.get(start..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.position.saturating_add(amount as u64);
    }
}

impl<SHM: DerefMut<Target = [u8]>> Write for ShMemCursor<SHM> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.with(|cursor| cursor.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|cursor| cursor.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.with(|cursor| cursor.write_all(buf))
    }
}

impl<SHM: DerefMut<Target = [u8]>> Seek for ShMemCursor<SHM> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.with(|cursor| cursor.seek(to))
    }
}
