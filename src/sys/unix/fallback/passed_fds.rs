//! Receiving descriptors, where only receiving a message shows whether it carries any.

use rustix::fd::AsFd;
use rustix::io;

use crate::sys::socket::{Passed, receive};
use crate::sys::socket_flags;

/// Whether [`peek`](crate::sys::socket::peek) reports descriptors.
pub(crate) const PEEK_SHOWS_DESCRIPTORS: bool = false;

/// How many descriptors there is space for when a message is received: no message carries more.
pub(in crate::sys) const MOST_DESCRIPTORS: usize = 253;

/// Receives bytes that [`peek`](crate::sys::socket::peek) has shown, with all of their descriptors:
/// these systems lose descriptors without space in the buffer.
pub(crate) fn take_with_descriptors(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<Passed> {
    let (mut descriptors, is_cut_off) = receive(&fd, bytes, socket_flags::CLOSE_ON_EXEC)?;
    Ok(match (descriptors.pop(), is_cut_off) {
        (None, false) => Passed::Nothing,
        (None, true) => Passed::NoRoom,
        (Some(only), false) if descriptors.is_empty() => Passed::One(only),
        (Some(last), _) => {
            descriptors.push(last);
            Passed::Several(descriptors)
        }
    })
}
