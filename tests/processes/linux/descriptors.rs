//! Segments as descriptors: sent, received, mapped by another crate, and hostile ones.
#![allow(unsafe_code)]

use std::error::Error as StdError;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use shmem_providers::{
    Error, MemfdBackend, MemfdShMem, MemfdShMemProvider, MmapShMemProvider, RcShMemProvider,
    ServedShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

use super::hostile_fds::refuse_hostile;
use super::limits::peer_in;
use super::peer::{ALL, Answer, Commands, Peer, State, done, here, provider};
use testkit::{Outcome, mappings, name_exists, skip};

/// The mechanisms with descriptors.
pub(crate) const WITH_FD: &[&str] = &["memfd", "posix"];

pub(crate) const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Sends a descriptor by `SCM_RIGHTS`.
fn send(socket: &UnixStream, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let byte = [IoSlice::new(b"m")];
    sendmsg(socket, &byte, &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives a descriptor. It is not close-on-exec: that is left to the library.
fn receive(socket: &UnixStream) -> Result<OwnedFd, Box<dyn StdError>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::empty())?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return Ok(fds.next().ok_or("no descriptor")?);
        }
    }
    Err("no descriptor".into())
}

/// Creates memory of this size with these seals.
pub(crate) fn memfd(name: &str, size: u64, seals: SealFlags) -> Result<OwnedFd, Errno> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, size)?;
    fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// A descriptor goes to a peer, and another one comes back.
pub(crate) fn a_descriptor_goes_through_a_socket() -> Outcome {
    let directory = tempfile::tempdir()?;
    for mechanism in here(&["default", "memfd", "posix"]) {
        let path = directory.path().join(mechanism);
        let listener = UnixListener::bind(&path)?;
        let mut provider = provider(mechanism)?;
        let mut segment = provider.new_shmem(5000)?;
        let Ok(fd) = segment.try_as_fd() else {
            continue;
        };
        let mut peer = Peer::start();
        peer.send(&format!("fd receive {}", path.display()));
        let (socket, _) = listener.accept()?;
        send(&socket, fd)?;
        assert_eq!(peer.answer_to("fd receive")?, "5000", "{mechanism}");
        peer.put(4999, 7)?;
        assert_eq!(segment[4999], 7);
        segment[0] = 8;
        assert_eq!(peer.get(0)?, 8);
        // The id that the peer has found opens the segment in a third process.
        let id = peer.ask("fd id")?;
        let mut third = Peer::start();
        assert_eq!(third.open(&id)?, 5000, "{mechanism}");
        assert_eq!(third.get(4999)?, 7);
        if mechanism == "posix" {
            assert_eq!(id, segment.id().as_str());
        }

        peer.make(mechanism, 100)?;
        peer.put(99, 9)?;
        peer.send(&format!("fd send {}", path.display()));
        let (socket, _) = listener.accept()?;
        let received = provider.shmem_from_fd(receive(&socket)?)?;
        assert_eq!(peer.answer_to("fd send")?, "");
        assert_eq!((received.len(), received[99]), (100, 9));
        assert!(!received.is_owner());
        peer.kill();
        assert_eq!(received[99], 9);
    }
    Ok(())
}

pub(crate) fn a_shared_segment_has_its_descriptor() -> Outcome {
    fn received(fd: &impl AsFd) -> Result<MemfdShMem, Box<dyn StdError>> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        Ok(MemfdShMemProvider::new()?.shmem_from_fd(fd)?)
    }

    for mechanism in here(WITH_FD) {
        let mut provider = provider(mechanism)?;
        let shared = provider.new_shmem(100)?.share();
        let fd = shared.try_as_fd()?.try_clone_to_owned()?;
        let again = provider.shmem_from_fd(fd)?.share();
        shared.access().fill(7);
        assert_eq!(again.access().load_u8(99, Relaxed)?, 7, "{mechanism}");
    }
    if here(WITH_FD).contains(&"memfd") {
        let shared = MemfdShMemProvider::new()?.new_shmem(100)?.share();
        shared.access().fill(7);
        assert_eq!(received(&shared)?[..], [7; 100]);
    }
    if here(ALL).contains(&"sysv") {
        let shared = UnixShMemProvider::new()?.new_shmem(100)?.share();
        let refused = shared.try_as_fd();
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
    Ok(())
}

