//! Names in `/dev/shm`: which are cleaned up, whose may be removed, and what is opened.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::fork::{wait_for, wait_until_gone};
use super::limits::peer_in;
use super::peer::{ALL, Answer, Peer, State, can_start_by, here};
use super::support::{DONE, Outcome, fork, name_exists, skip};
use super::users::AS_OTHER;

/// A file in `/dev/shm`, removed in the end.
struct File(PathBuf);

impl File {
    /// Made by another program, with this mode.
    fn new(name: &str, mode: u32) -> std::io::Result<Self> {
        let file = Self(PathBuf::from(format!("/dev/shm/{name}")));
        let mut options = OpenOptions::new();
        let mut opened = options.write(true).create_new(true).open(&file.0)?;
        opened.write_all(&[0; 4096])?;
        opened.set_permissions(Permissions::from_mode(mode))?;
        Ok(file)
    }

    fn id(&self) -> ShMemId {
        let name = self.0.file_name().unwrap_or_default();
        ShMemId::from_string(&format!("/{}", name.to_string_lossy()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// As one of this crate, but for this process alone.
fn ours(letter: char) -> String {
    format!("shmem-{letter}{:010}", process::id())
}

fn none_here() -> Option<Outcome> {
    (!here(ALL).contains(&"posix")).then(|| skip("no POSIX shared memory here"))
}

/// Whether the name does not exist, or will not soon: another process may be about to remove it.
fn is_gone(id: &str) -> bool {
    for _ in 0..2000 {
        if !name_exists(id) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// By whoever makes the next one, in another process; and by whoever asks for it.
pub(crate) fn what_nobody_has_is_removed() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut left = Peer::start();
    let id = left.ask("make posix 100")?;
    left.kill();
    assert!(Peer::start().ask("make posix 100").is_ok());
    assert!(is_gone(&id), "the next one removes it");

    let mut left = Peer::start();
    let id = left.ask("make posix 100")?;
    left.kill();
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    let error = StdShMemProvider::new()?
        .shmem_from_id(ShMemId::from_string(&id))
        .expect_err("it is gone");
    assert!(matches!(error, Error::Gone { .. }), "{error:?}");
    DONE
}

/// `exit` runs no destructors of statics, nor of what is on a stack.
pub(crate) fn an_exit_without_a_drop() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut left = Peer::start();
    let id = left.ask("make posix 100")?;
    left.tell("posix exit");
    drop(left);
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    DONE
}

pub(crate) fn as_many_as_there_were_is_told() -> Outcome {
    let shell = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    peer.ask("posix leave 3 100")?;
    assert_eq!(peer.ask("names")?, "3");
    assert_eq!(peer.ask("posix sweep")?, "3");
    assert_eq!(peer.ask("posix sweep")?, "0");
    assert_eq!(peer.ask("names")?, "0");
    DONE
}

pub(crate) fn what_somebody_has_stays() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    // One who has opened it; by two ways.
    for how in ["open", "clone"] {
        let (mut creator, mut holder) = (Peer::start(), Peer::start());
        let id = creator.ask("make posix 100")?;
        creator.ask("put 7 7")?;
        holder.ask(format!("open {id}"))?;
        if how == "clone" {
            holder.ask("clone")?;
            holder.ask("posix drop-oldest")?;
        }
        creator.kill();
        stays(&id)?;
        // Even if it does nothing any more.
        kill_process(holder.process(), Signal::STOP)?;
        stays(&id)?;
        kill_process(holder.process(), Signal::CONT)?;
        assert_eq!(holder.ask("get 7")?, "7");
        holder.kill();
        MmapShMemProvider::remove_orphans()?;
        assert!(is_gone(&id), "{how}");
    }
    // A child that was forked.
    let mut parent = Peer::start();
    let id = parent.ask("make posix 100")?;
    let child: i32 = parent.ask("fork stay")?.parse()?;
    parent.kill();
    stays(&id)?;
    // SAFETY: no memory is involved. The child waits to be killed, so the number is its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait_until_gone(child.unsigned_abs());
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    DONE
}

/// Nothing removes it, and it can be opened.
fn stays(id: &str) -> Result<(), Box<dyn std::error::Error>> {
    MmapShMemProvider::remove_orphans()?;
    Peer::start().ask("make posix 1")?;
    Peer::start().ask(format!("open {id} 100"))?;
    assert!(name_exists(id));
    Ok(())
}

/// What persists, what has a chosen name, what another program has made.
pub(crate) fn what_is_not_to_be_cleaned_up_stays() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut provider = MmapShMemProvider::new()?;
    let persisted = provider.new_shmem(100)?.persist()?.id();
    let other = File::new(&ours('a'), 0o600)?;
    let marked = File::new(&format!("other-{}", process::id()), 0o1600)?;
    let mut named = Peer::start();
    let name = format!("/named-{}", process::id());
    named.ask(format!("posix make {name} 100"))?;
    named.kill();

    MmapShMemProvider::remove_orphans()?;
    Peer::start().ask("make posix 1")?;
    for id in [
        persisted.as_str(),
        &name,
        other.id().as_str(),
        marked.id().as_str(),
    ] {
        assert!(name_exists(id), "{id}");
    }
    MmapShMemProvider::remove(ShMemId::from_string(&name))?;
    MmapShMemProvider::remove(persisted)?;
    DONE
}

/// Not if it is used, not if it persists, and not if another program has made it.
pub(crate) fn a_chosen_name_is_free_again_after_its_creator_was_killed() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let name = format!("/again-{}", process::id());
    let make = format!("posix make {name} 100");
    let mut first = Peer::start();
    first.ask(&make)?;
    first.ask("put 0 1")?;
    let taken = |when: &str| {
        let error = Peer::start().ask(&make).expect_err(when);
        assert!(error.contains("exists"), "{when}: {error}");
    };
    taken("its creator has it");
    let mut holder = Peer::start();
    holder.ask(format!("open {name}"))?;
    first.kill();
    taken("another one has it");
    holder.kill();

    let mut second = Peer::start();
    second.ask(&make)?;
    assert_eq!(second.ask("get 0")?, "0");
    second.ask("posix persist")?;
    second.kill();
    taken("it persists");
    MmapShMemProvider::remove(ShMemId::from_string(&name))?;

    let file = File::new(&name[1..], 0o600)?;
    taken("another program has made it");
    drop(file);
    assert!(!name_exists(&name));
    DONE
}

pub(crate) fn another_users_names_are_left_alone() -> Outcome {
    // A user that no other test acts for, which would clean up for it.
    let uid = 200_000 + process::id() % 100_000;
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let as_other = &["setpriv", &*user, &*group, "--clear-groups", "--"];
    if let Err(skipped) = can_start_by(as_other) {
        return skipped;
    }
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let refused = Err(Error::OtherUser { owner: Some(uid) });
    let mut other = Peer::start_by(as_other);
    let id = ShMemId::from_string(&other.ask("make posix 100")?);
    assert_eq!(MmapShMemProvider::remove(id), refused);
    other.kill();
    // Not even when it is theirs to be cleaned up.
    MmapShMemProvider::remove_orphans()?;
    assert!(name_exists(id.as_str()));
    assert_eq!(MmapShMemProvider::remove(id), refused);
    Peer::start_by(as_other).ask("make posix 1")?;
    assert!(is_gone(id.as_str()), "they do that themselves");

    // A chosen name that another user has left.
    let name = format!("/theirs-{}", process::id());
    let mut other = Peer::start_by(as_other);
    other.ask(format!("posix make {name} 100"))?;
    other.kill();
    let made = MmapShMemProvider::new()?.new_shmem_with_id(100, &name);
    let removed = Peer::start_by(as_other).ask(format!("posix remove {name}"));
    assert_eq!(
        made.map(drop).map_err(|error| error.raw_os_error()),
        Err(Some(libc::EEXIST))
    );
    removed?;
    DONE
}

/// The name was removed, and given to a newer one.
pub(crate) fn a_newer_segment_keeps_its_name() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
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

