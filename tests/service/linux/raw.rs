//! A client that follows no rules: it builds sockets and frames by hand, from the table in
//! `src/service/protocol.rs`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

pub(crate) const HELLO: u8 = 1;
pub(crate) const REGISTER: u8 = 2;
pub(crate) const OPEN: u8 = 3;
pub(crate) const RELEASE: u8 = 4;
pub(crate) const FORK: u8 = 5;
pub(crate) const CREATE: u8 = 6;
pub(crate) const LOCK: u8 = 7;
pub(crate) const RELOCK: u8 = 8;
pub(crate) const UNLOCK: u8 = 9;
pub(crate) const QUERY: u8 = 10;
pub(crate) const LIFE: u8 = 11;
pub(crate) const SETTLE: u8 = 12;

pub(crate) const DONE: u8 = 0;
pub(crate) const UNKNOWN: u8 = 1;
pub(crate) const TAKEN: u8 = 2;
pub(crate) const FULL: u8 = 3;
pub(crate) const BAD_DESCRIPTOR: u8 = 4;
pub(crate) const BUSY: u8 = 5;
pub(crate) const UNSETTLED: u8 = 6;

/// Frames have no boundaries, as with Apple's rules.
pub(crate) const IS_STREAM: bool = cfg!(shmem_apple_rules);

/// Returns the bytes of a request.
pub(crate) fn frame(opcode: u8, size: u64, id: &str) -> [u8; 40] {
    let mut frame = [0; 40];
    frame[..8].copy_from_slice(&[1, opcode, 0, 0, 7, 0, 0, 0]);
    frame[8..16].copy_from_slice(&size.to_le_bytes());
    frame[16..16 + id.len()].copy_from_slice(id.as_bytes());
    frame
}

/// Returns an id of a served segment that contains this number.
pub(crate) fn id(number: u32) -> String {
    format!("sattack{number:012}")
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Raw {
    socket: OwnedFd,
}

/// A packet and its descriptors.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Raw {
    /// Connects and sends nothing.
    pub(crate) fn connect(address: &Path) -> io::Result<Self> {
        let socket = net::socket_with(
            AddressFamily::UNIX,
            if IS_STREAM {
                SocketType::STREAM
            } else {
                SocketType::SEQPACKET
            },
            SocketFlags::CLOEXEC,
            None,
        )?;
        net::connect(&socket, &SocketAddrUnix::new(address)?)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(30)))?;
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_secs(30)))?;
        Ok(Self { socket })
    }

    /// Takes a connection that was accepted.
    pub(crate) fn of(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Connects and introduces itself, as an honest client does.
    pub(crate) fn introduced(address: &Path) -> io::Result<Self> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let raw = Self::connect(address)?;
            let status = raw.ask(&frame(HELLO, 0, ""), &[]);
            if status == Ok(Some(DONE)) {
                return Ok(raw);
            }
            // The service rejects this process while it is closing many descriptors of it.
            assert!(Instant::now() < end, "{status:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects and sends these bytes without an introduction.
    pub(crate) fn sent(
        address: &Path,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let raw = Self::connect(address)?;
            match raw.send(bytes, descriptors) {
                // As in `introduced`: the service closed the connection before it received anything.
                Err(Errno::PIPE | Errno::CONNRESET) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(1));
                }
                sent => return sent.map(|()| raw),
            }
        }
    }

    /// Sends these bytes as one packet.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_with(&self.socket, bytes, descriptors, SendFlags::NOSIGNAL)
    }

    /// The same, if that does not block.
    pub(crate) fn send_now(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_over(&self.socket, bytes, descriptors)
    }

    /// Returns the next packet, or `None` if the service has closed this connection.
    pub(crate) fn receive(&self) -> io::Result<Option<Received>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = vec![0; 40];
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let message =
            match net::recvmsg(&self.socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => message,
                Err(Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(errno),
            };
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        assert!(
            !message.flags.contains(ReturnFlags::TRUNC),
            "the reply is too long"
        );
        bytes.truncate(message.bytes);
        Ok((message.bytes > 0).then_some(Received { bytes, descriptors }))
    }

    /// Sends a request and returns the status of the reply, or `None` if the service has closed this
    /// connection.
    pub(crate) fn ask(
        &self,
        request: &[u8; 40],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<u8>> {
        match self.send(request, descriptors) {
            Ok(()) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        let reply = self.receive()?;
        Ok(reply.map(|reply| {
            assert_eq!(reply.bytes.len(), 40);
            assert_eq!(reply.bytes[..2], [1, request[1] | 0x80]);
            // The service rejects a client before it has read the request.
            let is_rejected = request[1] == HELLO && [FULL, BUSY].contains(&reply.bytes[2]);
            assert!(reply.bytes[4..8] == request[4..8] || is_rejected);
            let is_due = [OPEN, LIFE].contains(&request[1]) && reply.bytes[2] == DONE;
            assert_eq!(reply.descriptors.len(), usize::from(is_due));
            reply.bytes[2]
        }))
    }

    /// Returns `true` once the service has closed this connection, without another reply.
    pub(crate) fn is_closed(&self) -> io::Result<bool> {
        match self.receive() {
            Ok(None) => Ok(true),
            Ok(Some(_)) | Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Sends these bytes as one packet, if that does not block.
pub(crate) fn send_over(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    send_with(socket, bytes, descriptors, flags)
}

fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}
