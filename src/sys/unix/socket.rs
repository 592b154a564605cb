//! Unix sockets that pass descriptors, and who is on their other side.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::time::Duration;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SocketAddrUnix, sockopt,
};

use super::{above_stdio_quietly, calls};

/// The most descriptors that one message carries (`SCM_MAX_FD` on Linux; nowhere more).
///
/// There is room for all of them, so that the kernel need not drop any: closing a descriptor can
/// take as long as whoever sent it likes, and whoever receives should choose where that is done.
const MOST_DESCRIPTORS: usize = 253;

/// Whether frames have to be put together from their parts.
pub(crate) const IS_STREAM: bool = calls::IS_STREAM;

/// How much a socket keeps for a side that does not read, in bytes. Linux makes it what it needs at
/// least for a few frames; elsewhere less than a frame would let none through.
const LITTLE: usize = if cfg!(target_os = "linux") { 1 } else { 4096 };

/// Too many descriptors of this user are on their way, unread.
#[cfg(not(target_os = "haiku"))]
pub(crate) const CROWDED: Errno = Errno::TOOMANYREFS;
/// Haiku has no word for it.
#[cfg(target_os = "haiku")]
pub(crate) const CROWDED: Errno = Errno::NOBUFS;

/// What one call has received.
pub(crate) struct Received {
    /// How many bytes; more than there was room for show as `overlong`.
    pub(crate) bytes: usize,
    /// Whether a packet had more bytes.
    pub(crate) overlong: bool,
    /// Whether there were more descriptors than this process may open.
    pub(crate) lost_descriptors: bool,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Listens at the path, which must not exist. Nothing waits when it accepts.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    const BACKLOG: i32 = 4096;
    let address = SocketAddrUnix::new(path)?;
    let fd = calls::socket()?;
    net::bind(&fd, &address)?;
    net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Accepts one connection, if there is one. Nothing waits for it.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    calls::accept(listener)
}

/// Connects to who listens at the path. Sending and receiving wait that long and then fail with
/// `EAGAIN`; connecting does not wait.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let fd = calls::socket()?;
    net::connect(&fd, &address)?;
    io::ioctl_fionbio(&fd, false)?;
    set_patience(&fd, patience)?;
    Ok(fd)
}

/// How long sending and receiving wait until they fail with `EAGAIN`.
pub(crate) fn set_patience(fd: impl AsFd, patience: Duration) -> io::Result<()> {
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(patience))?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(patience))
}

/// Makes the kernel keep no more than a few unread messages for the other side.
pub(crate) fn keep_little_unread(fd: impl AsFd) {
    // Where it cannot be changed, it stays what it is.
    let _ = sockopt::set_socket_send_buffer_size(fd, LITTLE);
}

/// Sends all bytes at once, with the descriptor.
pub(crate) fn send(fd: impl AsFd, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(passed));
    }
    match net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, calls::NO_SIGNAL) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        // On a stream whose other side does not read.
        Ok(_) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}

/// Receives what there is, with all descriptors. No bytes: the other side has closed.
pub(crate) fn receive(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = net::recvmsg(
        fd,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        calls::CLOSE_ON_EXEC,
    )?;
    let mut descriptors = Vec::new();
    let mut lost_descriptors = message.flags.contains(ReturnFlags::CTRUNC);
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            for fd in received {
                match above_stdio_quietly(fd) {
                    Ok(fd) => descriptors.push(fd),
                    Err(_) => lost_descriptors = true,
                }
            }
        }
    }
    if calls::CLOSE_ON_EXEC.is_empty() {
        for fd in &descriptors {
            io::fcntl_setfd(fd, io::FdFlags::CLOEXEC)?;
        }
    }
    Ok(Received {
        bytes: message.bytes,
        overlong: message.flags.contains(ReturnFlags::TRUNC),
        lost_descriptors,
        descriptors,
    })
}

/// Ends the connection for the other side, while the descriptor may stay open here.
pub(crate) fn shut_down(fd: impl AsFd) {
    // It fails if the other side has done so.
    let _ = net::shutdown(fd, net::Shutdown::Both);
}

