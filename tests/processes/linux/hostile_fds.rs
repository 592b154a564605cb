//! Descriptors that are no segments, or whose flags or number are unsuitable.

use std::error::Error as StdError;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;
use shmem_providers::{
    AshmemShMemProvider, Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider,
    ServedShMemProvider, ShMemProvider, StdShMemProvider,
};

use super::descriptors::{SEALED, WITH_FD, memfd};
use super::peer::{ALL, Answer, Commands, Peer, here};
use testkit::{Outcome, mappings, open_files, skip};

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
pub(crate) fn refuse_hostile(mechanism: &str) -> Answer {
    const NOT_BOTH: &str = "not open for both reading and writing";
    const FOREIGN: &str = "cannot be mapped safely";
    // With 32 bits, no size is that large.
    const IS_32_BIT: bool = usize::BITS < 64;
    const HUGE: &str = if IS_32_BIT {
        "a segment cannot have"
    } else {
        "(9223372036854775807 bytes)"
    };
    const HUGE_SHM: &str = if IS_32_BIT {
        "a segment cannot have"
    } else {
        "RAM and swap"
    };
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
        (HUGE, "huge"),
        (FOREIGN, "shm that others may write"),
        (FOREIGN, "empty shm"),
        (HUGE_SHM, "huge shm"),
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
            Error::InvalidSize { .. } => IS_32_BIT && what.starts_with("huge"),
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