    // Of another user, for whom we could remove it.
    if can_start_by(AS_OTHER).is_ok() {
        let older = provider.new_shmem_with_id(100, &name)?;
        MmapShMemProvider::remove(older.id())?;
        let mut other = Peer::start_by(AS_OTHER);
        other.ask(format!("posix make {name} 100"))?;
        drop(older);
        assert!(name_exists(&name));
        other.ask("drop")?;
        assert!(!name_exists(&name));
    }
    DONE
}

pub(crate) fn what_others_may_write_is_refused() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut provider = StdShMemProvider::new()?;
    let file = File::new(&format!("open-{}", process::id()), 0o600)?;
    provider.shmem_from_id(file.id())?;
    for mode in [0o666, 0o620, 0o602, 0o1622] {
        fs::set_permissions(&file.0, Permissions::from_mode(mode))?;
        let error = provider.shmem_from_id(file.id()).expect_err("it is open");
        assert!(
            error.to_string().contains("let other users write"),
            "{mode:o}: {error}"
        );
    }
    fs::set_permissions(&file.0, Permissions::from_mode(0o644))?;
    provider.shmem_from_id(file.id())?;

    // A second name for a file that is not meant.
    let second = File(PathBuf::from(format!("/dev/shm/second-{}", process::id())));
    fs::hard_link(&file.0, &second.0)?;
    let error = provider.shmem_from_id(second.id()).expect_err("two names");
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    drop(second);
    provider.shmem_from_id(file.id())?;
    DONE
}

