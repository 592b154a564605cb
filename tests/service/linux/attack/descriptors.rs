//! Passed descriptors: where none belongs, none where one does, and those of other objects than memory.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::Scene;
use super::lifetime::eventually_has_files;
use super::peer::Commands;
use super::raw::{self, FORK, HELLO, OPEN, REGISTER, RELEASE, Raw, frame};
use testkit::Outcome;

/// Creates memory of this size, sealed against resizing, like an honest client's.
pub(crate) fn memory(size: u64) -> io::Result<OwnedFd> {
    let memory = unsealed(size)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

/// Creates memory of this size, which can be resized.
pub(crate) fn unsealed(size: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("attack", flags)?;
    rustix::fs::ftruncate(&memory, size)?;
    Ok(memory)
}

pub(crate) fn unexpected_descriptors_end_the_connection() -> Outcome {
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    for count in [1, 2, 253] {
        let passed = vec![memory.as_fd(); count];
        match Raw::sent(scene.address(), &frame(HELLO, 0, ""), &passed) {
            Ok(client) => assert!(client.is_closed()?, "{count}"),
            // Since Linux 6.16 the kernel refuses it for the service.
            Err(errno) => assert_eq!(errno, Errno::PERM, "{count}"),
        }
        for request in [
            frame(OPEN, 0, &scene.id),
            frame(RELEASE, 0, &scene.id),
            frame(FORK, 0, &raw::id(1)),
        ] {
            let client = Raw::introduced(scene.address())?;
            client.send(&request, &passed)?;
            assert!(client.is_closed()?, "{count}");
        }
        // With bytes that are no frame, of the right length or not.
        for malformed in [&[9; 40][..], &[9; 3], &[9; 300]] {
            let client = Raw::introduced(scene.address())?;
            client.send(malformed, &passed)?;
            assert!(client.is_closed()?, "{count}");
        }
        let client = Raw::introduced(scene.address())?;
        let register = frame(REGISTER, 100, &raw::id(1));
        let expected = (count == 1).then_some(raw::DONE);
        assert_eq!(client.ask(&register, &passed)?, expected, "{count}");
        scene.assert_served();
    }
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn descriptors_of_other_objects_are_refused() -> Outcome {
    let scene = Scene::new()?;
    let directory = tempfile::tempdir()?;
    let file = File::create(directory.path().join("file"))?;
    file.set_len(100)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let (socket, _other) = UnixStream::pair()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let null = File::open("/dev/null")?;
    let zero = File::open("/dev/zero")?;
    let process = File::open("/proc/self/mem")?;
    let itself = File::open(directory.path())?;
    let too_small = memory(99)?;
    let too_large = memory(101)?;
    let mut others: Vec<BorrowedFd<'_>> = vec![
        reader.as_fd(),
        writer.as_fd(),
        socket.as_fd(),
        epoll.as_fd(),
        null.as_fd(),
        zero.as_fd(),
        process.as_fd(),
        too_small.as_fd(),
    ];
    // With Apple's rules memory looks like a file, and may be larger than requested.
    if !cfg!(shmem_apple_rules) {
        others.extend([file.as_fd(), itself.as_fd(), too_large.as_fd()]);
    }
    let client = Raw::introduced(scene.address())?;
    let register = frame(REGISTER, 100, &raw::id(1));
    for (index, fd) in others.into_iter().enumerate() {
        let status = client.ask(&register, &[fd])?;
        assert_eq!(status, Some(raw::BAD_DESCRIPTOR), "number {index}");
    }
    // No descriptor.
    assert_eq!(client.ask(&register, &[])?, Some(raw::BAD_DESCRIPTOR));
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

/// The service accepts it, and clients that open it refuse it.
pub(crate) fn memory_that_can_shrink_is_refused() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let memory = unsealed(100_000)?;
    let id = raw::id(1);
    let register = frame(REGISTER, 100_000, &id);
    assert_eq!(client.ask(&register, &[memory.as_fd()])?, Some(raw::DONE));
    let error = scene.honest.open(&id);
    assert!(
        error
            .as_ref()
            .is_err_and(|error| error.contains("cannot be mapped safely")),
        "{error:?}"
    );
    // The memory has shrunk since the service has checked it.
    rustix::fs::ftruncate(&memory, 10)?;
    assert!(scene.honest.open(&id).is_err());
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn segment_of_2_to_the_60_bytes_is_refused() -> Outcome {
    const SIZE: u64 = 1 << 60;
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let register = frame(REGISTER, SIZE, &raw::id(1));
    let lie = memory(100)?;
    let status = client.ask(&register, &[lie.as_fd()])?;
    assert_eq!(status, Some(raw::BAD_DESCRIPTOR));
    // The kernel creates such memory, which has no pages until it is written.
    if let Ok(memory) = memory(SIZE) {
        let status = client.ask(&register, &[memory.as_fd()])?;
        assert_eq!(status, Some(raw::FULL));
    }
    let error = scene.honest.ask(format!("make {SIZE}"));
    assert!(error.is_err(), "{error:?}");
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

/// The client never reads the replies, which have descriptors.
pub(crate) fn unread_replies_are_bounded() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let open = frame(OPEN, 0, &scene.id);
    let mut sent = 0;
    while sent < 100_000 && client.send(&open, &[]).is_ok() {
        sent += 1;
    }
    assert!(sent < 100_000, "the service keeps all unread replies");
    scene.assert_served();
    drop(client);
    eventually_has_files(&mut scene.host, scene.files);
    scene.assert_unharmed();
    Ok(())
}
