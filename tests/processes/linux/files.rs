//! Segments in files: how long their ids open them, what killed processes leave, which directories and files
//! are refused.
#![allow(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use shmem_providers::{ShMem, ShMemId, ShMemProvider};
use tempfile::TempDir;

use super::fork::wait_until_gone;
use super::limits::peer_in;
use super::peer::{Answer, Commands, Peer, can_start_by, provider, public_program};
use testkit::peer::AS_OTHER;
use testkit::seccomp::forbid_in;
use testkit::{Outcome, natively, says_not_found, skip};

/// A directory for temporary files, of one test.
struct Temporary(TempDir);

impl Temporary {
    fn new() -> std::io::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// One that all users share, as `/tmp`.
    fn shared() -> std::io::Result<Self> {
        let directory = Self::new()?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o1777))?;
        Ok(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the directory of this user's files.
    fn ours(&self) -> PathBuf {
        self.path().join(format!("shmem-{}", geteuid().as_raw()))
    }

    fn peer(&self) -> Peer {
        Peer::started(Peer::command().env("TMPDIR", self.path()))
    }

    /// Starts a peer of another user.
    fn other(&self) -> Peer {
        let variable = format!("TMPDIR={}", self.path().display());
        let wrapper = [&["env", &variable], AS_OTHER].concat();
        Peer::start_by(&wrapper)
    }

    /// Returns how many files there are.
    fn files(&self) -> usize {
        fs::read_dir(self.ours()).map_or(0, Iterator::count)
    }

    #[track_caller]
    fn assert_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}, with {} files", self.files());
    }
}

/// The last holder to drop a segment removes the file, and the directory.
pub(crate) fn ids_open_files_while_any_process_holds_them() -> Outcome {
    let directory = Temporary::new()?;
    let (mut creator, mut first) = (directory.peer(), directory.peer());
    let id = creator.make("file", 70000)?;
    creator.put(69999, 1)?;
    assert_eq!(first.open(&id)?, 70000);
    // Dropped by its creator, and opened after that.
    creator.drop_newest()?;
    assert_eq!(directory.files(), 1);
    let mut second = directory.peer();
    assert_eq!(second.open(&id)?, 70000);
    assert_eq!(second.get(69999)?, 1);
    second.clone_newest()?;
    second.drop_newest()?;
    first.kill();
    assert_eq!(creator.open(&id)?, 70000);
    second.drop_newest()?;
    assert_eq!(directory.files(), 1);
    creator.drop_newest()?;
    directory.assert_empty();
    let error = second.open(&id).expect_err("it is gone");
    assert!(
        says_not_found(&error) && error.contains("TMPDIR"),
        "{error}"
    );
    Ok(())
}

/// Each process attaches to a segment whose only holder is the process before, which is then killed.
pub(crate) fn ids_open_files_after_their_creator_was_killed() -> Outcome {
    let directory = Temporary::new()?;
    let mut holder = directory.peer();
    let id = holder.make("file", 100)?;
    holder.put(0, 7)?;
    for _ in 0..5 {
        let mut next = directory.peer();
        next.open(&id)?;
        holder.kill();
        // It removes what no process holds.
        directory.peer().make("file", 1)?;
        assert_eq!(next.get(0)?, 7);
        holder = next;
    }
    holder.drop_newest()?;
    directory.assert_empty();
    Ok(())
}

pub(crate) fn file_of_a_killed_holder_is_removed_by_the_next_creator() -> Outcome {
    let directory = Temporary::new()?;
    let mut holder = directory.peer();
    let id = holder.make("file", 100)?;
    holder.kill();
    assert_eq!(directory.files(), 1);
    // Until then it exists, but the id does not open it.
    let error = directory.peer().open(&id).expect_err("nobody holds it");
    assert!(says_not_found(&error), "{error}");
    directory.assert_empty();
    let mut left = directory.peer();
    left.make("file", 100)?;
    left.kill();
    assert_eq!(directory.files(), 1);
    let mut next = directory.peer();
    next.make("file", 100)?;
    assert_eq!(directory.files(), 1);
    next.drop_newest()?;
    directory.assert_empty();
    Ok(())
}

