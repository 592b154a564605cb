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
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, sockopt,
};

use super::{above_stdio_quietly, socket_flags};

/// Whether frames have to be put together from their parts.
pub(crate) const IS_STREAM: bool = socket_flags::IS_STREAM;

/// How much a socket keeps for a side that does not read, in bytes. Linux makes it what it needs at
/// least for a few frames; elsewhere less than a frame would let none through.
const LITTLE: usize = if cfg!(target_os = "linux") { 1 } else { 4096 };

/// Too many descriptors of this user are on their way, unread.
#[cfg(not(target_os = "haiku"))]
pub(crate) const CROWDED: Errno = Errno::TOOMANYREFS;
/// Haiku has no word for it.
#[cfg(target_os = "haiku")]
pub(crate) const CROWDED: Errno = Errno::NOBUFS;

/// Whether [`peek`] tells of descriptors. On Linux's streams it would also tell of those that come with
/// the message behind.
pub(crate) const PEEK_SHOWS_DESCRIPTORS: bool = cfg!(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
));

/// What is at the front of a socket's queue.
pub(crate) struct Peeked {
    /// How many bytes; more than there was room for show as `overlong`.
    pub(crate) bytes: usize,
    /// Whether a packet had more bytes.
    pub(crate) overlong: bool,
    /// Whether descriptors come with them. See [`PEEK_SHOWS_DESCRIPTORS`].
    pub(crate) has_descriptors: bool,
}

/// The descriptors that came with a message.
pub(crate) enum Passed {
    /// None. The message was taken.
    Nothing,
    /// One. The message was taken.
    One(OwnedFd),
    /// Several. The message may still be in the socket, with all of them.
    Several(Vec<OwnedFd>),
    /// At least one for which this process has no room (`RLIMIT_NOFILE`). The message may still be in
    /// the socket.
    NoRoom,
}

/// Creates a non-blocking socket at the path, which must not exist.
pub(crate) fn bind(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let fd = socket_flags::socket()?;
    // Until a connection was accepted and introduced, nothing can be in it that takes long to close.
    let_pass_descriptors(&fd, false);
    net::bind(&fd, &address)?;
    Ok(fd)
}

/// Listens on a bound socket.
pub(crate) fn listen(fd: impl AsFd) -> io::Result<()> {
    /// On Linux whoever connects waits in turn if there are more. So that nobody comes after thousands
    /// of others, there are not.
    const BACKLOG: i32 = if cfg!(target_os = "linux") { 64 } else { 4096 };
    net::listen(fd, BACKLOG)
}

/// What is known of the listener at a path.
#[derive(Debug)]
pub(crate) enum Listener {
    /// There is no such file.
    Absent,
    /// There is a socket, and nobody listens.
    Dead,
    /// Somebody listens. `process` is whether the process that called `listen` still runs, if known.
    Present { process: Option<bool> },
    /// Somebody listens, on a socket of another type.
    OtherKind,
    /// Connecting has failed for another reason.
    Unknown(Errno),
}

/// Connects to find out whether somebody listens at the path.
pub(crate) fn listener_at(path: &Path) -> Listener {
    let connected = SocketAddrUnix::new(path).and_then(|address| {
        let fd = socket_flags::socket()?;
        net::connect(&fd, &address)?;
        Ok(fd)
    });
    match connected {
        Ok(fd) => {
            let process = other(&fd).ok().and_then(|other| other.process);
            Listener::Present {
                process: process.and_then(super::process_runs),
            }
        }
        Err(Errno::NOENT) => Listener::Absent,
        Err(Errno::CONNREFUSED) => Listener::Dead,
        // The backlog is full.
        Err(Errno::AGAIN | Errno::INPROGRESS) => Listener::Present { process: None },
        Err(Errno::PROTOTYPE) => Listener::OtherKind,
        Err(errno) => Listener::Unknown(errno),
    }
}

/// Accepts one connection, if there is one. Nothing waits for it.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    socket_flags::accept(listener)
}

/// Connects to who listens at the path. Connecting, sending and receiving wait that long and then fail
/// with `EAGAIN`.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let fd = socket_flags::socket()?;
    io::ioctl_fionbio(&fd, false)?;
    set_patience(&fd, patience)?;
    io::retry_on_intr(|| net::connect(&fd, &address))?;
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
    send_with(fd, bytes, passed, socket_flags::NO_SIGNAL)
}

/// The same without a descriptor, and without waiting, however patient the socket is.
pub(crate) fn send_now(fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    send_with(
        fd,
        bytes,
        None,
        socket_flags::NO_SIGNAL | SendFlags::DONTWAIT,
    )
}