/// That is no other user.
pub(crate) fn a_file_that_its_owner_may_not_write() -> Outcome {
    if let Err(skipped) = can_start_by(AS_OTHER) {
        return skipped;
    }
    let mut peer = Peer::start_by(AS_OTHER);
    let name = format!("/mode-{}", process::id());
    peer.ask(format!("posix make {name} 100"))?;
    peer.ask(format!("posix mode {name} 400"))?;
    let error = peer.ask(format!("open {name}")).expect_err("read-only");
    assert!(error.contains("permissions"), "{error}");
    DONE
}

/// Whoever waits at a pipe is not woken.
pub(crate) fn a_pipe_is_not_opened() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
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
    let waits = writer.try_wait();
    // Lets it go on, whether or not it still waits.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe.0);
    let _ = writer.kill();
    writer.wait()?;
    drop(reader?);
    assert!(matches!(opened, Err(Error::Foreign { .. })), "{opened:?}");
    assert!(matches!(removed, Err(Error::Foreign { .. })), "{removed:?}");
    assert_eq!(waits?, None, "it was woken");
    DONE
}

/// Whoever opens a file on which another process has a lease waits for that process, or for 45 seconds.
pub(crate) fn a_lease_is_not_waited_for() -> Outcome {
    /// Which signal tells that the lease is wanted back: the default of this one is to do nothing.
    const F_SETSIG: libc::c_int = 10;
    if let Some(skipped) = none_here() {
        return skipped;
    }
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
    DONE
}

/// Without `/proc`, `openat2` or `flock` segments are made and opened; without the last they stay.
pub(crate) fn without_what_cleaning_up_needs() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut peer = match peer_in("-m", "mount -t tmpfs tmpfs /proc") {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    let id = peer.ask("make posix 100")?;
    peer.ask(format!("open {id}"))?;
    peer.ask("clone")?;
    peer.ask("posix sweep")?;
    peer.ask(format!("open {id}"))?;
    peer.kill();
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));

    for errno in ["ENOSYS", "EPERM"] {
        let mut peer = Peer::start();
        if let Err(why) = peer.ask(format!("forbid {errno} openat2 flock")) {
            return skip(format!("no seccomp filter here: {why}"));
        }
        let id = peer.ask("make posix 100")?;
        peer.ask(format!("open {id}"))?;
        peer.ask("clone")?;
        // Others have locks, and cannot know.
        MmapShMemProvider::remove_orphans()?;
        Peer::start().ask(format!("open {id}"))?;
        peer.kill();
        MmapShMemProvider::remove_orphans()?;
        assert!(name_exists(&id));
        MmapShMemProvider::remove(ShMemId::from_string(&id))?;
    }
    DONE
}

/// A process without locks makes segments while another one cleans up all the time.
pub(crate) fn what_is_made_without_locks_stays() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut peer = Peer::start();
    if let Err(why) = peer.ask("forbid ENOSYS flock") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    let done = AtomicBool::new(false);
    let missing = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let _ = MmapShMemProvider::remove_orphans();
            }
        });
        let missing = (0..10_000).find_map(|_| {
            let made = peer.ask("make posix 100");
            let missing = made.as_ref().is_ok_and(|id| !name_exists(id));
            let dropped = peer.ask("drop");
            (missing || made.is_err() || dropped.is_err()).then_some(made)
        });
        done.store(true, Relaxed);
        missing
    });
    assert_eq!(missing, None);
    DONE
}