/// Who is on the other side: when it connected, or when it began to listen.
pub(crate) struct Other {
    /// Its effective user id.
    pub(crate) user: u32,
    /// The number of the process. `None` where the system does not tell it, or where it has none
    /// here because it is in another pid namespace.
    pub(crate) process: Option<u32>,
}

/// Asks who is on the other side (`SO_PEERCRED`, `unix(7)`).
///
/// By hand: rustix keeps the number of the process as one that is not 0, and the kernel says 0 for a
/// process of a pid namespace that is not seen from here.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn other(fd: impl AsFd) -> io::Result<Other> {
    use rustix::fd::AsRawFd;
    let mut found = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointers are valid for the write of `len` bytes and of the length.
    let asked = unsafe {
        libc::getsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            found.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if asked != 0 {
        return Err(super::last_errno());
    }
    // SAFETY: it was zeroed, and any bytes are a value of it.
    let found = unsafe { found.assume_init() };
    Ok(Other {
        user: found.uid,
        process: u32::try_from(found.pid).ok().filter(|&pid| pid != 0),
    })
}

/// Asks who is on the other side (`getpeereid(3)`).
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub(crate) fn other(fd: impl AsFd) -> io::Result<Other> {
    use rustix::fd::AsRawFd;
    let (mut user, mut group) = (0, 0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: both pointers are valid for the write of an id.
    match unsafe { libc::getpeereid(number, &raw mut user, &raw mut group) } {
        0 => Ok(Other {
            user,
            process: None,
        }),
        _ => Err(super::last_errno()),
    }
}

/// Asks who is on the other side (`getpeerucred(3C)`).
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
pub(crate) fn other(fd: impl AsFd) -> io::Result<Other> {
    use rustix::fd::AsRawFd;
    let mut facts = core::ptr::null_mut();
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is null, so that room is made, and valid for the write of where.
    if unsafe { libc::getpeerucred(number, &raw mut facts) } != 0 {
        return Err(super::last_errno());
    }
    // SAFETY: it was filled in just now.
    let user = unsafe { libc::ucred_geteuid(facts) };
    // SAFETY: it is ours, and nobody refers to it any more.
    unsafe { libc::ucred_free(facts) };
    match user {
        libc::uid_t::MAX => Err(Errno::NOTSUP),
        user => Ok(Other {
            user,
            process: None,
        }),
    }
}

/// Elsewhere it is not asked, so nobody is believed.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "linux",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "solaris"
)))]
pub(crate) fn other(_fd: impl AsFd) -> io::Result<Other> {
    Err(Errno::NOTSUP)
}

/// Whether the other side has hung up by now.
pub(crate) fn is_hung_up(connection: impl AsFd) -> bool {
    let mut alone = [PollFd::new(&connection, PollFlags::HUP)];
    poll(&mut alone, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// What [`hung_up`] has waited for.
pub(crate) struct Happened {
    pub(crate) hung_up: bool,
    pub(crate) woken: bool,
}

/// Waits until `connection` has hung up or `wake` can be read. Data on the connection do not count.
pub(crate) fn hung_up(
    connection: Option<BorrowedFd<'_>>,
    wake: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<Happened> {
    let wake = PollFd::from_borrowed_fd(wake, PollFlags::IN);
    let timeout = super::watch::timespec(timeout);
    let Some(connection) = connection else {
        let mut alone = [wake];
        poll(&mut alone, timeout.as_ref())?;
        let [wake] = alone;
        return Ok(Happened {
            hung_up: false,
            woken: !wake.revents().is_empty(),
        });
    };
    let connection = PollFd::from_borrowed_fd(connection, PollFlags::HUP);
    let mut both = [wake, connection];
    poll(&mut both, timeout.as_ref())?;
    let [wake, connection] = both;
    Ok(Happened {
        hung_up: !connection.revents().is_empty(),
        woken: !wake.revents().is_empty(),
    })
}
