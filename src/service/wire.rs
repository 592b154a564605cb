//! Frames through sockets, with at most one descriptor each. Knows nothing of what they mean.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{self, Errno};

use super::protocol::{FRAME, Frame};
use crate::sys::socket::{self, Passed};

/// What has come.
pub(super) enum Arrival {
    /// A whole frame, and whether descriptors come with it. It is still in the socket.
    Frame(Frame, bool),
    /// A part of one: the rest is awaited.
    Part,
    /// Nothing: try again when the socket can be read.
    Nothing,
    /// A signal, and nothing.
    Interrupted,
    /// The other side has closed, and everything it sent was read.
    End,
    /// The socket has failed.
    Broken,
    /// Something that is no frame. It is still in the socket.
    Invalid,
}

/// Puts frames together.
#[derive(Debug)]
pub(super) struct Assembly {
    frame: Frame,
    /// How many bytes of it have been taken. On a socket that keeps packets apart this is 0 between two
    /// calls.
    have: usize,
}

impl Assembly {
    pub(super) const fn new() -> Self {
        Self {
            frame: [0; FRAME],
            have: 0,
        }
    }

    /// Whether no part of a frame was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.have == 0
    }

    /// Looks at what there is. Only parts of frames are taken, without descriptors.
    pub(super) fn look(&mut self, fd: impl AsFd) -> Arrival {
        let room = self.frame.get_mut(self.have..).unwrap_or_default();
        let seen = match socket::peek(&fd, room) {
            Ok(seen) => seen,
            Err(Errno::AGAIN) => return Arrival::Nothing,
            Err(Errno::INTR) => return Arrival::Interrupted,
            Err(_) => return Arrival::Broken,
        };
        if self.have + seen.bytes == FRAME && !seen.overlong {
            Arrival::Frame(self.frame, seen.has_descriptors)
        } else if seen.has_descriptors || seen.overlong {
            Arrival::Invalid
        } else if seen.bytes == 0 && self.have == 0 {
            // A packet can be empty.
            if socket::IS_STREAM || socket::is_hung_up(fd) {
                Arrival::End
            } else {
                Arrival::Invalid
            }
        } else if socket::IS_STREAM && seen.bytes > 0 {
            let part = room.get_mut(..seen.bytes).unwrap_or_default();
            match socket::take(fd, part) {
                Ok(taken) => {
                    self.have += taken;
                    Arrival::Part
                }
                Err(_) => Arrival::Broken,
            }
        } else {
            Arrival::Invalid
        }
    }

    /// Takes the frame that was seen last, with what came with it, if it has descriptors.
    pub(super) fn take(&mut self, fd: impl AsFd, has_descriptors: bool) -> io::Result<Passed> {
        let room = self.frame.get_mut(self.have..).unwrap_or_default();
        let passed = if has_descriptors || !socket::PEEK_SHOWS_DESCRIPTORS {
            socket::take_with_descriptors(fd, room)?
        } else {
            socket::take(fd, room)?;
            Passed::Nothing
        };
        if !socket::PEEK_SHOWS_DESCRIPTORS || matches!(passed, Passed::Nothing | Passed::One(_)) {
            self.have = 0;
        }
        Ok(passed)
    }
}

/// Sends a frame at once or not at all.
pub(super) fn send(fd: impl AsFd, frame: &Frame, passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    socket::send(fd, frame, passed)
}
