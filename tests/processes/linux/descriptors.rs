//! Segments as descriptors: sent, received, mapped by another crate, and hostile ones.
#![allow(unsafe_code)]

use std::error::Error as StdError;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::event::epoll;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use shmem_providers::{
    AshmemShMemProvider, Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider,
    RcShMemProvider, ServedShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemProvider,
    UnixShMemProvider,
};

use super::peer::{ALL, Answer, Commands, Peer, State, done, here, provider};
use testkit::{Outcome, mappings, name_exists, open_files, skip};

/// The mechanisms with descriptors.
pub(crate) const WITH_FD: &[&str] = &["memfd", "posix"];

const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

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
fn memfd(name: &str, size: u64, seals: SealFlags) -> Result<OwnedFd, Errno> {
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
    assert_eq!(rustix::fs::fstat(&segment).err(), Some(Errno::BADF));
    assert!(matches!(segment.into_fd(), Err(Error::Released { .. })));

    let mut provider = RcShMemProvider::<MemfdShMemProvider>::new()?;
    let mut segment = provider.new_shmem(100)?;
    assert!(segment.as_fd().as_raw_fd() > 2);
    provider.release_shmem(&mut segment);
    assert_eq!(rustix::fs::fstat(&segment).err(), Some(Errno::BADF));

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

pub(crate) fn hostile_descriptors_are_refused_and_closed() -> Outcome {
    for mechanism in ["memfd", "posix", "default", "served", "ashmem"] {
        let memory = if mechanism == "posix" {
            "posix"
        } else {
            "memfd"
        };
        if here(ALL).contains(&memory) {
            // In a peer, where no other test opens anything.
            let mut peer = Peer::start();
            assert_eq!(peer.ask(format!("fd hostile {mechanism}"))?, "");
        }
    }
    Ok(())
}

/// Creates a descriptor that is no segment, or not one that may be mapped. `None` if the host has none.
fn hostile(what: &str, directory: &Path) -> Result<Option<OwnedFd>, Box<dyn StdError>> {
    let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let reopened = |flags| -> Result<OwnedFd, Errno> {
        let fd = memfd("shmem-good", 4096, SEALED)?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::open(link, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let in_memory = format!("/dev/shm/hostile-{}", std::process::id());
    let shm = |mode, size, more: &dyn Fn() -> std::io::Result<()>| -> std::io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600);
        let file = file.open(&in_memory)?;
        let made = file.set_len(size).and_then(|()| more());
        let changed = file.set_permissions(PermissionsExt::from_mode(mode));
        fs::remove_file(&in_memory)?;
        made.and(changed)?;
        Ok(file.into())
    };
    let nothing = || Ok(());
    let on_disk = directory.join("file");
    fs::write(&on_disk, [0; 4096])?;
    let device = |path: &Path| rustix::fs::statfs(path).map(|system| system.f_type);
    if what.ends_with("file") && device(&on_disk)? == device(Path::new("/dev/shm"))? {
        return Ok(None);
    }
    let fd = match what {
        "read-only memfd" => reopened(OFlags::RDONLY)?,
        "write-only memfd" => reopened(OFlags::WRONLY)?,
        "path of a memfd" => reopened(OFlags::PATH)?,
        "pipe to read" => rustix::pipe::pipe()?.0,
        "pipe to write" => rustix::pipe::pipe()?.1,
        "directory" => File::open(directory)?.into(),
        "read-only file" => File::open(&on_disk)?.into(),
        "named pipe" => {
            let path = directory.join("pipe");
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)?;
            both(&path)?.into()
        }
        "socket" => UnixStream::pair()?.0.into(),
        "/dev/zero" | "/dev/null" => both(Path::new(what))?.into(),
        "epoll" => epoll::create(epoll::CreateFlags::CLOEXEC)?,
        "unsealed" => memfd("shmem-x", 4096, SealFlags::empty())?,
        "growable" => memfd("shmem-x", 4096, SealFlags::SHRINK)?,
        "shrinkable" => memfd("shmem-x", 4096, SealFlags::GROW)?,
        "private" => {
            // As the file of a POSIX segment, but for its file system.
            let fd = memfd("shmem-x", 4096, SealFlags::empty())?;
            rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
            fd
        }
        "snapshot" => memfd("shmem-x", 4096, SEALED | SealFlags::WRITE)?,
        "empty" => memfd("shmem-x", 0, SEALED)?,
        "huge" => memfd("shmem-x", i64::MAX.unsigned_abs(), SEALED)?,
        "shm that others may write" => shm(0o666, 4096, &nothing)?,
        "empty shm" => shm(0o600, 0, &nothing)?,
        "huge shm" => shm(0o600, 1 << 60, &nothing)?,
        "shm of two names" => {
            let (one, two) = (format!("{in_memory}-1"), format!("{in_memory}-2"));
            let fd = shm(0o600, 4096, &|| {
                fs::hard_link(&in_memory, &one)?;
                fs::hard_link(&in_memory, &two)
            })?;
            // They stay until the descriptor was examined: see `forget_hostile`.
            fd
        }
        "file" => both(&on_disk)?.into(),
        "unlinked file" => {
            let path = directory.join("unlinked");
            fs::write(&path, [0; 4096])?;
            let file = both(&path)?;
            fs::remove_file(&path)?;
            file.into()
        }
        other => return Err(format!("unknown object {other:?}").into()),
    };
    Ok(Some(fd))
}

