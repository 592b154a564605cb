//! What is passed: descriptors where none is due, none where one is, and such as are no memory.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::Scene;
use super::lifetime::eventually;
use super::raw::{self, FORK, HELLO, OPEN, REGISTER, RELEASE, Raw, frame};
use super::support::{DONE, Outcome};

/// Memory of this size, sealed against resizing, as an honest client's.
pub(crate) fn memory(size: u64) -> io::Result<OwnedFd> {
    let memory = unsealed(size)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

/// Memory of this size, which may still be resized.
pub(crate) fn unsealed(size: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("attack", flags)?;
    rustix::fs::ftruncate(&memory, size)?;
    Ok(memory)
}

pub(crate) fn with_every_frame() -> Outcome {
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    for count in [1, 2, 253] {
        let passed = vec![memory.as_fd(); count];
        match Raw::sent(scene.address(), &frame(HELLO, 0, ""), &passed) {
            Ok(client) => assert!(client.is_let_go()?, "{count}"),
            // The kernel refuses it for the service, since Linux 6.16.
            Err(errno) => assert_eq!(errno, Errno::PERM, "{count}"),
        }
        for request in [
            frame(OPEN, 0, &scene.id),
            frame(RELEASE, 0, &scene.id),
            frame(FORK, 0, &raw::id(1)),
        ] {
            let client = Raw::introduced(scene.address())?;
            client.send(&request, &passed)?;
            assert!(client.is_let_go()?, "{count}");
        }
        // With what is no frame, and with nothing but them.
        for rubbish in [&[9; 40][..], &[9; 3], &[9; 300]] {
            let client = Raw::introduced(scene.address())?;
            client.send(rubbish, &passed)?;
            assert!(client.is_let_go()?, "{count}");
        }
        let client = Raw::introduced(scene.address())?;
        let register = frame(REGISTER, 100, &raw::id(1));
        let verdict = (count == 1).then_some(raw::DONE);
        assert_eq!(client.ask(&register, &passed)?, verdict, "{count}");
        scene.assert_served();
    }
    scene.assert_unharmed();
    DONE
}

pub(crate) fn of_what_is_no_memory() -> Outcome {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let file = File::create(folder.path().join("file"))?;
    file.set_len(100)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let (socket, _other) = UnixStream::pair()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let null = File::open("/dev/null")?;
    let zero = File::open("/dev/zero")?;
    let process = File::open("/proc/self/mem")?;
    let itself = File::open(folder.path())?;
    let too_small = memory(99)?;
    let too_large = memory(101)?;
    let mut not_it: Vec<BorrowedFd<'_>> = vec![
        reader.as_fd(),
        writer.as_fd(),
        socket.as_fd(),
        epoll.as_fd(),
        null.as_fd(),
        zero.as_fd(),
        process.as_fd(),
        too_small.as_fd(),
    ];
    // By Apple's rules memory looks like a file, and may have been made larger than was asked for.
    if !cfg!(shmem_apple_rules) {
        not_it.extend([file.as_fd(), itself.as_fd(), too_large.as_fd()]);
    }
    let client = Raw::introduced(scene.address())?;
    let register = frame(REGISTER, 100, &raw::id(1));
    for (place, fd) in not_it.into_iter().enumerate() {
        let verdict = client.ask(&register, &[fd])?;
        assert_eq!(verdict, Some(raw::BAD_DESCRIPTOR), "number {place}");
    }
    // None where one is due.
    assert_eq!(client.ask(&register, &[])?, Some(raw::BAD_DESCRIPTOR));
    drop(client);
    scene.assert_unharmed();
    DONE
}

/// What the service cannot know, who opens it finds out.
pub(crate) fn of_memory_that_can_shrink() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let memory = unsealed(100_000)?;
    let id = raw::id(1);
    let register = frame(REGISTER, 100_000, &id);
    assert_eq!(client.ask(&register, &[memory.as_fd()])?, Some(raw::DONE));
    let error = scene.ask_honest(&format!("open {id}"));
    assert!(
        error
            .as_ref()
            .is_err_and(|error| error.contains("not a segment that is safe")),
        "{error:?}"
    );
    // It has shrunk since the service looked.
    rustix::fs::ftruncate(&memory, 10)?;
    assert!(scene.ask_honest(&format!("open {id}")).is_err());
    drop(client);
    scene.assert_unharmed();
    DONE
}

pub(crate) fn a_segment_of_2_to_the_60_bytes() -> Outcome {
    const SIZE: u64 = 1 << 60;
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let register = frame(REGISTER, SIZE, &raw::id(1));
    let lie = memory(100)?;
    let told = client.ask(&register, &[lie.as_fd()])?;
    assert_eq!(told, Some(raw::BAD_DESCRIPTOR));
    // The kernel makes such memory, as long as nobody writes to it.
    if let Ok(memory) = memory(SIZE) {
        let told = client.ask(&register, &[memory.as_fd()])?;
        assert_eq!(told, Some(raw::FULL));
    }
    let error = scene.ask_honest(&format!("make {SIZE}"));
    assert!(error.is_err(), "{error:?}");
    drop(client);
    scene.assert_unharmed();
    DONE
}

/// Replies with descriptors that are never read.
pub(crate) fn that_are_never_taken() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let open = frame(OPEN, 0, &scene.id);
    let mut asked = 0;
    while asked < 100_000 && client.send(&open, &[]).is_ok() {
        asked += 1;
    }
    assert!(asked < 100_000, "unread replies were kept");
    scene.assert_served();
    drop(client);
    let files = scene.files.clone();
    eventually(&mut scene.host, "files", &files);
    scene.assert_unharmed();
    DONE
}