/// Other programs do not reserve the memory of what they make. To touch it when `/dev/shm` is full raises
/// SIGBUS.
pub(crate) fn what_is_not_reserved_is_reserved_or_refused() -> Outcome {
    let shell = "mount -t tmpfs -o size=4m,mode=1777 tmpfs /dev/shm
        umask 077; cd /dev/shm; printf content >large; cp large small
        truncate -s 8m large; truncate -s 2m small; cd /";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    // Were it mapped, the second would end the peer.
    if peer.ask("open /large").is_ok() {
        for offset in (0..8 << 20).step_by(4096) {
            peer.ask(format!("put {offset} 1"))?;
        }
    }
    let error = peer.ask("open /large").expect_err("there is no room");
    assert!(error.contains("/dev/shm has"), "{error}");
    // As much as is asked for is enough.
    peer.ask("open /large 4096")?;
    assert_eq!(peer.ask("get 0")?, b'c'.to_string());
    peer.ask("drop")?;

    peer.ask("open /small")?;
    assert_eq!(peer.ask("get 0")?, b'c'.to_string());
    assert_eq!(peer.ask("get 7")?, "0");
    // What is left is used up, and the segment has its memory all the same.
    while peer.ask("make posix 65536").is_ok() {}
    while peer.ask("make posix 4096").is_ok() {}
    peer.ask("open /small")?;
    for offset in (0..2 << 20).step_by(4096) {
        peer.ask(format!("put {offset} 1"))?;
    }
    peer.ask("clone")?;
    DONE
}

/// Some thousand files of others cost little.
pub(crate) fn a_crowded_dev_shm() -> Outcome {
    let shell = "mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
        cd /dev/shm; seq -f 'file-%g' 10000 | xargs touch; cd /";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    assert_eq!(peer.ask("names")?, "10000");
    let begin = Instant::now();
    peer.ask("make posix 100")?;
    assert!(begin.elapsed() < Duration::from_secs(10));
    peer.ask("posix leave 1500 1")?;
    assert_eq!(peer.ask("posix sweep")?, "1500");
    assert_eq!(peer.ask("names")?, "10001");
    DONE
}

/// A program that opens a name which is a link to a file elsewhere would change that file.
pub(crate) fn a_link_is_not_removed_through() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("target");
    fs::write(&target, [0; 4096])?;
    let link = File(PathBuf::from(format!("/dev/shm/link-{}", process::id())));
    symlink(&target, &link.0)?;
    let removed = MmapShMemProvider::remove(link.id());
    assert!(matches!(removed, Err(Error::Foreign { .. })), "{removed:?}");
    assert!(target.exists());
    DONE
}

/// In every state, with the file system to itself.
pub(crate) fn creators_killed_at_any_time_leave_nothing() -> Outcome {
    let shell = "mount -t tmpfs -o size=16m,mode=1777 tmpfs /dev/shm";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    peer.ask("posix kill-creators 300")?;
    peer.ask("posix sweep")?;
    assert_eq!(peer.ask("names")?, "0");
    DONE
}

/// Nobody loses a name to one who cleans up meanwhile.
pub(crate) fn cleaning_up_disturbs_nobody() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut makers: Vec<_> = (0..2).map(|_| Peer::start()).collect();
    let mut sweeper = Peer::start();
    sweeper.tell("posix sweep-on");
    for maker in &mut makers {
        maker.tell("posix make-and-look 2000");
    }
    let answers: Vec<_> = makers
        .iter_mut()
        .map(|maker| maker.answer_to("make-and-look"))
        .collect();
    sweeper.kill();
    for answer in answers {
        answer?;
    }
    DONE
}

pub(crate) fn orphans_make_room_in_dev_shm() -> Outcome {
    let shell = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    // The first one looks for orphans as well: now it has looked.
    peer.ask("make posix 1")?;
    peer.ask("drop")?;
    peer.ask("posix leave 1 900000")?;
    assert_eq!(peer.ask("names")?, "1");
    peer.ask("make posix 900000")?;
    assert_eq!(peer.ask("names")?, "1");
    DONE
}