pub(crate) fn another_crate_maps_a_descriptor() -> Outcome {
    fn has_descriptor<T: AsFd>(_: &T) {}

    for mechanism in here(WITH_FD) {
        let mut segment = provider(mechanism)?.shmem_from_bytes(b"a picture")?;
        // SAFETY: the slices are used in turns.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&segment.try_as_fd()?) }?;
        assert_eq!(map[..9], *b"a picture");
        map[0] = b'A';
        assert_eq!(segment[..], *b"A picture");
        let fd = segment.try_as_fd()?.try_clone_to_owned()?;
        let again = provider(mechanism)?.shmem_from_fd(fd)?;
        segment.access().write_at(0, b"b")?;
        assert_eq!(again[..], *b"b picture");
    }
    if here(ALL).contains(&"memfd") {
        has_descriptor(&MemfdShMemProvider::new()?.new_shmem(1)?);
        has_descriptor(&RcShMemProvider::<MemfdShMemProvider>::new()?.new_shmem(1)?);
    }
    Ok(())
}

pub(crate) fn a_descriptor_given_away_holds_the_segment() -> Outcome {
    for mechanism in here(WITH_FD) {
        let mut provider = provider(mechanism)?;
        let segment = provider.shmem_from_bytes(b"a picture")?;
        let (id, start) = (segment.id(), segment.as_ptr().addr());
        let fd = segment.into_fd()?;
        let inode = rustix::fs::fstat(&fd)?.st_ino.to_string();
        let is_mapped = |line: &String| {
            line.starts_with(&format!("{start:x}-")) && line.split(' ').any(|word| word == inode)
        };
        assert!(!mappings().iter().any(is_mapped), "{mechanism}");
        assert!(fcntl_getfd(&fd)?.contains(FdFlags::CLOEXEC));
        match mechanism {
            // As when a segment is dropped.
            "posix" => assert!(!name_exists(id.as_str())),
            _ => assert_eq!(Peer::start().open(&id)?, 9),
        }
        assert_eq!(provider.shmem_from_fd(fd)?[..], *b"a picture");
    }
    Ok(())
}

pub(crate) fn released_and_system_v_segments_have_no_descriptor() -> Outcome {
    let is_unsupported = |error| matches!(error, Some(Error::Unsupported { .. }));
    let mut provider = MemfdShMemProvider::new()?;
    let mut segment = match provider.new_shmem(100) {
        Ok(segment) => segment,
        Err(error) => return testkit::if_lacking(error),
    };
    provider.release_shmem(&mut segment);
    assert!(matches!(segment.try_as_fd(), Err(Error::Released { id }) if id == segment.id()));
    assert_eq!(segment.as_fd().as_raw_fd(), libc::AT_FDCWD);
    assert_eq!(fcntl_getfd(&segment).err(), Some(Errno::BADF));
    assert!(matches!(segment.into_fd(), Err(Error::Released { .. })));

    let mut provider = RcShMemProvider::<MemfdShMemProvider>::new()?;
    let mut segment = provider.new_shmem(100)?;
    assert!(segment.as_fd().as_raw_fd() > 2);
    provider.release_shmem(&mut segment);
    assert_eq!(fcntl_getfd(&segment).err(), Some(Errno::BADF));

    if here(ALL).contains(&"sysv") {
        let mut provider = UnixShMemProvider::new()?;
        let segment = provider.new_shmem(1)?;
        assert!(is_unsupported(segment.try_as_fd().err()));
        assert!(is_unsupported(segment.into_fd().err()));
        let memory = memfd("sealed", 100, SEALED)?;
        assert!(is_unsupported(provider.shmem_from_fd(memory).err()));
    }
    Ok(())
}

