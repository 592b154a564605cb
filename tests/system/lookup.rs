//! How an id leads to a segment: which process, which descriptor, what is it; and what the errors say
//! if it does not.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io, thread};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::peer::{Answer, Peer, State, can_start_by, here, public_program};
use super::support::{DONE, Outcome, natively, says_not_found, skip};
use super::users::AS_OTHER;

/// Runs a command as the other user with another primary group.
const IN_OTHER_GROUP: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=12345",
    "--clear-groups",
    "--",
];

/// Runs a command as the other user with a capability.
const WITH_CAPABILITY: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+net_raw",
    "--ambient-caps=+net_raw",
    "--",
];

/// Why a test that needs memfd segments and a user to change to cannot run, if it cannot.
fn lacking(wrappers: &[&[&str]]) -> Result<(), Outcome> {
    if !here(&["memfd"]).contains(&"memfd") {
        return Err(skip("no memfd here"));
    }
    wrappers
        .iter()
        .try_for_each(|wrapper| can_start_by(wrapper))
}

pub(crate) fn a_decoy_hides_no_holder() -> Outcome {
    if let Err(skipped) = lacking(&[]) {
        return skipped;
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
        "unsealed",
        "growable",
        "empty",
        "smaller",
        "read-only",
    ] {
        let (mut creator, mut holder) = (Peer::start(), Peer::start());
        let id = creator.ask("make memfd 65536")?;
        holder.ask(format!("open {id}"))?;
        holder.ask("put 65535 1")?;
        creator.ask(format!("become {what} {id}"))?;
        let mut other = Peer::start();
        // A smaller one with all that makes a segment is known by its size alone.
        let size = if what == "smaller" { " 65536" } else { "" };
        let opened = other.ask(format!("open {id}{size}"));
        assert_eq!(opened.as_deref(), Ok("65536"), "{what}");
        assert_eq!(other.ask("get 65535")?, "1", "{what}");
    }
    DONE
}

pub(crate) fn the_main_thread_has_ended() -> Outcome {
    if let Err(skipped) = lacking(&[]).and_then(|()| natively("whose main thread ends the process"))
    {
        return skipped;
    }
    let mut creator = Peer::start();
    let before = creator.ask("make memfd 100")?;
    creator.ask("put 0 1")?;
    creator.ask("leave-main")?;
    let after = creator.ask("make default 100")?;
    creator.ask("put 0 2")?;
    let mut other = Peer::start();
    for (id, byte) in [(&before, "1"), (&after, "2")] {
        assert_eq!(other.ask(format!("open {id}"))?, "100");
        assert_eq!(other.ask("get 0")?, byte);
    }
    // It finds others, and itself.
    let id = other.ask("make memfd 100")?;
    for id in [&id, &before] {
        assert_eq!(creator.ask(format!("open {id}"))?, "100");
    }
    DONE
}

pub(crate) fn a_thread_with_descriptors_of_its_own() -> Outcome {
    if let Err(skipped) = lacking(&[]) {
        return skipped;
    }
    let mut creator = Peer::start();
    let id = match creator.ask("own-table") {
        Ok(id) => id,
        Err(why) => return skip(format!("no table of its own: {why}")),
    };
    let mut other = Peer::start();
    assert_eq!(other.ask(format!("open {id}"))?, "100");
    assert_eq!(other.ask("get 0")?, "1");
    DONE
}

/// What a peer does: makes a segment on a thread that shares its descriptors with no other.
pub(crate) fn in_a_table_of_its_own(_: &mut State) -> Answer {
    let (sender, made) = mpsc::channel();
    thread::spawn(move || {
        // SAFETY: this thread gets copies of all descriptors; no memory is concerned.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return sender.send(Err(io::Error::last_os_error().to_string()));
        }
        let mut provider = StdShMemProvider::default();
        match provider.new_shmem(100) {
            Ok(mut segment) => {
                segment[0] = 1;
                let sent = sender.send(Ok(segment.id().to_string()));
                // Until the process ends.
                thread::park_timeout(Duration::from_secs(60));
                sent
            }
            Err(error) => sender.send(Err(error.to_string())),
        }
    });
    Ok(made.recv()??)
}

