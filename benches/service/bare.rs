//! The least that a service can do, and its client: no ids, no credentials, no limits, no deadlines,
//! no checks; and for every request one call to send and one to receive on each side.
//!
//! Server and client trust each other. An error ends the row, and what exists by then ends with the process.

use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;

use bench::raw::{self, Pages};
use bench::{Result, SIZE};
use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::life::Life;

/// An operation and the number of a segment. A reply repeats the operation.
type Message = [u64; 2];

/// Asks the server to keep the descriptor that comes with this. The reply has the number.
const REGISTER: u64 = 0;
/// Asks for the descriptor.
const OPEN: u64 = 1;
/// Ends the hold of the client. Has no reply.
const RELEASE: u64 = 2;

/// Serves at this path until the standard input ends. Calls `ready` when clients can connect.
pub(crate) fn serve(path: &Path, ready: impl FnOnce()) -> Result {
    const STOP: u64 = 0;
    const LISTENER: u64 = 1;
    const FIRST_CLIENT: u64 = 2;

    let listener = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    net::listen(&listener, 64)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |fd: BorrowedFd<'_>, key| {
        let key = epoll::EventData::new_u64(key);
        epoll::add(&epoll, fd, key, epoll::EventFlags::IN)
    };
    watch(std::io::stdin().as_fd(), STOP)?;
    watch(listener.as_fd(), LISTENER)?;
    ready();

    let mut clients: Vec<Option<OwnedFd>> = Vec::new();
    let mut segments = Segments::default();
    loop {
        let mut events = [MaybeUninit::uninit(); 64];
        let (events, _) = match epoll::wait(&epoll, &mut events, None) {
            Err(Errno::INTR) => continue,
            waited => waited?,
        };
        for event in events {
            let key = match event.data.u64() {
                STOP => return Ok(()),
                LISTENER => {
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    let client = net::accept_with(&listener, flags)?;
                    watch(client.as_fd(), FIRST_CLIENT + clients.len() as u64)?;
                    clients.push(Some(client));
                    continue;
                }
                client => usize::try_from(client - FIRST_CLIENT)?,
            };
            let Some(client) = clients.get_mut(key) else {
                return Err("an event without a client".into());
            };
            let Some(fd) = client.as_ref() else {
                continue;
            };
            match receive(fd)? {
                Some((message, passed)) => segments.serve(fd, message, passed)?,
                // Closing the descriptor also removes it from epoll.
                None => *client = None,
            }
        }
    }
}

/// The segments that clients hold.
#[derive(Default)]
struct Segments {
    stored: Vec<Option<StoredSegment>>,
    free: Vec<usize>,
}

struct StoredSegment {
    fd: OwnedFd,
    holders: usize,
}

impl Segments {
    fn serve(&mut self, client: &OwnedFd, message: Message, passed: Option<OwnedFd>) -> Result {
        let [operation, number] = message;
        if let Some(fd) = passed {
            let index = self.free.pop().unwrap_or_else(|| {
                self.stored.push(None);
                self.stored.len() - 1
            });
            self.stored[index] = Some(StoredSegment { fd, holders: 1 });
            return send(client, [REGISTER, index as u64], None);
        }
        let index = usize::try_from(number)?;
        let entry = self.stored.get_mut(index).ok_or("no such segment")?;
        let segment = entry.as_mut().ok_or("the segment was released")?;
        if operation == OPEN {
            segment.holders += 1;
            return send(client, message, Some(segment.fd.as_fd()));
        }
        segment.holders -= 1;
        if segment.holders == 0 {
            *entry = None;
            self.free.push(index);
        }
        Ok(())
    }
}

/// Two clients of the server.
pub(crate) struct Bare {
    creating: OwnedFd,
    attaching: OwnedFd,
}

/// A segment, mapped.
pub(crate) struct Hold {
    number: u64,
    pages: Pages,
    fd: OwnedFd,
}

impl Bare {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let connect = || -> Result<OwnedFd> {
            let fd = socket(SocketFlags::CLOEXEC)?;
            net::connect(&fd, &SocketAddrUnix::new(path)?)?;
            Ok(fd)
        };
        Ok(Self {
            creating: connect()?,
            attaching: connect()?,
        })
    }
}

impl Life for Bare {
    type Hold = Hold;

    fn create(&mut self) -> Result<Hold> {
        let fd = raw::memfd(c"shmem-bare", SIZE)?;
        let pages = Pages::shared(&fd, SIZE)?;
        send(&self.creating, [REGISTER, 0], Some(fd.as_fd()))?;
        let ([_, number], _) = receive(&self.creating)?.ok_or("the bare server has ended")?;
        Ok(Hold { number, pages, fd })
    }

    fn attach(&mut self, created: &Hold) -> Result<Hold> {
        send(&self.attaching, [OPEN, created.number], None)?;
        let reply = receive(&self.attaching)?.ok_or("the bare server has ended")?;
        let ([_, number], Some(fd)) = reply else {
            return Err("the reply has no descriptor".into());
        };
        let pages = Pages::shared(&fd, SIZE)?;
        Ok(Hold { number, pages, fd })
    }

    fn release(&mut self, created: Hold, attached: Hold) -> Result {
        for (client, hold) in [(&self.attaching, attached), (&self.creating, created)] {
            drop(hold.pages);
            drop(hold.fd);
            send(client, [RELEASE, hold.number], None)?;
        }
        Ok(())
    }
}

fn socket(flags: SocketFlags) -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(net::socket_with(family, kind, flags, None)?)
}

fn send(fd: &OwnedFd, message: Message, passed: Option<BorrowedFd<'_>>) -> Result {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(passed));
    }
    let [operation, number] = message.map(u64::to_ne_bytes);
    let bytes = [operation, number];
    let parts = [IoSlice::new(bytes.as_flattened())];
    net::sendmsg(fd, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Returns a message of the peer, or `None` if it has closed the connection.
fn receive(fd: &OwnedFd) -> Result<Option<(Message, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [[0; 8]; 2];
    let mut parts = [IoSliceMut::new(bytes.as_flattened_mut())];
    let received = match net::recvmsg(fd, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
        // The peer was killed before it had read everything.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let mut passed = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = part {
            passed = fds.next();
        }
    }
    let message = bytes.map(u64::from_ne_bytes);
    Ok((received.bytes > 0).then_some((message, passed)))
}