fn send_with(
    fd: impl AsFd,
    bytes: &[u8],
    passed: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(passed));
    }
    match net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, flags) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        // On a stream whose other side does not read: nothing sensible can follow.
        Ok(_) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}

/// Looks at the bytes at the front of the queue, and leaves them there. No descriptor is installed. No
/// bytes: the other side has closed, or has sent an empty packet.
pub(crate) fn peek(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<Peeked> {
    let mut none = RecvAncillaryBuffer::new(&mut []);
    let message = net::recvmsg(
        fd,
        &mut [IoSliceMut::new(bytes)],
        &mut none,
        RecvFlags::PEEK,
    )?;
    Ok(Peeked {
        bytes: message.bytes,
        overlong: message.flags.contains(ReturnFlags::TRUNC),
        has_descriptors: PEEK_SHOWS_DESCRIPTORS && message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Takes bytes that [`peek`] has shown, and that have no descriptors with them.
pub(crate) fn take(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    let mut none = RecvAncillaryBuffer::new(&mut []);
    let message = net::recvmsg(
        fd,
        &mut [IoSliceMut::new(bytes)],
        &mut none,
        RecvFlags::empty(),
    )?;
    Ok(message.bytes)
}

/// Takes bytes that [`peek`] has shown, with their descriptor.
///
/// To close a descriptor can take as long as whoever made it likes, and the kernel closes those for
/// which there is no room in the buffer on the thread that receives. So the message is looked at once
/// more, with room for one descriptor. If that is the only one, the message is taken: what the kernel
/// closes then is not the last reference. Otherwise the message stays where it is.
#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
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

/// Takes bytes that [`peek`] has shown, with all of their descriptors: systems other than Linux lose
/// those for which there is no room in the buffer.
#[cfg(not(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
)))]
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

/// How many descriptors [`receive`] has room for: no message carries more elsewhere.
const MOST_DESCRIPTORS: usize = if PEEK_SHOWS_DESCRIPTORS { 1 } else { 253 };

/// Receives with descriptors. Whether some are missing.
fn receive(fd: impl AsFd, bytes: &mut [u8], flags: RecvFlags) -> io::Result<(Vec<OwnedFd>, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = net::recvmsg(fd, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
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
    if socket_flags::CLOSE_ON_EXEC.is_empty() {
        for fd in &descriptors {
            io::fcntl_setfd(fd, io::FdFlags::CLOEXEC)?;
        }
    }
    Ok((descriptors, lost_descriptors))
}

/// Whether whoever is on the other side of the socket, or of one that is accepted from it later, may
/// send descriptors (`SO_PASSRIGHTS`, Linux 6.16). Returns whether the system can do that.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn let_pass_descriptors(fd: impl AsFd, may: bool) -> bool {
    use rustix::fd::AsRawFd;
    const SO_PASSRIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64"))
    {
        0x5c
    } else {
        83
    };
    let may = libc::c_int::from(may);
    let len = libc::socklen_t::try_from(size_of_val(&may)).unwrap_or(0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is valid for reads of `len` bytes.
    unsafe {
        libc::setsockopt(
            number,
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const may).cast(),
            len,
        ) == 0
    }
}

/// Elsewhere whoever can send can send descriptors.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn let_pass_descriptors(_fd: impl AsFd, _may: bool) -> bool {
    false
}

/// Whether nothing is left in a socket that was shut down.
pub(crate) fn is_drained(fd: impl AsFd) -> bool {
    let nothing = peek(fd, &mut [0]);
    nothing.is_ok_and(|seen| seen.bytes == 0 && !seen.has_descriptors)
}

/// Whether there is nothing to read at the moment.
pub(crate) fn is_silent(fd: impl AsFd) -> bool {
    let mut alone = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut alone, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
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

/// Whether [`other`] tells the process.
pub(crate) const TELLS_PROCESSES: bool = cfg!(any(
    target_os = "android",
    target_os = "linux",
    target_vendor = "apple"
));

/// Which process is on the other side (`LOCAL_PEERPID`).
#[cfg(target_vendor = "apple")]
fn process_of(fd: BorrowedFd<'_>) -> Option<u32> {
    use rustix::fd::AsRawFd;
    let mut process: libc::pid_t = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::pid_t>()).unwrap_or(0);
    // SAFETY: the pointers are valid for the write of `len` bytes and of the length.
    let asked = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut process).cast(),
            &raw mut len,
        )
    };
    u32::try_from(process)
        .ok()
        .filter(|&process| asked == 0 && process != 0)
}

/// It is not told.
#[cfg(any(
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
fn process_of(_fd: BorrowedFd<'_>) -> Option<u32> {
    None
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
            process: process_of(fd.as_fd()),
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