pub(crate) fn another_primary_group() -> Outcome {
    if let Err(skipped) = lacking(&[AS_OTHER, IN_OTHER_GROUP]) {
        return skipped;
    }
    let mut creator = Peer::start_by(AS_OTHER);
    let id = creator.ask("make memfd 100")?;
    let mut other = Peer::start_by(IN_OTHER_GROUP);
    let error = other.ask(format!("open {id}")).expect_err("another group");
    assert!(!error.contains("another user"), "{error}");
    for part in [
        "group 65534",
        "group 12345",
        "StdServedShMemProvider",
        "newgrp",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The same if it is but one of the holders.
    let mut holder = Peer::start_by(AS_OTHER);
    holder.ask(format!("open {id}"))?;
    creator.kill();
    let error = other.ask(format!("open {id}")).expect_err("another group");
    assert!(
        says_not_found(&error) && error.contains("group 65534"),
        "{error}"
    );
    assert!(error.contains("not seen"), "{error}");
    DONE
}

pub(crate) fn a_creator_with_capabilities() -> Outcome {
    if let Err(skipped) = lacking(&[AS_OTHER, WITH_CAPABILITY]) {
        return skipped;
    }
    let mut creator = Peer::start_by(WITH_CAPABILITY);
    if here(&["sysv"]).contains(&"sysv") {
        // The default knows.
        let id = creator.ask("make default 100")?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        assert_eq!(Peer::start_by(AS_OTHER).ask(format!("open {id}"))?, "100");
    }
    // A holder with more capabilities than the creator.
    let mut plain = Peer::start_by(AS_OTHER);
    let id = plain.ask("make memfd 100")?;
    assert_eq!(creator.ask(format!("open {id}"))?, "100");
    plain.kill();
    let mut other = Peer::start_by(AS_OTHER);
    let error = other.ask(format!("open {id}")).expect_err("it is closed");
    assert!(says_not_found(&error), "{error}");
    assert!(error.contains("capabilities"), "{error}");
    // A process with the same capabilities may open it.
    assert_eq!(
        Peer::start_by(WITH_CAPABILITY).ask(format!("open {id}"))?,
        "100"
    );
    DONE
}

/// What a process may do is known without a descriptor, and so when it has none left.
pub(crate) fn a_creator_with_capabilities_and_no_descriptor() -> Outcome {
    if let Err(skipped) = lacking(&[AS_OTHER, WITH_CAPABILITY]) {
        return skipped;
    }
    if !here(&["sysv"]).contains(&"sysv") {
        return skip("no System V segments here");
    }
    for left in 0..4 {
        let mut creator = Peer::start_by(WITH_CAPABILITY);
        creator.ask(format!("limit files {left}"))?;
        // It may fail; what it has learnt is what the next one goes by.
        let _ = creator.ask("make default 100");
        creator.ask("limit files 50")?;
        let id = creator.ask("make default 100")?;
        let opened = Peer::start_by(AS_OTHER).ask(format!("open {id}"));
        assert_eq!(opened, Ok("100".into()), "{left} left");
    }
    DONE
}

pub(crate) fn undumpable_after_making() -> Outcome {
    if let Err(skipped) = lacking(&[AS_OTHER]) {
        return skipped;
    }
    let mut creator = Peer::start_by(AS_OTHER);
    let id = creator.ask("make memfd 100")?;
    creator.ask("undumpable")?;
    let error = Peer::start_by(AS_OTHER)
        .ask(format!("open {id}"))
        .expect_err("it is closed");
    assert!(!error.contains("another user"), "{error}");
    assert!(error.contains("PR_SET_DUMPABLE"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    DONE
}

pub(crate) fn dumpable_again() -> Outcome {
    if let Err(skipped) = lacking(&[]) {
        return skipped;
    }
    let mut creator = Peer::start();
    creator.ask("undumpable")?;
    let id = creator.ask("make default 100")?;
    assert!(!id.starts_with('m'), "{id}");
    creator.ask("dumpable")?;
    let id = creator.ask("make default 100")?;
    assert!(id.starts_with('m'), "{id}");
    DONE
}

/// What a peer does: becomes another user for good.
pub(crate) fn become_user(uid: u32) -> Answer {
    // SAFETY: no memory is concerned.
    if unsafe { libc::setresgid(uid, uid, uid) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: as above.
    if unsafe { libc::setresuid(uid, uid, uid) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(String::new())
}

/// A process that changes its user is closed to all others, until it executes another program.
pub(crate) fn root_becomes_another_user() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    if let Err(skipped) = lacking(&[AS_OTHER]) {
        return skipped;
    }
    let mut creator = Peer::start();
    creator.ask("make default 100")?;
    creator.ask("drop")?;
    creator.ask("user 65534")?;
    let mut other = Peer::start_by(AS_OTHER);
    for _ in 0..40 {
        let id = creator.ask("make default 100")?;
        assert_eq!(other.ask(format!("open {id}")), Ok("100".into()), "{id}");
        other.ask("drop")?;
        creator.ask("drop")?;
    }
    DONE
}

/// What belongs to the user that a process was started for is another user's once it has left that.
pub(crate) fn a_user_that_was_left() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    let path = format!("/dev/shm/left-{}", std::process::id());
    if fs::write(&path, [7; 100]).is_err() {
        return skip("no POSIX shared memory here");
    }
    let answers = || -> Result<_, Box<dyn std::error::Error>> {
        // Root has opened it to everybody.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let id = path.trim_start_matches("/dev/shm");
        let mut peer = Peer::start();
        peer.ask("user 65534")?;
        Ok(peer.ask(format!("open {id}")))
    };
    let answer = answers();
    fs::remove_file(&path)?;
    let error = answer?.expect_err("it is root's");
    assert!(error.contains("another user (uid 0)"), "{error}");
    DONE
}

/// Users that a namespace does not map all look the same there.
pub(crate) fn a_user_namespace_without_a_map() -> Outcome {
    let wrapper = &["unshare", "--user", "--"];
    if let Err(skipped) = lacking(&[wrapper]) {
        return skipped;
    }
    let path = format!("/dev/shm/unmapped-{}", std::process::id());
    let id = path.trim_start_matches("/dev/shm").to_owned();
    let mut peer = Peer::start_by(wrapper);
    let mut ids = Vec::new();
    let mut maker = Peer::start();
    for mechanism in here(&["memfd", "sysv"]) {
        ids.push(maker.ask(format!("make {mechanism} 100"))?);
    }
    // Another user's, if there is one, that is open to all.
    let is_open_to_all = fs::write(&path, [7; 100]).is_ok()
        && fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).is_ok();
    if is_open_to_all {
        let _ = std::os::unix::fs::chown(&path, Some(12345), Some(12345));
        ids.push(id);
    }
    let answers: Vec<_> = ids
        .iter()
        .map(|id| peer.ask(format!("open {id}")))
        .collect();
    let _ = fs::remove_file(&path);
    for (id, answer) in ids.iter().zip(answers) {
        let error = answer.expect_err(id);
        assert!(error.contains("no user of its own"), "{id}: {error}");
    }
    DONE
}

/// A holder in another user namespace of the same user.
pub(crate) fn another_user_namespace() -> Outcome {
    // Not 65534, which is the number of all unmapped users as well.
    let plain: &[&str] = &[
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
    ];
    let namespace: &[&str] = &["unshare", "--user", "--map-current-user"];
    let wrapper = &[plain, namespace].concat();
    if let Err(skipped) = lacking(&[plain, wrapper]) {
        return skipped;
    }
    let mut creator = Peer::start_by(plain);
    let id = creator.ask("make memfd 100")?;
    let error = Peer::start_by(wrapper)
        .ask(format!("open {id}"))
        .expect_err("another user namespace");
    assert!(
        !error.contains("another user (") && !error.contains("no process"),
        "{error}"
    );
    assert!(error.contains("user namespace"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    DONE
}

/// A process that Landlock restricts may not look into others that it does not restrict.
pub(crate) fn a_security_module() -> Outcome {
    if let Err(skipped) = lacking(&[]) {
        return skipped;
    }
    let mut creator = Peer::start();
    let id = creator.ask("make memfd 100")?;
    let mut other = Peer::start();
    if let Err(why) = other.ask("landlock") {
        return skip(format!("no Landlock here: {why}"));
    }
    let error = other.ask(format!("open {id}")).expect_err("Landlock");
    assert!(!error.contains("another user ("), "{error}");
    for part in ["security module", "Landlock", "StdServedShMemProvider"] {
        assert!(error.contains(part), "{error}");
    }
    DONE
}

/// What a peer does: lets Landlock forbid it to make devices, and what comes with that
/// (`landlock(7)`, "Ptrace restrictions").
pub(crate) fn restrict() -> Answer {
    const CREATE_RULESET: libc::c_long = 444;
    const RESTRICT_SELF: libc::c_long = 446;
    const MAKE_CHAR: u64 = 1 << 6;

    rustix::thread::set_no_new_privs(true)?;
    let rules = [MAKE_CHAR];
    // SAFETY: the pointer is valid for reads of the length that is passed.
    let fd = unsafe { libc::syscall(CREATE_RULESET, rules.as_ptr(), size_of_val(&rules), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: no memory is concerned. The descriptor goes with the process.
    match unsafe { libc::syscall(RESTRICT_SELF, fd, 0) } {
        0 => Ok(String::new()),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// Another user's process has a descriptor through which root could open what only root may.
pub(crate) fn root_leaves_other_users_descriptors_alone() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root could open what others have");
    }
    if let Err(skipped) = lacking(&[AS_OTHER]) {
        return skipped;
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("fifo");
    mkfifo(&path)?;
    // Not close-on-exec: the other user's process inherits it.
    let place = rustix::fs::open(&path, OFlags::PATH, Mode::empty())?;
    let mut command = Command::new(AS_OTHER[0]);
    command
        .args(&AS_OTHER[1..])
        .arg(public_program())
        .arg("peer");
    let number = place.as_raw_fd();
    let copied = move || {
        // SAFETY: no memory is concerned.
        match unsafe { libc::dup2(number, 40) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure only copies a descriptor, which is allowed after a fork.
    unsafe { command.pre_exec(copied) };
    let mut other = Peer::started(&mut command);
    let made = other.ask("make memfd 100")?;
    // The process of that id, and the descriptor of the FIFO.
    let woken = wakes_a_writer(&path);
    let id = with_descriptor(&made, 40);
    let error = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id));
    assert!(
        matches!(error, Err(Error::OtherUser { owner: Some(65534) })),
        "{error:?}"
    );
    let is_woken = woken();
    assert!(!is_woken, "the FIFO was opened");
    DONE
}

/// A path in a root directory of its own can read like the link to a segment.
pub(crate) fn a_link_that_reads_like_a_segment() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can have another root directory");
    }
    if let Err(skipped) = lacking(&[]) {
        return skipped;
    }
    let mut liar = Peer::start();
    let id = liar.ask("make memfd 100")?;
    if let Err(why) = liar.ask(format!("forged-fifo {id}")) {
        return skip(format!("no root directory of its own: {why}"));
    }
    let error = Peer::start().ask(format!("open {id}")).expect_err("a FIFO");
    assert_eq!(liar.ask("woken")?, "false", "the FIFO was opened");
    assert!(says_not_found(&error), "{error}");
    DONE
}

/// What a peer does: puts a FIFO whose link reads like that of the segment in the place of it.
pub(crate) fn forge_a_fifo(state: &mut State, id: &str) -> Answer {
    let folder = tempfile::tempdir()?;
    let place = CString::new(folder.path().as_os_str().as_encoded_bytes())?;
    let tmpfs = c"tmpfs".as_ptr();
    let checked = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: this program has one thread that uses files.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let null = std::ptr::null();
    // SAFETY: the pointers are to strings that end with zero, or null where that is allowed.
    checked(unsafe { libc::mount(null, c"/".as_ptr(), null, private, null.cast()) }.into())?;
    // SAFETY: as above.
    checked(unsafe { libc::mount(tmpfs, place.as_ptr(), tmpfs, 0, null.cast()) }.into())?;
    // The old root stays, below the new one, at the same place.
    std::env::set_current_dir(folder.path())?;
    let here = c".".as_ptr();
    // SAFETY: as above.
    checked(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
    state.segments.clear();
    let name = format!("/memfd:shmem-{}", &id[8..]);
    mkfifo(Path::new(&name))?;
    // The lowest number that is free: that of the segment.
    let fifo: OwnedFd = rustix::fs::open(&name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let woken = Arc::clone(&state.woken);
    let number = fifo.as_raw_fd();
    thread::spawn(move || {
        let path = format!("/proc/self/fd/{number}");
        // `/proc` is below the new root.
        let opened = rustix::fs::open(&name, OFlags::WRONLY, Mode::empty())
            .or_else(|_| rustix::fs::open(&path, OFlags::WRONLY, Mode::empty()));
        woken.store(opened.is_ok(), SeqCst);
    });
    // Until it waits for a reader.
    thread::sleep(Duration::from_millis(200));
    fs::remove_file(format!("/memfd:shmem-{}", &id[8..]))?;
    state.lies = Some(fifo);
    std::mem::forget(folder);
    Ok(String::new())
}

fn mkfifo(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the pointer is to a string that ends with zero.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a thread wait for somebody to open the FIFO for reading. What is returned ends it, and tells
/// whether anybody did before.
fn wakes_a_writer(path: &Path) -> impl FnOnce() -> bool + use<> {
    let woken = Arc::new(AtomicBool::new(false));
    let (path, told) = (path.to_owned(), Arc::clone(&woken));
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            let opened = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            told.store(true, SeqCst);
            drop(opened);
        })
    };
    // Until it waits.
    thread::sleep(Duration::from_millis(200));
    move || {
        thread::sleep(Duration::from_millis(100));
        let is_woken = woken.load(SeqCst);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let _reader = rustix::fs::open(&path, flags, Mode::empty());
        let _ = writer.join();
        is_woken
    }
}

/// The id with another descriptor of the same process.
fn with_descriptor(id: &str, number: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = |digit: u8| ALPHABET.iter().position(|&d| d == digit).unwrap_or(0) as u64;
    let place = id[1..8]
        .bytes()
        .fold(0, |place, digit| place * 64 + value(digit));
    let mut place = place >> 20 << 20 | number;
    let mut digits = [0; 7];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(place % 64) as usize];
        place /= 64;
    }
    format!("m{}{}", String::from_utf8_lossy(&digits), &id[8..])
}

/// What a stranger's id contains does not act on a terminal.
pub(crate) fn messages_have_no_control_characters() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    for text in [
        "/\u{1b}]0;x\u{7}",
        "/\u{1b}[2J",
        "\u{7}",
        "m\u{1b}[31m",
        "s\u{1b}[31m",
        "1\u{1b}c",
        "/a\nb",
        "/\u{9b}2J",
        "/\u{202e}x",
    ] {
        let id = ShMemId::from_string(text);
        for error in [
            provider.shmem_from_id(id).err(),
            provider.shmem_from_id_and_size(id, 100).err(),
            Some(Error::Gone { id }),
            shmem_providers::MmapShMemProvider::remove(id).err(),
        ] {
            let error = error.ok_or("there is no such segment")?;
            for message in [error.to_string(), format!("{error:?}")] {
                let is_plain = |c: char| !c.is_control() && c != '\u{202e}';
                assert!(message.chars().all(is_plain), "{message:?}");
            }
        }
    }
    DONE
}
