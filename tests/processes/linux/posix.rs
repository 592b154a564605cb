//! POSIX segments: which files in `/dev/shm` are opened, which names may be removed, and what the errors
//! name.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::fork::wait_for;
use super::limits::peer_in;
use super::peer::{ALL, Answer, Commands, Peer, State, can_start_by, here};
use testkit::peer::AS_OTHER;
use testkit::seccomp::forbid_in;
use testkit::{Outcome, fork, name_exists, skip};

/// A file in `/dev/shm`, which is removed on drop.
pub(super) struct File(PathBuf);

impl File {
    /// Creates a file as another program would, with this mode.
    pub(super) fn new(name: &str, mode: u32) -> std::io::Result<Self> {
        let file = Self(PathBuf::from(format!("/dev/shm/{name}")));
        let mut options = OpenOptions::new();
        let mut opened = options.write(true).create_new(true).open(&file.0)?;
        opened.write_all(&[0; 4096])?;
        opened.set_permissions(Permissions::from_mode(mode))?;
        Ok(file)
    }

    pub(super) fn id(&self) -> ShMemId {
        let name = self.0.file_name().unwrap_or_default();
        ShMemId::from_string(&format!("/{}", name.to_string_lossy()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a name like those that this crate chooses, but of this process alone.
pub(super) fn like_ours(letter: char) -> String {
    format!("shmem-{letter}{:010}", process::id())
}

pub(super) fn requires_posix() -> Outcome {
    if here(ALL).contains(&"posix") {
        Ok(())
    } else {
        skip("no POSIX shared memory here")
    }
}

/// Returns `true` once the name does not exist: another process may be about to remove it. `false` if it
/// remains for 10 seconds.
pub(super) fn is_gone(id: &str) -> bool {
    for _ in 0..2000 {
        if !name_exists(id) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

pub(crate) fn another_users_names_are_left_alone() -> Outcome {
    // A user of this test alone: other tests would remove orphans.
    let uid = 200_000 + process::id() % 100_000;
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let as_other = &["setpriv", &*user, &*group, "--clear-groups", "--"];
    can_start_by(as_other)?;
    requires_posix()?;
    let refused = Err(Error::OtherUser { owner: Some(uid) });
    let mut other = Peer::start_by(as_other);
    let id = ShMemId::from_string(&other.make("posix", 100)?);
    assert_eq!(MmapShMemProvider::remove(id), refused);
    other.kill();
    // Not even once the name is an orphan.
    MmapShMemProvider::remove_orphans()?;
    assert!(name_exists(id.as_str()));
    assert_eq!(MmapShMemProvider::remove(id), refused);
    Peer::start_by(as_other).make("posix", 1)?;
    assert!(is_gone(id.as_str()), "its own user removes it");

    // A chosen name that another user has left.
    let name = format!("/theirs-{}", process::id());
    let mut other = Peer::start_by(as_other);
    other.make_named(&name, 100)?;
    other.kill();
    let made = MmapShMemProvider::new()?.new_shmem_with_id(100, &name);
    let removed = Peer::start_by(as_other).execute(format!("posix remove {name}"));
    assert_eq!(
        made.map(drop).map_err(|error| error.raw_os_error()),
        Err(Some(libc::EEXIST))
    );
    removed?;
    Ok(())
}

/// Dropping a segment does not remove a newer one that has its name.
pub(crate) fn a_newer_segment_keeps_its_name() -> Outcome {
    requires_posix()?;
    let name = format!("/newer-{}", process::id());
    let mut provider = MmapShMemProvider::new()?;
    let older = provider.new_shmem_with_id(100, &name)?;
    MmapShMemProvider::remove(older.id())?;
    let newer = provider.new_shmem_with_id(200, &name)?;
    drop(older);
    assert!(name_exists(&name));
    assert_eq!(provider.shmem_from_id(newer.id())?.len(), 200);
    drop(newer);
    assert!(!name_exists(&name));

    // The newer segment of another user, if this process could remove it.
    if can_start_by(AS_OTHER).is_ok() {
        let older = provider.new_shmem_with_id(100, &name)?;
        MmapShMemProvider::remove(older.id())?;
        let mut other = Peer::start_by(AS_OTHER);
        other.make_named(&name, 100)?;
        drop(older);
        assert!(name_exists(&name));
        other.drop_newest()?;
        assert!(!name_exists(&name));
    }
    Ok(())
}

pub(crate) fn files_that_others_may_write_are_refused() -> Outcome {
    requires_posix()?;
    let mut provider = StdShMemProvider::new()?;
    let file = File::new(&format!("open-{}", process::id()), 0o600)?;
    let _ = provider.shmem_from_id(file.id())?;
    for mode in [0o666, 0o620, 0o602, 0o1622] {
        fs::set_permissions(&file.0, Permissions::from_mode(mode))?;
        let error = provider
            .shmem_from_id(file.id())
            .expect_err("others may write");
        assert!(
            error.to_string().contains("let other users write"),
            "{mode:o}: {error}"
        );
    }
    fs::set_permissions(&file.0, Permissions::from_mode(0o644))?;
    let _ = provider.shmem_from_id(file.id())?;

    // A second name of a file elsewhere.
    let second = File(PathBuf::from(format!("/dev/shm/second-{}", process::id())));
    fs::hard_link(&file.0, &second.0)?;
    let error = provider.shmem_from_id(second.id()).expect_err("two names");
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    drop(second);
    let _ = provider.shmem_from_id(file.id())?;
    Ok(())
}

/// The error does not claim that the file belongs to another user.
pub(crate) fn read_only_file_is_an_error_that_names_its_permissions() -> Outcome {
    can_start_by(AS_OTHER)?;
    let mut peer = Peer::start_by(AS_OTHER);
    let name = format!("/mode-{}", process::id());
    peer.make_named(&name, 100)?;
    peer.execute(format!("posix mode {name} 400"))?;
    let error = peer.open(&name).expect_err("read-only");
    assert!(error.contains("permissions"), "{error}");
    Ok(())
}

/// A process that waits for a reader of a FIFO continues to wait.
pub(crate) fn a_pipe_is_not_opened() -> Outcome {
    requires_posix()?;
    let pipe = File(PathBuf::from(format!("/dev/shm/pipe-{}", process::id())));
    let path = pipe.0.to_string_lossy().into_owned();
    let made = Command::new("mkfifo").args(["-m", "600", &path]).status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("no mkfifo here");
    }
    let mut writer = Command::new("sh")
        .args(["-c", &format!("exec echo >'{path}'")])
        .spawn()?;
    thread::sleep(Duration::from_millis(200));
    let opened = StdShMemProvider::new()?.shmem_from_id(pipe.id());
    let removed = MmapShMemProvider::remove(pipe.id());
    thread::sleep(Duration::from_millis(200));
    let status = writer.try_wait();
    // Ends the wait.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe.0);
    let _ = writer.kill();
    writer.wait()?;
    drop(reader?);
    assert!(matches!(opened, Err(Error::Foreign { .. })), "{opened:?}");
    assert!(matches!(removed, Err(Error::Foreign { .. })), "{removed:?}");
    assert_eq!(status?, None, "the FIFO was opened");
    Ok(())
}

/// Opening a file on which another process has a lease blocks until that process gives it up, or for 45
/// seconds.
pub(crate) fn leased_file_is_refused_without_waiting() -> Outcome {
    /// Sets the signal by which the kernel asks for the lease. SIGURG is ignored by default.
    const F_SETSIG: libc::c_int = 10;
    requires_posix()?;
    let leased = File::new(&format!("leased-{}", process::id()), 0o600)?;
    let holder = OpenOptions::new().write(true).open(&leased.0)?;
    let fcntl = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: the descriptor is open, and neither command takes a pointer.
        unsafe { libc::fcntl(holder.as_raw_fd(), command, argument) }
    };
    if fcntl(F_SETSIG, libc::SIGURG) == -1 || fcntl(libc::F_SETLEASE, libc::F_WRLCK) == -1 {
        return skip("no leases here");
    }
    let begin = Instant::now();
    let error = StdShMemProvider::new()?
        .shmem_from_id(leased.id())
        .expect_err("it is leased");
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    Ok(())
}

/// Without `flock`, orphans stay.
pub(crate) fn segments_work_without_proc_openat2_and_flock() -> Outcome {
    requires_posix()?;
    let mut peer = peer_in("-m", "mount -t tmpfs tmpfs /proc")?;
    let id = peer.make("posix", 100)?;
    peer.open(&id)?;
    peer.clone_newest()?;
    peer.remove_orphans()?;
    peer.open(&id)?;
    peer.kill();
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));

    for errno in ["ENOSYS", "EPERM"] {
        let mut peer = Peer::start();
        forbid_in(&mut peer, errno, "openat2 flock")?;
        let id = peer.make("posix", 100)?;
        peer.open(&id)?;
        peer.clone_newest()?;
        // Processes that have locks do not mistake it for an orphan.
        MmapShMemProvider::remove_orphans()?;
        Peer::start().open(&id)?;
        peer.kill();
        MmapShMemProvider::remove_orphans()?;
        assert!(name_exists(&id));
        MmapShMemProvider::remove(ShMemId::from_string(&id))?;
    }
    Ok(())
}

/// Other programs create files without reserving their memory. Accessing such memory when `/dev/shm` is full
/// raises SIGBUS.
pub(crate) fn sparse_files_are_reserved_or_refused() -> Outcome {
    let shell = "mount -t tmpfs -o size=4m,mode=1777 tmpfs /dev/shm
        umask 077; cd /dev/shm; printf content >large; cp large small
        truncate -s 8m large; truncate -s 2m small; cd /";
    let mut peer = peer_in("-m", shell)?;
    // If it is mapped, writing to all of it ends the peer.
    if peer.open("/large").is_ok() {
        for offset in (0..8 << 20).step_by(4096) {
            peer.put(offset, 1)?;
        }
    }
    let error = peer.open("/large").expect_err("there is no room");
    assert!(error.contains("/dev/shm has"), "{error}");
    // Only what is attached needs memory.
    peer.open_part("/large", 4096)?;
    assert_eq!(peer.get(0)?, b'c');
    peer.drop_newest()?;

    peer.open("/small")?;
    assert_eq!(peer.get(0)?, b'c');
    assert_eq!(peer.get(7)?, 0);
    // The segment has its memory even if nothing else is left.
    while peer.make("posix", 65536).is_ok() {}
    while peer.make("posix", 4096).is_ok() {}
    peer.open("/small")?;
    for offset in (0..2 << 20).step_by(4096) {
        peer.put(offset, 1)?;
    }
    peer.clone_newest()?;
    Ok(())
}

/// `remove` neither follows a symbolic link to a file elsewhere nor removes the link.
pub(crate) fn remove_refuses_links() -> Outcome {
    requires_posix()?;
    let directory = tempfile::tempdir()?;
    let target = directory.path().join("target");
    fs::write(&target, [0; 4096])?;
    let link = File(PathBuf::from(format!("/dev/shm/link-{}", process::id())));
    symlink(&target, &link.0)?;
    let removed = MmapShMemProvider::remove(link.id());
    assert!(matches!(removed, Err(Error::Foreign { .. })), "{removed:?}");
    assert!(target.exists());
    Ok(())
}

pub(crate) fn too_many_files_in_dev_shm_is_an_error_that_names_nr_inodes() -> Outcome {
    let shell = "mount -t tmpfs -o size=64m,nr_inodes=4,mode=1777 tmpfs /dev/shm";
    let mut peer = peer_in("-m", shell)?;
    // The root directory is one of the four.
    for _ in 0..3 {
        peer.make("posix", 4096)?;
    }
    let error = peer.make("posix", 4096).expect_err("there are 4");
    assert!(
        error.contains("/dev/shm has all of its 4 files") && error.contains("nr_inodes"),
        "{error}"
    );
    Ok(())
}

pub(crate) fn unusable_dev_shm_is_an_error_that_names_the_cure() -> Outcome {
    for (shell, errors) in [
        (
            "mount -t tmpfs -o ro tmpfs /dev/shm",
            ["/dev/shm is mounted read-only", "remount,rw"],
        ),
        (
            "mount -t tmpfs tmpfs /dev",
            ["/dev/shm does not exist", "mount -t tmpfs"],
        ),
    ] {
        let mut peer = peer_in("-m", shell)?;
        let error = peer.make("posix", 4096).expect_err(shell);
        for part in errors {
            assert!(error.contains(part), "{shell}: {error}");
        }
        if shell.contains("/dev/shm") {
            continue;
        }
        let error = peer.open("/a-name").expect_err(shell);
        assert!(error.contains(errors[0]), "{shell}: {error}");
    }
    Ok(())
}

/// The creator sets the mode after the file was created.
pub(crate) fn mode_does_not_depend_on_the_umask() -> Outcome {
    can_start_by(AS_OTHER)?;
    requires_posix()?;
    let words = ["sh", "-c", "umask 777; exec \"$@\"", "sh"];
    let wrapper: Vec<_> = AS_OTHER.iter().chain(&words).copied().collect();
    let mut creator = Peer::start_by(&wrapper);
    let id = creator.make("posix", 100)?;
    let mode = fs::metadata(format!("/dev/shm{id}"))?.mode();
    assert_eq!(mode & 0o7777, 0o1600);
    Peer::start_by(AS_OTHER).open(&id)?;
    Ok(())
}

/// On older kernels a signal undoes a whole `fallocate`, so that a call that takes longer than the time between
/// two signals never succeeds.
pub(crate) fn a_reservation_takes_smaller_steps_when_it_is_interrupted() -> Outcome {
    requires_posix()?;
    let mut peer = Peer::start();
    if let Err(reason) = peer.ask("posix interrupt") {
        return skip(format!("no seccomp filter here: {reason}"));
    }
    peer.make("posix", 8 << 20)?;
    peer.put((8 << 20) - 1, 1)?;
    Ok(())
}

/// Makes `fallocate` of more than 128 KiB fail by EINTR from now on.
fn interrupt_large_reservations() -> Answer {
    const LARGEST: u32 = 128 << 10;
    if !cfg!(target_pointer_width = "64") {
        return Err("the size is two arguments on this machine".into());
    }
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_K;
    // Offsets in `struct seccomp_data`: 0 is the number of the call, and this the lower half of its fourth
    // argument.
    let size = 16 + 3 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let number = u32::try_from(libc::SYS_fallocate)?;
    let interrupt = libc::SECCOMP_RET_ERRNO | libc::EINTR.unsigned_abs();
    let mut filter = [
        statement(load, 0, 0, 0),
        statement(jump | libc::BPF_JEQ, 0, 3, number),
        statement(load, 0, 0, size),
        statement(jump | libc::BPF_JGT, 0, 1, LARGEST),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, interrupt),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the call takes no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program outlives the call, which copies it.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } {
        0 => Ok(String::new()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// What a peer does.
pub(crate) fn execute(state: &mut State, words: &[&str]) -> Answer {
    let done = || Ok(String::new());
    match *words {
        ["exit"] => process::exit(0),
        ["interrupt"] => interrupt_large_reservations(),
        ["remove-orphans"] => Ok(MmapShMemProvider::remove_orphans()?.to_string()),
        ["keep-removing-orphans"] => loop {
            MmapShMemProvider::remove_orphans()?;
        },
        ["drop-oldest"] => {
            drop(state.segments.remove(0));
            done()
        }
        // These segments have another type and are kept apart.
        ["make", name, size] => {
            let segment = MmapShMemProvider::new()?.new_shmem_with_id(size.parse()?, name)?;
            state.hold(StdShMemProvider::new()?.shmem_from_id(segment.id())?)?;
            state.named.push(segment);
            done()
        }
        ["persist"] => {
            let segment = state.named.pop().ok_or("no segment")?;
            state.named.push(segment.persist()?);
            done()
        }
        ["remove", name] => {
            MmapShMemProvider::remove(ShMemId::from_string(name))?;
            done()
        }
        ["mode", name, mode] => {
            let mode = Permissions::from_mode(u32::from_str_radix(mode, 8)?);
            fs::set_permissions(format!("/dev/shm{name}"), mode)?;
            done()
        }
        // Creates segments in a child, which leaves them.
        ["leave", count, size] => {
            let (count, size) = (count.parse()?, size.parse()?);
            // SAFETY: this program has a single thread, so the child may do whatever the parent may.
            let child = unsafe { fork() };
            if child == 0 {
                let failed = (0..count).any(|_: u32| state.make("posix", size).is_err());
                // SAFETY: the call has no preconditions.
                unsafe { libc::_exit(failed.into()) };
            }
            wait_for(child)?;
            done()
        }
        // Kills children that create and drop segments.
        ["kill-creators", count] => {
            for round in 0..count.parse()? {
                // SAFETY: this program has a single thread, so the child may do whatever the parent may.
                let child = unsafe { fork() };
                if child == 0 {
                    while state.make("posix", 65536).is_ok() {
                        state.segments.clear();
                    }
                    // SAFETY: the call has no preconditions.
                    unsafe { libc::_exit(1) };
                }
                thread::sleep(Duration::from_micros(200 + round * 7 % 1000));
                // SAFETY: the call accesses no memory.
                unsafe { libc::kill(child, libc::SIGKILL) };
                let _ = wait_for(child);
            }
            done()
        }
        // Creates, opens and drops segments, and checks their names.
        ["make-and-check", count] => {
            for _ in 0..count.parse()? {
                let id = state.make("posix", 4096)?;
                state.hold(StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id))?)?;
                if !name_exists(&id) {
                    return Err(format!("{id} is gone").into());
                }
                state.segments.clear();
                if name_exists(&id) {
                    return Err(format!("{id} is still there").into());
                }
            }
            done()
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}
