//! A client that keeps to no rules: sockets and frames made by hand, from the table in
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

pub(crate) const DONE: u8 = 0;
pub(crate) const UNKNOWN: u8 = 1;
pub(crate) const TAKEN: u8 = 2;
pub(crate) const FULL: u8 = 3;
pub(crate) const BAD_DESCRIPTOR: u8 = 4;
pub(crate) const BUSY: u8 = 5;

/// Whether frames follow each other without borders, as by Apple's rules.
pub(crate) const IS_STREAM: bool = cfg!(shmem_apple_rules);

/// The bytes of a request.
pub(crate) fn frame(opcode: u8, size: u64, id: &str) -> [u8; 40] {
    let mut frame = [0; 40];
    frame[..8].copy_from_slice(&[1, opcode, 0, 0, 7, 0, 0, 0]);
    frame[8..16].copy_from_slice(&size.to_le_bytes());
    frame[16..16 + id.len()].copy_from_slice(id.as_bytes());
    frame
}

/// An id of a served segment, with this number in it.
pub(crate) fn id(number: u32) -> String {
    format!("sattack{number:012}")
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Raw {
    socket: OwnedFd,
}

/// What has come.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Raw {
    /// Connects, and says nothing.
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

    /// One that was accepted.
    pub(crate) fn of(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Connects, and is taken for an honest client.
    pub(crate) fn introduced(address: &Path) -> io::Result<Self> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let raw = Self::connect(address)?;
            let verdict = raw.ask(&frame(HELLO, 0, ""), &[]);
            if verdict == Ok(Some(DONE)) {
                return Ok(raw);
            }
            // While much is still to be closed that this process has sent, it is turned away.
            assert!(Instant::now() < end, "{verdict:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects, and sends this without an introduction.
    pub(crate) fn sent(
        address: &Path,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let raw = Self::connect(address)?;
            match raw.send(bytes, descriptors) {
                // As in `introduced`: it was turned away before it could say anything.
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

    /// The same, if it can be done at once.
    pub(crate) fn send_now(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_over(&self.socket, bytes, descriptors)
    }

    /// The next packet, or `None` if the service has let go of this connection.
    pub(crate) fn receive(&self) -> io::Result<Option<Heard>> {
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
            "a longer reply"
        );
        bytes.truncate(message.bytes);
        Ok((message.bytes > 0).then_some(Heard { bytes, descriptors }))
    }

    /// Sends a request and returns the verdict, or `None` if the service has let go of this
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
        let heard = self.receive()?;
        Ok(heard.map(|heard| {
            assert_eq!(heard.bytes.len(), 40);
            assert_eq!(heard.bytes[..2], [1, request[1] | 0x80]);
            // Who is turned away has not been heard.
            let turned_away = request[1] == HELLO && [FULL, BUSY].contains(&heard.bytes[2]);
            assert!(heard.bytes[4..8] == request[4..8] || turned_away);
            let is_due = request[1] == OPEN && heard.bytes[2] == DONE;
            assert_eq!(heard.descriptors.len(), usize::from(is_due));
            heard.bytes[2]
        }))
    }

    /// Waits until the service lets go of this connection, and says nothing more.
    pub(crate) fn is_let_go(&self) -> io::Result<bool> {
        match self.receive() {
            Ok(None) => Ok(true),
            Ok(Some(_)) | Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Sends these bytes as one packet, if that can be done at once.
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
