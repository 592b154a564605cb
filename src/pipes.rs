//! [`Pipe`]: both ends of a pipe, for processes that signal each other when to continue.

use alloc::sync::Arc;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, Subject};
use crate::sys;

/// Both ends of a pipe, each open until it is closed.
///
/// After a `fork()`, each side closes the end that it does not use. Only then does a reader get the
/// end of the stream, and a writer a broken pipe, when the other side ends. Both ends are
/// close-on-exec.
///
/// Clones share the ends: an end is closed once all clones have closed it or are dropped.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use shmem_providers::pipes::Pipe;
///
/// let mut pipe = Pipe::new()?;
/// pipe.write_all(b"go on")?;
/// pipe.close_write_end();
/// let mut text = String::new();
/// pipe.read_to_string(&mut text)?;
/// assert_eq!(text, "go on");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pipe {
    read_end: Option<Arc<OwnedFd>>,
    write_end: Option<Arc<OwnedFd>>,
}

impl Pipe {
    /// Creates a pipe.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if no descriptor is left.
    pub fn new() -> Result<Self> {
        let (read_end, write_end) =
            sys::pipe().map_err(|errno| sys::failed("pipe2", errno, Subject::Nothing))?;
        Ok(Self {
            read_end: Some(Arc::new(read_end)),
            write_end: Some(Arc::new(write_end)),
        })
    }

    /// Closes the read end.
    pub fn close_read_end(&mut self) {
        self.read_end = None;
    }

    /// Closes the write end.
    pub fn close_write_end(&mut self) {
        self.write_end = None;
    }

    /// Returns the descriptor of the read end, which still belongs to the pipe and is closed with
    /// it.
    #[must_use]
    pub fn read_end(&self) -> Option<RawFd> {
        self.read_end.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Returns the descriptor of the write end, which still belongs to the pipe and is closed with
    /// it.
    #[must_use]
    pub fn write_end(&self) -> Option<RawFd> {
        self.write_end.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// Fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) once the read end is closed.
impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(open(self.read_end.as_ref())?, buf)?)
    }
}

/// Fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe) once the write end is closed, or once there
/// is no reader. Rust programs ignore `SIGPIPE`; other programs are killed by it unless they ignore
/// it too.
impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(open(self.write_end.as_ref())?, buf)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(end: Option<&Arc<OwnedFd>>) -> io::Result<impl AsFd + '_> {
    end.map(|end| end.as_fd())
        .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}
