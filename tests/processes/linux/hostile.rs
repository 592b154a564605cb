//! Peers that lie: descriptors of other files in the place of a segment's, memfds and names that look like
//! segments.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use shmem_providers::{Error, ShMemId, ShMemProvider, StdShMem, StdShMemProvider};

use super::peer::{ALL, Answer, Commands, LASTING, Peer, State, can_start_by, here};
use super::users::namespaces;
use testkit::{Outcome, says_not_found, skip};

/// The creator drops its segment and opens something else under the same descriptor number.
pub(crate) fn replaced_descriptor_is_not_opened() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    for what in [
        "null",
        "fifo",
        "file",
        "leased",
        "directory",
        "socket",
        "segment",
        "pty",
    ] {
        let mut liar = Peer::start();
        let id = liar.make("memfd", 65536)?;
        liar.execute(format!("become {what} {id}"))?;
        let begin = Instant::now();
        let error = Peer::start().open(&id).expect_err(what);
        assert!(says_not_found(&error), "{what}: {error}");
        // Opening a leased file takes 45 seconds (`/proc/sys/fs/lease-break-time`).
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        // The liar finds its own descriptor.
        let error = liar.open_part(&id, 1).expect_err(what);
        assert!(says_not_found(&error), "{what}: {error}");
    }
    // Another holder of the segment is found.
    let (mut liar, mut holder) = (Peer::start(), Peer::start());
    let id = liar.make("memfd", 65536)?;
    holder.open(&id)?;
    holder.put(0, 1)?;
    liar.execute(format!("become segment {id}"))?;
    let mut other = Peer::start();
    other.open(&id)?;
    assert_eq!(other.get(0)?, 1);
    Ok(())
}

/// A process of the same user can forge the name of a memfd, but not its seals.
pub(crate) fn unsealed_memfd_is_refused() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let mut liar = Peer::start();
    let id = liar.make("memfd", 65536)?;
    for (what, why) in [
        ("unsealed", "not sealed against shrinking"),
        ("growable", "not sealed against shrinking"),
        ("empty", "no bytes"),
    ] {
        liar.execute(format!("become {what} {id}"))?;
        let error = Peer::start().open(&id).expect_err(what);
        assert!(error.contains(why), "{what}: {error}");
        let error = Peer::start().open_part(&id, 4096).expect_err(what);
        assert!(!error.is_empty(), "{what}");
    }
    liar.execute(format!("become smaller {id}"))?;
    let error = Peer::start()
        .open_part(&id, 65536)
        .expect_err("it is smaller");
    assert!(error.contains("has 4096"), "{error}");
    liar.execute(format!("become read-only {id}"))?;
    let error = Peer::start().open(&id).expect_err("it cannot be written");
    assert!(error.contains("open it with `view_from_id`"), "{error}");
    Ok(())
}

/// A memfd with a forged name does not hide the segment from a search.
pub(crate) fn forged_memfd_hides_no_holder() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    // The search is in the order of process numbers: there is a liar before and one behind the holder.
    let (mut before, mut creator) = (Peer::start(), Peer::start());
    let (mut holder, mut behind) = (Peer::start(), Peer::start());
    let id = creator.make("memfd", 65536)?;
    holder.open(&id)?;
    holder.put(0, 1)?;
    for liar in [&mut before, &mut behind] {
        liar.execute(format!("become unsealed {id}"))?;
    }
    creator.kill();
    let mut other = Peer::start();
    other.open(&id)?;
    assert_eq!(other.get(0)?, 1);
    Ok(())
}

pub(crate) fn a_peer_cannot_shrink_a_segment() -> Outcome {
    for mechanism in here(LASTING) {
        let mut peer = Peer::start();
        let id = peer.make(mechanism, 65536)?;
        let mut segment = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id))?;
        let shrunk = peer.ask("shrink")?;
        assert_eq!(
            shrunk,
            if id.starts_with('m') {
                "refused"
            } else {
                "no file"
            }
        );
        segment.fill(1);
        assert_eq!(segment[65535], 1);
    }
    Ok(())
}