/// Removes the names that [`hostile`] has left.
fn forget_hostile() {
    for number in [1, 2] {
        let path = format!("/dev/shm/hostile-{}-{number}", std::process::id());
        let _ = fs::remove_file(path);
    }
}

/// What a peer does: passes what is no segment to a provider, which has to refuse it and to close it.
fn refuse_hostile(mechanism: &str) -> Answer {
    const NOT_BOTH: &str = "not open for both reading and writing";
    const FOREIGN: &str = "cannot be mapped safely";
    let table = [
        (NOT_BOTH, "read-only memfd"),
        (NOT_BOTH, "write-only memfd"),
        (NOT_BOTH, "path of a memfd"),
        (NOT_BOTH, "pipe to read"),
        (NOT_BOTH, "pipe to write"),
        (NOT_BOTH, "directory"),
        (NOT_BOTH, "read-only file"),
        (FOREIGN, "named pipe"),
        (FOREIGN, "socket"),
        (FOREIGN, "/dev/zero"),
        (FOREIGN, "/dev/null"),
        (FOREIGN, "epoll"),
        (FOREIGN, "unsealed"),
        (FOREIGN, "growable"),
        (FOREIGN, "shrinkable"),
        (FOREIGN, "private"),
        (FOREIGN, "snapshot"),
        (FOREIGN, "empty"),
        ("(9223372036854775807 bytes)", "huge"),
        (FOREIGN, "shm that others may write"),
        (FOREIGN, "empty shm"),
        ("RAM and swap", "huge shm"),
        (FOREIGN, "shm of two names"),
        (FOREIGN, "file"),
        (FOREIGN, "unlinked file"),
    ];
    // Not in `/tmp`, which may be a file system in memory.
    let directory = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
    let address = directory.path().join("service");
    for (why, what) in table {
        // The provider caches what it has to know about the system.
        let _ = memfd("shmem-good", 1, SEALED).map(|fd| shmem_from(mechanism, &address, fd));
        let (files, maps) = (open_files(), mappings());
        let Some(fd) = hostile(what, directory.path())? else {
            continue;
        };
        let error = shmem_from(mechanism, &address, fd);
        forget_hostile();
        let error = error.err().ok_or_else(|| format!("{what} was mapped"))?;
        // Only POSIX segments are files in `/dev/shm`, and only the others are memfds.
        let is_other = match mechanism {
            "posix" => what == "huge",
            "default" => false,
            _ => what == "huge shm",
        };
        let why = if is_other { FOREIGN } else { why };
        if !error.to_string().contains(why) {
            return Err(format!("{what}: {error}").into());
        }
        let is_right = match error {
            Error::Foreign { .. } => true,
            Error::Os { .. } => what.starts_with("huge"),
            _ => false,
        };
        if !is_right || open_files() != files || mappings() != maps {
            return Err(format!("{what}: {error}: {:?}", open_files()).into());
        }
    }
    Ok(String::new())
}

/// Attaches, and drops the segment.
fn shmem_from(mechanism: &str, address: &Path, fd: OwnedFd) -> Result<(), Error> {
    match mechanism {
        "ashmem" => AshmemShMemProvider::new()?.shmem_from_fd(fd).map(drop),
        "posix" => MmapShMemProvider::new()?.shmem_from_fd(fd).map(drop),
        "memfd" => MemfdShMemProvider::new()?.shmem_from_fd(fd).map(drop),
        "default" => StdShMemProvider::new()?.shmem_from_fd(fd).map(drop),
        _ => ServedShMemProvider::<MemfdBackend>::at(address)
            .shmem_from_fd(fd)
            .map(drop),
    }
}

pub(crate) fn memory_of_another_user_is_refused() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can become another user");
    }
    for mechanism in here(WITH_FD) {
        let mut peer = Peer::start();
        peer.make(mechanism, 100)?;
        peer.execute("fd stash")?;
        peer.execute("user 65534")?;
        let error = peer.ask("fd unstash").expect_err("it is root's");
        assert!(
            error.contains("another user (uid 0)"),
            "{mechanism}: {error}"
        );
    }
    Ok(())
}

pub(crate) fn a_received_descriptor_is_not_inherited() -> Outcome {
    for mechanism in here(WITH_FD) {
        let mut peer = Peer::start();
        peer.make(mechanism, 100)?;
        peer.execute("fd stash")?;
        assert_eq!(peer.ask("fd of-child")?, "1", "{mechanism}");
        assert_eq!(peer.ask("fd unstash")?, "100");
        assert_eq!(peer.ask("fd of-child")?, "0", "{mechanism}");
    }
    Ok(())
}

pub(crate) fn a_received_descriptor_has_no_number_of_a_standard_stream() -> Outcome {
    for mechanism in here(WITH_FD) {
        let mut peer = Peer::start();
        peer.make(mechanism, 100)?;
        assert_eq!(peer.ask("fd on-stderr")?, "moved", "{mechanism}");
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
    other.remove_orphans()?;
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