pub(crate) fn a_memfd_of_another_program_has_the_empty_id() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let mut provider = StdShMemProvider::new()?;
    for name in [
        "",
        "another",
        "shmem-",
        "shmem-AAAAAAAAAA",
        "shmem-AAAAAAAAAAAA",
        "shmem-AAAAAAAAAA=",
        "shmem-__________9",
    ] {
        let segment = provider.shmem_from_fd(memfd(name, 4096, SEALED)?)?;
        assert_eq!(segment.id(), ShMemId::default(), "{name}");
        // It is mapped a second time by its descriptor.
        assert_eq!(provider.clone_ref(&segment)?.len(), 4096);
    }
    let segment = provider.shmem_from_fd(memfd("shmem-A123456789A", 4096, SEALED)?)?;
    assert_eq!(Peer::start().open(&segment.id())?, 4096);
    Ok(())
}

/// A program that opened the file without this crate has no lock. Attaching takes it.
pub(crate) fn a_posix_descriptor_takes_the_lock_of_a_holder() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut creator = Peer::start();
    let id = creator.make("posix", 100)?;
    let path = format!("/dev/shm{id}");
    let plain = OpenOptions::new().read(true).write(true).open(path)?;
    let segment = MmapShMemProvider::new()?.shmem_from_fd(plain.into())?;
    assert_eq!(segment.id().as_str(), id);
    creator.kill();
    let mut other = Peer::start();
    other.remove_orphans()?;
    assert!(name_exists(&id), "a held segment was removed");
    drop(segment);
    // Another process that cleans up at the same time may be about to remove it.
    for _ in 0..1000 {
        if !name_exists(&id) {
            break;
        }
        other.remove_orphans()?;
    }
    assert!(!name_exists(&id), "it is left");
    Ok(())
}

pub(crate) fn a_posix_descriptor_without_a_name_has_the_empty_id() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut provider = MmapShMemProvider::new()?;
    let fd = provider.shmem_from_bytes(b"a picture")?.into_fd()?;
    let segment = provider.shmem_from_fd(fd)?;
    assert_eq!(segment.id(), ShMemId::default());
    assert_eq!(segment[..], *b"a picture");

    // Another file has the name that this one had when it was opened.
    let segment = provider.new_shmem(100)?;
    let path = format!("/dev/shm{}", segment.id());
    let fd = segment.into_fd()?;
    fs::write(&path, [7; 100])?;
    let received = provider.shmem_from_fd(fd);
    fs::remove_file(&path)?;
    assert_eq!(received?.id(), ShMemId::default());

    // The same, where another `/dev/shm` was mounted since.
    let mut peer = peer_in("-m", "")?;
    assert_eq!(peer.ask("fd cover")?, "5000 ");
    Ok(())
}

pub(crate) fn a_descriptor_is_registered_with_the_service() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let mut provider = ServedShMemProvider::<MemfdBackend>::at(&address);
    let mut segment = provider.shmem_from_fd(memfd("another", 4096, SEALED)?)?;
    segment[0] = 7;
    assert!(segment.id().as_str().starts_with('s'));
    assert!(segment.as_fd().as_raw_fd() > 2);
    let mut other = ServedShMemProvider::<MemfdBackend>::at(&address);
    let opened = other.shmem_from_id(segment.id())?;
    assert_eq!((opened[0], opened.len()), (7, 4096));
    // The descriptor of a served segment is that of the memory.
    let memory = MemfdShMemProvider::new()?.shmem_from_fd(opened.into_fd()?)?;
    assert_eq!(memory[0], 7);
    Ok(())
}