/// Every user may create files in `/dev/shm`.
pub(crate) fn other_files_in_dev_shm_are_refused() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut provider = StdShMemProvider::new()?;
    let id = ShMemId::from_string(&format!("/bad-{}", process::id()));
    let path = PathBuf::from(format!("/dev/shm{id}"));
    let directory = tempfile::tempdir()?;
    let target = directory.path().join("target");
    fs::write(&target, [0; 4096])?;
    for what in ["symlink", "fifo", "socket", "empty", "directory"] {
        match what {
            "symlink" => std::os::unix::fs::symlink(&target, &path)?,
            "fifo" => fifo(&path)?,
            "socket" => drop(UnixListener::bind(&path)?),
            "empty" => fs::write(&path, "")?,
            _ => fs::create_dir(&path)?,
        }
        let opened = provider.shmem_from_id(id);
        let opened_by_size = provider.shmem_from_id_and_size(id, 100);
        if what == "directory" {
            fs::remove_dir(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        assert!(
            matches!(opened, Err(Error::Foreign { .. })),
            "{what}: {opened:?}"
        );
        assert!(
            matches!(
                opened_by_size,
                Err(Error::Foreign { .. } | Error::TooLarge { .. })
            ),
            "{what}: {opened_by_size:?}"
        );
    }
    Ok(())
}

/// The kernel reuses System V numbers.
pub(crate) fn reused_shmid_of_a_smaller_segment_is_refused() -> Outcome {
    let wrapper = namespaces("-i", "");
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    can_start_by(&wrapper)?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut peer = Peer::start_by(&wrapper);
    let id = peer.make("sysv", 65536)?;
    peer.drop_newest()?;
    if let Err(why) = peer.ask(format!("next-shmid {id}")) {
        return skip(format!("the next shmid cannot be chosen here: {why}"));
    }
    assert_eq!(peer.make("sysv", 4096)?, id);
    let error = peer.open_part(&id, 65536).expect_err("it is smaller");
    assert!(error.contains("has 4096"), "{error}");
    Ok(())
}

/// What a peer does: drops its segment or its last decoy, and puts something else in the place of it.
pub(crate) fn replace_segment(state: &mut State, what: &str, id: &str) -> Answer {
    use std::mem::forget;
    // The next descriptor that is opened gets the lowest free number, which is that of the segment.
    state.segments.clear();
    state.decoy = None;
    let name = format!("shmem-{}", &id[8..]);
    let path = env::temp_dir().join(format!("shmem-liar-{}", process::id()));
    let open = |path: &str, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let memfd = |size, seals| -> Result<OwnedFd, Errno> {
        let fd = rustix::fs::memfd_create(&*name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, size)?;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        Ok(fd)
    };
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let fd = match what {
        "null" => open("/dev/null", OFlags::RDWR)?,
        "directory" => open("/", OFlags::RDONLY | OFlags::DIRECTORY)?,
        "pty" => open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY)?,
        "file" => {
            let file = fs::File::create(&path)?;
            fs::remove_file(&path)?;
            file.into()
        }
        "leased" => {
            let file = fs::File::create(&path)?;
            fs::remove_file(&path)?;
            // SAFETY: ignoring the signal by which the kernel asks for the lease affects no memory.
            unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
            // SAFETY: the call takes no pointer.
            match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } {
                0 => file.into(),
                _ => return Err(io::Error::last_os_error().into()),
            }
        }
        "fifo" => {
            fifo(&path)?;
            let fifo = open(&path.to_string_lossy(), OFlags::RDWR);
            fs::remove_file(&path)?;
            fifo?
        }
        "socket" => {
            let listener = UnixListener::bind(&path)?;
            fs::remove_file(&path)?;
            listener.into()
        }
        "segment" => {
            state.make("memfd", 65536)?;
            return Ok(String::new());
        }
        "unsealed" => memfd(65536, SealFlags::empty())?,
        "growable" => memfd(65536, SealFlags::GROW)?,
        "empty" => memfd(0, sealed)?,
        "smaller" => memfd(4096, sealed)?,
        "read-only" => memfd(65536, sealed | SealFlags::WRITE)?,
        other => return Err(format!("unknown replacement {other}").into()),
    };
    if ["unsealed", "growable", "empty", "smaller", "read-only"].contains(&what) {
        // The next one takes its place.
        state.decoy = Some(fd);
    } else {
        forget(fd);
    }
    Ok(String::new())
}

/// What a peer does: tries to change the size of its own segments.
pub(crate) fn shrink(_: &mut StdShMem) -> Answer {
    let mut tried = "no file";
    let files = fs::read_dir("/proc/self/fd").into_iter().flatten();
    for entry in files.flatten() {
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        if !link.to_string_lossy().starts_with("/memfd:shmem-") {
            continue;
        }
        let fd = rustix::fs::open(entry.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let attempts = [
            rustix::fs::ftruncate(&fd, 0),
            rustix::fs::ftruncate(&fd, 1 << 20),
            rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 1 << 20),
            rustix::fs::fallocate(&fd, FallocateFlags::COLLAPSE_RANGE, 0, 4096),
            rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE),
            rustix::fs::fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE),
        ];
        if let Some(at) = attempts.iter().position(Result::is_ok) {
            return Err(format!("attempt {at} succeeded").into());
        }
        tried = "refused";
    }
    Ok(tried.into())
}

fn fifo(path: &std::path::Path) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the pointer is to a string that ends with a zero.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(Errno::INVAL),
    }
}