/// The creator is killed at each system call between the command and its answer.
pub(crate) fn creators_killed_at_each_system_call_leave_no_file() -> Outcome {
    natively("which strace does not trace")?;
    let directory = Temporary::new()?;
    let log = directory.path().with_extension("strace");
    let run = |options: &[String]| -> std::io::Result<std::process::Output> {
        let mut command = Command::new("strace");
        command.args(options).arg("-o").arg(&log);
        command.arg(public_program()).arg("peer");
        let mut child = command
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // The peer may be dead already.
        let _ = std::io::Write::write_all(&mut stdin, b"make file 8192\ndrop\n");
        drop(stdin);
        child.wait_with_output()
    };
    let done = match run(&[]) {
        Ok(output) => output,
        Err(error) => return skip(format!("no strace here: {error}")),
    };
    let calls = fs::read_to_string(&log).unwrap_or_default();
    let calls: Vec<_> = calls.lines().collect();
    let begin = calls.iter().position(|call| call.starts_with("read(0, "));
    let (Some(begin), true) = (begin, done.status.success()) else {
        let _ = fs::remove_file(&log);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        return skip(format!("strace cannot trace here: {error}"));
    };
    directory.assert_empty();
    // strace counts the calls of each name separately.
    let names: Vec<_> = calls
        .iter()
        .filter_map(|call| Some(call.split_once('(')?.0))
        .collect();
    let mut killed = 0;
    for (index, name) in names.iter().enumerate().skip(begin + 1) {
        let nth = names[..=index]
            .iter()
            .filter(|other| *other == name)
            .count();
        let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
        let output = run(&["-e".into(), inject])?;
        killed += usize::from(!output.status.success());
        let mut next = directory.peer();
        next.make("file", 1)?;
        assert_eq!(directory.files(), 1, "killed at {}", calls[index]);
        next.drop_newest()?;
        directory.assert_empty();
    }
    fs::remove_file(&log)?;
    assert!(killed > 20, "only {killed} were killed");
    Ok(())
}

/// A child drops its copy, and another one outlives its parent.
pub(crate) fn forked_children_hold_files() -> Outcome {
    let directory = Temporary::new()?;
    let mut parent = directory.peer();
    let id = parent.make("file", 100)?;
    for by in ["drop", "exit"] {
        parent.execute(format!("fork {by}"))?;
        assert_eq!(directory.peer().open(&id)?, 100, "{by}");
    }
    let child: i32 = parent.ask_for("fork stay")?;
    parent.drop_newest()?;
    assert_eq!(directory.files(), 1, "the child holds it");
    parent.kill();
    directory.peer().make("file", 1)?;
    let opened = directory.peer().open(&id);
    // SAFETY: the call accesses no memory. The child waits to be killed, so the number is its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert_eq!(opened, Ok(100));
    wait_until_gone(child.unsigned_abs());
    directory.peer().make("file", 1)?;
    directory.assert_empty();
    Ok(())
}

/// Creators, which remove the empty directory, and processes that clean up.
pub(crate) fn creating_and_removing_files_disturbs_nobody() -> Outcome {
    let directory = Temporary::new()?;
    let mut creators: Vec<_> = (0..2).map(|_| directory.peer()).collect();
    for creator in &mut creators {
        creator.send("file make-and-check 1000");
    }
    for _ in 0..20 {
        directory.peer().make("file", 100)?;
    }
    for creator in &mut creators {
        creator.answer_to("make-and-check")?;
    }
    drop(creators);
    directory.assert_empty();
    Ok(())
}

/// What a peer does: creates and drops segments, or returns the kind of the error of creating one.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let count = match *words {
        ["make-and-check", count] => count,
        ["kind"] => {
            let made = provider("file")?.new_shmem(100);
            return Ok(made.map_or_else(|error| error.kind().to_string(), |_| String::new()));
        }
        _ => return Err("unknown command".into()),
    };
    for _ in 0..count.parse()? {
        let mut provider = provider("file")?;
        let mut made = provider.new_shmem(5000)?;
        made[4999] = 1;
        let id = made.id();
        let attached = provider.shmem_from_id(id)?;
        drop(made);
        if provider.shmem_from_id(id)?[4999] != 1 {
            return Err("another content".into());
        }
        drop(attached);
        if provider.shmem_from_id(id).is_ok() {
            return Err("it is not removed".into());
        }
    }
    Ok(String::new())
}

pub(crate) fn files_of_two_users_are_separate() -> Outcome {
    can_start_by(AS_OTHER)?;
    let directory = Temporary::shared()?;
    let (mut ours, mut other) = (directory.peer(), directory.other());
    let (id, theirs) = (ours.make("file", 100)?, other.make("file", 100)?);
    for error in [other.open(&id), ours.open(&theirs)] {
        let error = error.expect_err("another user");
        assert!(says_not_found(&error), "{error}");
    }
    let path = directory.path().join("shmem-65534");
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o7777, 0o700);
    let mode = fs::metadata(path.join(&theirs))?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Root finds files of others in its own directory, but does not open them.
    fs::rename(path.join(&theirs), directory.ours().join(&theirs))?;
    let error = ours.open(&theirs).expect_err("another user");
    assert!(error.contains("another user (uid 65534)"), "{error}");
    fs::rename(directory.ours().join(&theirs), path.join(&theirs))?;
    drop((ours, other));
    directory.assert_empty();
    Ok(())
}

