//! Receiving descriptors, where peeking at a message shows whether it carries any.

use rustix::fd::AsFd;
use rustix::io;
use rustix::net::RecvFlags;

use crate::sys::socket::{Passed, receive, take};
use crate::sys::socket_flags;

/// Whether [`peek`](crate::sys::socket::peek) reports descriptors. (On Linux's stream sockets it
/// would also report those of the next message, so this is not done with `shmem_apple_rules`.)
pub(crate) const PEEK_SHOWS_DESCRIPTORS: bool = true;

/// How many descriptors there is space for when a message is received.
pub(in crate::sys) const MOST_DESCRIPTORS: usize = 1;

/// Receives bytes that [`peek`](crate::sys::socket::peek) has shown, with their descriptor.
///
/// Closing a descriptor can block for as long as its creator likes, and the kernel closes
/// descriptors without space in the buffer on the thread that receives them. So the message is
/// peeked at again, with space for one descriptor. If it carries no other, the message is received:
/// what the kernel closes then is not the last reference. Otherwise the message stays in the
/// socket.
pub(crate) fn take_with_descriptors(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<Passed> {
    let (mut descriptors, is_cut_off) =
        receive(&fd, bytes, socket_flags::CLOSE_ON_EXEC | RecvFlags::PEEK)?;
    if is_cut_off || descriptors.len() > 1 {
        return Ok(if descriptors.is_empty() {
            Passed::NoRoom
        } else {
            Passed::Several(descriptors)
        });
    }
    take(fd, bytes)?;
    Ok(descriptors.pop().map_or(Passed::Nothing, Passed::One))
}