pub(crate) fn no_more_files_in_dev_shm() -> Outcome {
    let shell = "mount -t tmpfs -o size=64m,nr_inodes=4,mode=1777 tmpfs /dev/shm";
    let mut peer = match peer_in("-m", shell) {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    // The root of the file system is one.
    for _ in 0..3 {
        peer.ask("make posix 4096")?;
    }
    let error = peer.ask("make posix 4096").expect_err("there are 4");
    assert!(
        error.contains("/dev/shm has all of its 4 files") && error.contains("nr_inodes"),
        "{error}"
    );
    DONE
}

pub(crate) fn a_dev_shm_that_cannot_be_used() -> Outcome {
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
        let mut peer = match peer_in("-m", shell) {
            Ok(peer) => peer,
            Err(skipped) => return skipped,
        };
        let error = peer.ask("make posix 4096").expect_err(shell);
        for part in errors {
            assert!(error.contains(part), "{shell}: {error}");
        }
        if shell.contains("/dev/shm") {
            continue;
        }
        let error = peer.ask("open /a-name").expect_err(shell);
        assert!(error.contains(errors[0]), "{shell}: {error}");
    }
    DONE
}

/// The mode is set by whoever makes it, and not by the umask.
pub(crate) fn a_umask_takes_nothing_away() -> Outcome {
    if let Err(skipped) = can_start_by(AS_OTHER) {
        return skipped;
    }
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let words = ["sh", "-c", "umask 777; exec \"$@\"", "sh"];
    let wrapper: Vec<_> = AS_OTHER.iter().chain(&words).copied().collect();
    let mut creator = Peer::start_by(&wrapper);
    let id = creator.ask("make posix 100")?;
    let mode = fs::metadata(format!("/dev/shm{id}"))?.mode();
    assert_eq!(mode & 0o7777, 0o1600);
    Peer::start_by(AS_OTHER).ask(format!("open {id}"))?;
    DONE
}

/// On older kernels a signal undoes the whole of a call that reserves, so that one that takes longer
/// than the time between two signals is never done.
pub(crate) fn a_reservation_takes_smaller_steps_when_it_is_interrupted() -> Outcome {
    if let Some(skipped) = none_here() {
        return skipped;
    }
    let mut peer = Peer::start();
    if let Err(why) = peer.ask("posix interrupt") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    peer.ask("make posix 8388608")?;
    peer.ask("put 8388607 1")?;
    DONE
}

/// Whoever reserves more than 128 KiB by one call is interrupted, from now on.
fn interrupt_large_reservations() -> Answer {
    const LARGEST: u32 = 128 << 10;
    if !cfg!(target_pointer_width = "64") {
        return Err("the size has two parts on this machine".into());
    }
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_K;
    // Of `struct seccomp_data`: the number of the call, and the lower half of its fourth argument.
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
    // SAFETY: no pointer is passed.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program lives until the call returns, which copies it.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } {
        0 => Ok(String::new()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// What a peer does.
pub(crate) fn obey(state: &mut State, words: &[&str]) -> Answer {
    let done = || Ok(String::new());
    match *words {
        ["exit"] => process::exit(0),
        ["interrupt"] => interrupt_large_reservations(),
        ["sweep"] => Ok(MmapShMemProvider::remove_orphans()?.to_string()),
        ["sweep-on"] => loop {
            MmapShMemProvider::remove_orphans()?;
        },
        ["drop-oldest"] => {
            drop(state.segments.remove(0));
            done()
        }
        // The segments of this order are of another type, and kept apart.
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
        // A child makes so many and leaves them.
        ["leave", count, size] => {
            let (count, size) = (count.parse()?, size.parse()?);
            // SAFETY: this program has a single thread, so the child may do whatever the parent may.
            let child = unsafe { fork() };
            if child == 0 {
                let failed = (0..count).any(|_: u32| state.make("posix", size).is_err());
                // SAFETY: no preconditions.
                unsafe { libc::_exit(failed.into()) };
            }
            wait_for(child)?;
            done()
        }
        // Children make and drop until they are killed.
        ["kill-creators", count] => {
            for round in 0..count.parse()? {
                // SAFETY: this program has a single thread, so the child may do whatever the parent may.
                let child = unsafe { fork() };
                if child == 0 {
                    while state.make("posix", 65536).is_ok() {
                        state.segments.clear();
                    }
                    // SAFETY: no preconditions.
                    unsafe { libc::_exit(1) };
                }
                thread::sleep(Duration::from_micros(200 + round * 7 % 1000));
                // SAFETY: no memory is involved.
                unsafe { libc::kill(child, libc::SIGKILL) };
                let _ = wait_for(child);
            }
            done()
        }
        ["make-and-look", count] => {
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
        _ => Err(format!("unknown order {words:?}").into()),
    }
}
