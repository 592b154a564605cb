//! Receives a segment as a descriptor in a task of `tokio`, without blocking its thread.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider};
    use std::io::{self, IoSlice, IoSliceMut};
    use std::os::fd::{AsFd, OwnedFd};
    use std::{mem::MaybeUninit, thread};
    use tokio::io::Interest;

    let mut provider = MemfdShMemProvider::new()?;
    let (sender, receiver) = std::os::unix::net::UnixStream::pair()?;
    let sending = thread::spawn(move || -> Result<(), shmem_providers::Error> {
        let segment = MemfdShMemProvider::new()?.shmem_from_bytes(b"a picture")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, fds) = (SendAncillaryBuffer::new(&mut space), [segment.as_fd()]);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let bytes = [IoSlice::new(b"!")];
        sendmsg(&sender, &bytes, &mut control, SendFlags::empty()).expect("it is open");
        Ok(())
    });
    let receive = |socket: &tokio::net::UnixStream| -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
        let bytes = &mut [IoSliceMut::new(&mut byte)];
        recvmsg(socket, bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        match control.drain().next() {
            Some(RecvAncillaryMessage::ScmRights(mut fds)) => fds.next(),
            _ => None,
        }
        .ok_or_else(|| io::Error::other("nothing was sent"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let segment = runtime.block_on(async {
        receiver.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(receiver)?;
        let fd = socket
            .async_io(Interest::READABLE, || receive(&socket))
            .await?;
        Ok::<_, Box<dyn std::error::Error>>(provider.shmem_from_fd(fd)?)
    })?;
    sending.join().expect("it sends")?;
    println!("received {} bytes", segment.len());
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