/// Returns how many descriptors of this process are segments, and how many of them a program would
/// inherit.
fn count() -> Result<(usize, usize), Box<dyn StdError>> {
    let (mut all, mut inheritable) = (0, 0);
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        let link = link.to_string_lossy();
        if link.starts_with("/memfd:shmem-") || link.starts_with("/dev/shm/") {
            let number = entry.file_name().to_string_lossy().parse()?;
            // SAFETY: the descriptor is open, and no other thread closes it.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            all += 1;
            inheritable += usize::from(!fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC));
        }
    }
    Ok((all, inheritable))
}

/// What a peer does.
pub(crate) fn execute(state: &mut State, words: &[&str]) -> Answer {
    match *words {
        ["receive", path] => {
            let fd = receive(&UnixStream::connect(path)?)?;
            state.hold(StdShMemProvider::new()?.shmem_from_fd(fd)?)
        }
        ["send", path] => {
            send(&UnixStream::connect(path)?, state.newest()?.try_as_fd()?)?;
            done()
        }
        ["id"] => Ok(state.newest()?.id().to_string()),
        // Returns the size and the id of a segment that another file in `/dev/shm` hides.
        ["cover"] => {
            let path = format!("/dev/shm/covered-{}", std::process::id());
            let create = || {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create_new(true).mode(0o600);
                file.open(&path).and_then(|file| {
                    file.set_len(5000)?;
                    Ok(OwnedFd::from(file))
                })
            };
            let fd = create()?;
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs", "/dev/shm"])
                .status()?;
            let received = create().map(|_| MmapShMemProvider::default().shmem_from_fd(fd));
            fs::remove_file(&path)?;
            if mount.success() {
                Command::new("umount").arg("/dev/shm").status()?;
                fs::remove_file(&path)?;
            }
            let segment = received??;
            Ok(format!("{} {}", segment.len(), segment.id()))
        }
        ["hostile", mechanism] => refuse_hostile(mechanism),
        // Replaces the newest segment by a descriptor of it that programs inherit.
        ["stash"] => {
            let fd = state.segments.pop().ok_or("no segment")?.into_fd()?;
            fcntl_setfd(&fd, FdFlags::empty())?;
            state.decoy = Some(fd);
            done()
        }
        ["unstash"] => {
            let fd = state.decoy.take().ok_or("nothing is stashed")?;
            state.hold(StdShMemProvider::new()?.shmem_from_fd(fd)?)
        }
        // How many segments a program inherits from this process.
        ["of-child"] => {
            let output = Command::new("ls").args(["-l", "/proc/self/fd"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let is_segment =
                |line: &&str| line.contains("/memfd:shmem-") || line.contains(" /dev/shm/");
            Ok(text.lines().filter(is_segment).count().to_string())
        }
        ["count"] => {
            let (all, inheritable) = count()?;
            Ok(format!("{all} {inheritable}"))
        }
        ["is-open", number] => Ok(fs::symlink_metadata(format!("/proc/self/fd/{number}"))
            .is_ok()
            .to_string()),
        ["on-stderr"] => {
            let fd = state.segments.pop().ok_or("no segment")?.into_fd()?;
            // SAFETY: the call takes no pointer.
            if unsafe { libc::dup2(fd.as_raw_fd(), 2) } != 2 {
                return Err(std::io::Error::last_os_error().into());
            }
            // SAFETY: from here on, nothing else uses descriptor 2.
            let on_stderr = unsafe { OwnedFd::from_raw_fd(2) };
            let segment = StdShMemProvider::new()?.shmem_from_fd(on_stderr)?;
            let is_closed = fs::symlink_metadata("/proc/self/fd/2").is_err();
            let is_moved = is_closed && segment.try_as_fd()?.as_raw_fd() > 2;
            let null = File::open("/dev/null")?;
            if null.as_raw_fd() == 2 {
                // It stands in for the standard stream.
                let _ = null.into_raw_fd();
            }
            Ok(if is_moved { "moved" } else { "not moved" }.into())
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}