/// Another user creates the directory first, as a directory, a symbolic link or a file, or can change it.
pub(crate) fn directories_of_others_are_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    let directory = Temporary::shared()?;
    let ours = directory.ours();
    let (path, elsewhere) = (ours.display(), directory.path().join("elsewhere"));
    fs::create_dir(&elsewhere)?;
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700))?;
    for (shell, problem) in [
        (
            format!("mkdir -m 700 '{path}'"),
            "belongs to another user (uid 65534)",
        ),
        (
            format!("ln -s '{}' '{path}'", elsewhere.display()),
            "belongs to another user (uid 65534)",
        ),
        (
            format!("touch '{path}'"),
            "belongs to another user (uid 65534)",
        ),
    ] {
        let mut command = Command::new(AS_OTHER[0]);
        command.args(&AS_OTHER[1..]).args(["sh", "-c", &shell]);
        assert!(command.status()?.success(), "{shell}");
        let made = directory.peer().make("file", 100);
        let opened = directory.peer().open("f123456789012345678");
        let kind = directory.peer().ask("file kind");
        let removed = fs::remove_file(&ours).or_else(|_| fs::remove_dir(&ours));
        for error in [made.map(drop), opened.map(drop)] {
            let error = error.expect_err(&shell);
            assert!(error.contains(problem), "{shell}: {error}");
            assert!(error.contains("set TMPDIR"), "{shell}: {error}");
        }
        removed?;
        assert_eq!(kind.as_deref(), Ok("other_user"), "{shell}");
    }
    assert_eq!(fs::read_dir(&elsewhere)?.count(), 0);

    // Directories of root are trusted on the way there, but not as the directory itself.
    if geteuid().is_root() {
        let theirs = directory.path().join("shmem-65534");
        fs::create_dir(&theirs)?;
        fs::set_permissions(&theirs, Permissions::from_mode(0o700))?;
        let made = directory.other().make("file", 100);
        fs::remove_dir(&theirs)?;
        let error = made.expect_err("root's");
        assert!(error.contains("another user (uid 0)"), "{error}");
    }

    // One of this user: a link, one that others may access, one that they may rename.
    symlink(&elsewhere, &ours)?;
    let error = directory.peer().make("file", 100).expect_err("a link");
    assert!(error.contains("is not a directory"), "{error}");
    fs::remove_file(&ours)?;
    fs::create_dir(&ours)?;
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    let error = directory.peer().make("file", 100).expect_err("it is open");
    assert!(error.contains("accessible to other users"), "{error}");
    fs::remove_dir(&ours)?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777))?;
    let error = directory.peer().make("file", 100).expect_err("not sticky");
    assert!(error.contains("rename"), "{error}");
    fs::remove_dir(&elsewhere)?;
    directory.assert_empty();
    Ok(())
}

/// Files in the directory that are not what this crate creates.
pub(crate) fn files_that_are_not_segments_are_refused() -> Outcome {
    let directory = Temporary::new()?;
    let mut peer = directory.peer();
    // Creates the directory.
    let held = peer.make("file", 100)?;
    let name = "f123456789012345678";
    let path = directory.ours().join(name);
    let mut refused = |what: &str| {
        let error = peer.open(name).expect_err(what);
        assert!(error.contains("cannot be mapped safely"), "{what}: {error}");
    };
    symlink(directory.ours().join(held), &path)?;
    refused("a link");
    fs::remove_file(&path)?;
    // Held by this process.
    let empty = fs::File::create(&path)?;
    empty.set_permissions(Permissions::from_mode(0o600))?;
    rustix::fs::flock(&empty, rustix::fs::FlockOperation::LockShared)?;
    refused("an empty file");
    drop(empty);
    // Nothing holds it any more.
    let error = directory.peer().open(name).expect_err("nobody holds it");
    assert!(says_not_found(&error), "{error}");
    assert!(!path.exists());
    fs::write(&path, [0; 100])?;
    fs::set_permissions(&path, Permissions::from_mode(0o622))?;
    refused("others may write");
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let second = directory.path().join("second");
    fs::hard_link(&path, &second)?;
    refused("two names");
    fs::remove_file(&second)?;
    fs::remove_file(&path)?;
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(&path)
        .status();
    if made.is_ok_and(|status| status.success()) {
        refused("a FIFO");
        fs::remove_file(&path)?;
    }
    // Other programs may have files there. They stay.
    let other = directory.ours().join("other");
    fs::write(&other, b"content")?;
    directory.peer().make("file", 1)?;
    assert_eq!(fs::read(&other)?, b"content");
    fs::remove_file(&other)?;
    drop(peer);
    directory.assert_empty();
    Ok(())
}

