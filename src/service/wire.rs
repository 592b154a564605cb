//! Frames through sockets, with at most one descriptor each. Knows nothing of what they mean.

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};

use super::protocol::{FRAME, Frame};
use crate::sys::socket;

/// What has come.
pub(super) enum Arrival {
    /// A whole frame, with these descriptors.
    Frame(Frame, Parcel),
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
    /// Something that is no frame.
    Rubbish(Parcel),
}

/// Descriptors that came with a frame.
#[derive(Default)]
pub(super) struct Parcel {
    pub(super) descriptors: Vec<OwnedFd>,
    /// Whether there were more than this process may open.
    pub(super) lost: bool,
}

/// Puts frames together.
#[derive(Debug)]
pub(super) struct Assembly {
    frame: Frame,
    /// How many bytes of it have come. On a socket that keeps packets apart this is 0 between two
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

    /// Receives once.
    pub(super) fn receive(&mut self, fd: impl AsFd) -> Arrival {
        let room = self.frame.get_mut(self.have..).unwrap_or_default();
        let received = match socket::receive(fd, room) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Arrival::Nothing,
            Err(Errno::INTR) => return Arrival::Interrupted,
            Err(_) => return Arrival::Broken,
        };
        let parcel = Parcel {
            descriptors: received.descriptors,
            lost: received.lost_descriptors,
        };
        let nothing_with_it = parcel.descriptors.is_empty() && !parcel.lost;
        self.have += received.bytes;
        if self.have == FRAME && !received.overlong {
            self.have = 0;
            Arrival::Frame(self.frame, parcel)
        } else if received.bytes == 0 && self.have == 0 && nothing_with_it {
            Arrival::End
        } else if socket::IS_STREAM && received.bytes > 0 && nothing_with_it {
            Arrival::Part
        } else {
            Arrival::Rubbish(parcel)
        }
    }
}

/// Sends a frame at once or not at all.
pub(super) fn send(fd: impl AsFd, frame: &Frame, passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    socket::send(fd, frame, passed)
}
