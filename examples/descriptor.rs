//! Sends a segment as a descriptor through a Unix socket, to a process that needs no id.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use shmem_providers::{MemfdShMemProvider, ShMemProvider};
    use std::io::{IoSlice, IoSliceMut, stdin};
    use std::os::{fd::AsFd, fd::OwnedFd, unix::net::UnixStream};

    let mut provider = MemfdShMemProvider::new()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    if std::env::args().nth(1).as_deref() == Some("receiver") {
        let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        recvmsg(stdin(), bytes, &mut control, RecvFlags::empty())?;
        if let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() {
            // Whatever was sent, only a segment of this user is mapped.
            let segment = provider.shmem_from_fd(fds.next().ok_or("nothing was sent")?)?;
            println!("received: {}", String::from_utf8_lossy(&segment));
        }
        return Ok(());
    }
    let segment = provider.shmem_from_bytes(b"a picture")?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("receiver").stdin(OwnedFd::from(theirs));
    let mut receiver = command.spawn()?;
    let (mut control, fds) = (SendAncillaryBuffer::new(&mut space), [segment.as_fd()]);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = [IoSlice::new(b"!")];
    sendmsg(ours, &bytes, &mut control, SendFlags::empty())?;
    receiver.wait().map(drop).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn main() {}