/// An error, and no SIGBUS: every byte of what was created has space.
pub(crate) fn full_file_system_is_an_error_that_names_tmpdir() -> Outcome {
    let shell = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm
        mkdir /dev/shm/other; cd /dev/shm; export TMPDIR=/dev/shm";
    let mut peer = peer_in("-m", shell)?;
    let files = peer.files()?;
    let error = peer.make("file", 64 << 20).expect_err("it is too large");
    for part in [
        "fallocate (67108864 bytes)",
        "has 1020 KiB free of 1 MiB",
        "TMPDIR",
    ] {
        // The empty directory takes a page on some kernels.
        let part = part.replace(
            "1020 KiB",
            if error.contains("1 MiB free") {
                "1 MiB"
            } else {
                "1020 KiB"
            },
        );
        assert!(error.contains(&part), "{part}: {error}");
    }
    let mut made = 0;
    let error = loop {
        match peer.make("file", 100_000) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(error.contains("TMPDIR"), "{error}");
    assert!(made > 5, "{made}");
    for _ in 0..made {
        for offset in (0..100_000).step_by(4096) {
            peer.put(offset, 1)?;
        }
        peer.drop_newest()?;
    }
    peer.make("file", 900_000)?;
    peer.put(899_999, 1)?;
    peer.drop_newest()?;
    assert_eq!(peer.files()?, files);
    assert_eq!(peer.names()?, 1, "apart from `other`");
    Ok(())
}

/// Without locks nothing would tell whether a file is held.
pub(crate) fn files_without_locks_are_an_error_that_names_tmpdir() -> Outcome {
    let directory = Temporary::new()?;
    let mut holder = directory.peer();
    let id = holder.make("file", 100)?;
    for errno in ["ENOSYS", "EPERM"] {
        let mut peer = directory.peer();
        forbid_in(&mut peer, errno, "flock openat2")?;
        let files = peer.files()?;
        for error in [peer.make("file", 100).map(drop), peer.open(&id).map(drop)] {
            let error = error.expect_err("no locks");
            assert!(
                error.contains("flock") && error.contains("TMPDIR"),
                "{error}"
            );
        }
        assert_eq!(peer.files()?, files);
        assert_eq!(directory.files(), 1);
    }
    drop(holder);
    directory.assert_empty();
    Ok(())
}

pub(crate) fn missing_directory_is_an_error_that_names_tmpdir() -> Outcome {
    let directory = Temporary::new()?;
    let missing = directory.path().join("missing");
    let mut peer = Peer::started(Peer::command().env("TMPDIR", &missing));
    let error = peer.make("file", 100).expect_err("no directory");
    assert!(error.contains("does not exist: set TMPDIR"), "{error}");
    // A relative path would mean another directory in each process.
    let mut peer = Peer::started(Peer::command().env("TMPDIR", "."));
    let id = peer.make("file", 100)?;
    let path = Path::new("/tmp").join(format!("shmem-{}", geteuid().as_raw()));
    assert!(path.join(&id).exists());
    Ok(())
}

/// Without memfd, System V and `/dev/shm`.
pub(crate) fn default_uses_a_file_if_nothing_else_is_allowed() -> Outcome {
    let directory = Temporary::new()?;
    let variable = format!("export TMPDIR='{}'", directory.path().display());
    let shell = format!("mount -t tmpfs -o ro tmpfs /dev/shm\n{variable}");
    let mut peer = peer_in("-m", &shell)?;
    forbid_in(&mut peer, "EPERM", "memfd_create shmget")?;
    let id = peer.make("default", 100)?;
    assert_eq!(
        ShMemId::from_string(&id).kind(),
        shmem_providers::IdKind::File
    );
    assert_eq!(peer.ask("mechanism")?, "Some(File)");
    peer.put(99, 9)?;
    // In a user namespace, which other users need, this user has another number.
    if geteuid().is_root() {
        let mut other = directory.peer();
        other.open(&id)?;
        assert_eq!(other.get(99)?, 9);
    }
    drop(peer);
    directory.assert_empty();
    Ok(())
}
