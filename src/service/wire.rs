//! Frames over sockets, each with at most one descriptor. This module does not interpret them.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{self, Errno};

use super::protocol::{FRAME, Frame};
use crate::sys::socket::{self, Passed};

/// The result of [`FrameReader::peek`].
pub(super) enum Received {
    /// A complete frame, and whether descriptors come with it. It is still in the socket.
    Frame(Frame, bool),
    /// A part of a frame, which was taken from the socket. The rest has not arrived yet.
    Partial,
    /// Nothing to read.
    Empty,
    /// A signal interrupted the call.
    Interrupted,
    /// The peer has closed the connection, and everything it sent was read.
    Closed,
    /// The socket has failed.
    Failed,
    /// Something that is not a frame. It is still in the socket.
    Malformed,
}

/// Reads frames from a socket, and keeps the part of a frame that has arrived.
#[derive(Debug)]
pub(super) struct FrameReader {
    frame: Frame,
    /// How many of its bytes were taken from the socket. On a socket that preserves packet boundaries this
    /// is always 0 between two calls.
    filled: usize,
}

impl FrameReader {
    pub(super) const fn new() -> Self {
        Self {
            frame: [0; FRAME],
            filled: 0,
        }
    }

    /// Returns `true` if it holds no part of a frame.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Inspects what has arrived. Only partial frames without descriptors are taken from the socket.
    pub(super) fn peek(&mut self, fd: impl AsFd) -> Received {
        let missing = self.frame.get_mut(self.filled..).unwrap_or_default();
        let seen = match socket::peek(&fd, missing) {
            Ok(seen) => seen,
            Err(Errno::AGAIN) => return Received::Empty,
            Err(Errno::INTR) => return Received::Interrupted,
            Err(_) => return Received::Failed,
        };
        if self.filled + seen.bytes == FRAME && !seen.overlong {
            Received::Frame(self.frame, seen.has_descriptors)
        } else if seen.has_descriptors || seen.overlong {
            Received::Malformed
        } else if seen.bytes == 0 && self.filled == 0 {
            // The end of a stream, or on other sockets perhaps an empty packet.
            if socket::IS_STREAM || socket::is_hung_up(fd) {
                Received::Closed
            } else {
                Received::Malformed
            }
        } else if socket::IS_STREAM && seen.bytes > 0 {
            let part = missing.get_mut(..seen.bytes).unwrap_or_default();
            match socket::take(fd, part) {
                Ok(taken) => {
                    self.filled += taken;
                    Received::Partial
                }
                Err(_) => Received::Failed,
            }
        } else {
            Received::Malformed
        }
    }

    /// Takes the frame that the last [`peek`](Self::peek) returned from the socket, with its descriptors.
    pub(super) fn take(&mut self, fd: impl AsFd, has_descriptors: bool) -> io::Result<Passed> {
        let missing = self.frame.get_mut(self.filled..).unwrap_or_default();
        let passed = if has_descriptors || !socket::PEEK_SHOWS_DESCRIPTORS {
            socket::take_with_descriptors(fd, missing)?
        } else {
            socket::take(fd, missing)?;
            Passed::Nothing
        };
        if !socket::PEEK_SHOWS_DESCRIPTORS || matches!(passed, Passed::Nothing | Passed::One(_)) {
            self.filled = 0;
        }
        Ok(passed)
    }
}

/// Sends a frame in one call. If only a part of it fits into a stream, that is an error as well.
pub(super) fn send(fd: impl AsFd, frame: &Frame, passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    socket::send(fd, frame, passed)
}
