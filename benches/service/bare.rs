//! The least that a service can do, and its client: no ids, no credentials, no limits, no deadlines,
//! no checks; and for every request one call to send and one to receive on each side.
//!
//! They are written for programs that trust each other and run where everything goes well: what
//! fails ends the row, and what has been made by then ends with the process.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::LazyLock;

use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::Result;
use crate::life::{Life, SIZE};

/// What is said: an operation and the number of a segment. A reply repeats the operation.
type Message = [u64; 2];

/// Keep the descriptor that comes with this. The reply has the number.
const REGISTER: u64 = 0;
/// Send me the descriptor.
const OPEN: u64 = 1;
/// I do not need it any more. Has no reply.
const RELEASE: u64 = 2;

/// Serves at this path until the standard input ends. Calls `ready` as soon as clients can connect.
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
                return Err("an event of nobody".into());
            };
            let Some(fd) = client.as_ref() else {
                continue;
            };
            match receive(fd)? {
                Some((message, passed)) => segments.serve(fd, message, passed)?,
                // Closing ends the watch as well.
                None => *client = None,
            }
        }
    }
}

/// What the server keeps.
#[derive(Default)]
struct Segments {
    kept: Vec<Option<Kept>>,
    free: Vec<usize>,
}

struct Kept {
    fd: OwnedFd,
    holders: usize,
}

impl Segments {
    fn serve(&mut self, client: &OwnedFd, message: Message, passed: Option<OwnedFd>) -> Result {
        let [operation, number] = message;
        if let Some(fd) = passed {
            let place = self.free.pop().unwrap_or_else(|| {
                self.kept.push(None);
                self.kept.len() - 1
            });
            self.kept[place] = Some(Kept { fd, holders: 1 });
            return send(client, [REGISTER, place as u64], None);
        }
        let place = usize::try_from(number)?;
        let entry = self.kept.get_mut(place).ok_or("no such segment")?;
        let kept = entry.as_mut().ok_or("no such segment any more")?;
        if operation == OPEN {
            kept.holders += 1;
            return send(client, message, Some(kept.fd.as_fd()));
        }
        kept.holders -= 1;
        if kept.holders == 0 {
            *entry = None;
            self.free.push(place);
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
    base: *mut c_void,
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
        let fd = memory()?;
        let base = map(&fd)?;
        send(&self.creating, [REGISTER, 0], Some(fd.as_fd()))?;
        let ([_, number], _) = receive(&self.creating)?.ok_or("the bare server has ended")?;
        Ok(Hold { number, base, fd })
    }

    fn attach(&mut self, created: &Hold) -> Result<Hold> {
        send(&self.attaching, [OPEN, created.number], None)?;
        let reply = receive(&self.attaching)?.ok_or("the bare server has ended")?;
        let ([_, number], Some(fd)) = reply else {
            return Err("no descriptor came back".into());
        };
        let base = map(&fd)?;
        Ok(Hold { number, base, fd })
    }

    fn release(&mut self, created: Hold, attached: Hold) -> Result {
        for (client, hold) in [(&self.attaching, attached), (&self.creating, created)] {
            // SAFETY: mapped with this size by who made the hold, and nothing refers to it.
            unsafe { mm::munmap(hold.base, SIZE) }?;
            drop(hold.fd);
            send(client, [RELEASE, hold.number], None)?;
        }
        Ok(())
    }
}

/// A sealed memfd.
fn memory() -> Result<OwnedFd> {
    const OLD: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);
    // Since Linux 6.3.
    static FLAGS: LazyLock<MemfdFlags> = LazyLock::new(|| {
        let new = OLD | MemfdFlags::NOEXEC_SEAL;
        fs::memfd_create("shmem-probe", new).map_or(OLD, |_| new)
    });

    let fd = fs::memfd_create(c"shmem-bare", *FLAGS)?;
    fs::ftruncate(&fd, SIZE as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

fn map(fd: &OwnedFd) -> Result<*mut c_void> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    Ok(unsafe { mm::mmap(null_mut(), SIZE, prot, MapFlags::SHARED, fd, 0) }?)
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

/// What the other side has sent, or `None` if it has closed.
fn receive(fd: &OwnedFd) -> Result<Option<(Message, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [[0; 8]; 2];
    let mut parts = [IoSliceMut::new(bytes.as_flattened_mut())];
    let received = match net::recvmsg(fd, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
        // It was killed with something unread.
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
