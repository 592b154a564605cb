//! How an id is resolved to a segment: process, descriptor, object; and what the errors report if it is not.
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

use super::peer::{Answer, Commands, Peer, State, can_start_by, here, public_program};
use testkit::peer::AS_OTHER;
use testkit::{Outcome, natively, says_not_found, skip};

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

/// Skips the test if there are no memfd segments here, or if one of these wrappers does not work.
fn requires_memfd_and(wrappers: &[&[&str]]) -> Outcome {
    if !here(&["memfd"]).contains(&"memfd") {
        return skip("no memfd here");
    }
    wrappers
        .iter()
        .try_for_each(|wrapper| can_start_by(wrapper))
}

pub(crate) fn a_decoy_hides_no_holder() -> Outcome {
    requires_memfd_and(&[])?;
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
        let id = creator.make("memfd", 65536)?;
        holder.open(&id)?;
        holder.put(65535, 1)?;
        creator.execute(format!("become {what} {id}"))?;
        let mut other = Peer::start();
        // Only its size distinguishes a smaller memfd with the same name and seals from the segment.
        let opened = if what == "smaller" {
            other.open_part(&id, 65536)
        } else {
            other.open(&id)
        };
        assert_eq!(opened, Ok(65536), "{what}");
        assert_eq!(other.get(65535)?, 1, "{what}");
    }
    Ok(())
}

pub(crate) fn segments_open_after_the_main_thread_has_ended() -> Outcome {
    requires_memfd_and(&[]).and_then(|()| natively("whose main thread ends the process"))?;
    let mut creator = Peer::start();
    let before = creator.make("memfd", 100)?;
    creator.put(0, 1)?;
    creator.execute("leave-main")?;
    let after = creator.make("default", 100)?;
    creator.put(0, 2)?;
    let mut other = Peer::start();
    for (id, byte) in [(&before, 1), (&after, 2)] {
        assert_eq!(other.open(&id)?, 100);
        assert_eq!(other.get(0)?, byte);
    }
    // The creator finds segments of others and its own.
    let id = other.make("memfd", 100)?;
    for id in [&id, &before] {
        assert_eq!(creator.open(&id)?, 100);
    }
    Ok(())
}

pub(crate) fn segment_of_a_thread_with_its_own_descriptor_table_is_found() -> Outcome {
    requires_memfd_and(&[])?;
    let mut creator = Peer::start();
    let id = match creator.ask("own-table") {
        Ok(id) => id,
        Err(reason) => return skip(format!("no descriptor table of its own: {reason}")),
    };
    let mut other = Peer::start();
    assert_eq!(other.open(&id)?, 100);
    assert_eq!(other.get(0)?, 1);
    Ok(())
}

/// What a peer does: creates a segment on a thread that has a descriptor table of its own.
pub(crate) fn create_in_own_descriptor_table() -> Answer {
    let (sender, created) = mpsc::channel();
    thread::spawn(move || {
        // SAFETY: the call copies the descriptors for this thread and accesses no memory.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return sender.send(Err(io::Error::last_os_error().to_string()));
        }
        let mut provider = StdShMemProvider::default();
        match provider.new_shmem(100) {
            Ok(mut segment) => {
                segment[0] = 1;
                let sent = sender.send(Ok(segment.id().to_string()));
                // Holds the segment until the process ends.
                thread::park_timeout(Duration::from_secs(60));
                sent
            }
            Err(error) => sender.send(Err(error.to_string())),
        }
    });
    Ok(created.recv()??)
}

pub(crate) fn holder_in_another_primary_group_is_reported() -> Outcome {
    requires_memfd_and(&[AS_OTHER, IN_OTHER_GROUP])?;
    let mut creator = Peer::start_by(AS_OTHER);
    let id = creator.make("memfd", 100)?;
    let mut other = Peer::start_by(IN_OTHER_GROUP);
    let error = other.open(&id).expect_err("another group");
    assert!(!error.contains("another user"), "{error}");
    for part in [
        "group 65534",
        "group 12345",
        "StdServedShMemProvider",
        "newgrp",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The error is the same if another holder is in that group.
    let mut holder = Peer::start_by(AS_OTHER);
    holder.open(&id)?;
    creator.kill();
    let error = other.open(&id).expect_err("another group");
    assert!(
        says_not_found(&error) && error.contains("group 65534"),
        "{error}"
    );
    assert!(error.contains("not seen"), "{error}");
    Ok(())
}

pub(crate) fn holder_with_more_capabilities_is_reported() -> Outcome {
    requires_memfd_and(&[AS_OTHER, WITH_CAPABILITY])?;
    let mut creator = Peer::start_by(WITH_CAPABILITY);
    if here(&["sysv"]).contains(&"sysv") {
        // The default notices that others could not open a memfd.
        let id = creator.make("default", 100)?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        assert_eq!(Peer::start_by(AS_OTHER).open(&id)?, 100);
    }
    // A holder with more capabilities than the creator.
    let mut plain = Peer::start_by(AS_OTHER);
    let id = plain.make("memfd", 100)?;
    assert_eq!(creator.open(&id)?, 100);
    plain.kill();
    let mut other = Peer::start_by(AS_OTHER);
    let error = other.open(&id).expect_err("it is closed");
    assert!(says_not_found(&error), "{error}");
    assert!(error.contains("capabilities"), "{error}");
    // A process with the same capabilities may open it.
    assert_eq!(Peer::start_by(WITH_CAPABILITY).open(&id)?, 100);
    Ok(())
}

/// Its capabilities are known without a descriptor, so also when there is none left.
pub(crate) fn privileged_creator_without_descriptors_uses_system_v() -> Outcome {
    requires_memfd_and(&[AS_OTHER, WITH_CAPABILITY])?;
    if !here(&["sysv"]).contains(&"sysv") {
        return skip("no System V segments here");
    }
    for left in 0..4 {
        let mut creator = Peer::start_by(WITH_CAPABILITY);
        creator.execute(format!("limit files {left}"))?;
        // This may fail. What the process remembers from it decides about the next one.
        let _ = creator.make("default", 100);
        creator.execute("limit files 50")?;
        let id = creator.make("default", 100)?;
        let opened = Peer::start_by(AS_OTHER).open(&id);
        assert_eq!(opened, Ok(100), "{left} left");
    }
    Ok(())
}

pub(crate) fn undumpable_holder_is_reported() -> Outcome {
    requires_memfd_and(&[AS_OTHER])?;
    let mut creator = Peer::start_by(AS_OTHER);
    let id = creator.make("memfd", 100)?;
    creator.execute("undumpable")?;
    let error = Peer::start_by(AS_OTHER)
        .open(&id)
        .expect_err("it is closed");
    assert!(!error.contains("another user"), "{error}");
    assert!(error.contains("PR_SET_DUMPABLE"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    Ok(())
}

pub(crate) fn memfd_is_used_again_once_dumpable() -> Outcome {
    requires_memfd_and(&[])?;
    let mut creator = Peer::start();
    creator.execute("undumpable")?;
    let id = creator.make("default", 100)?;
    assert!(!id.starts_with('m'), "{id}");
    creator.execute("dumpable")?;
    let id = creator.make("default", 100)?;
    assert!(id.starts_with('m'), "{id}");
    Ok(())
}

/// What a peer does: becomes another user for good.
pub(crate) fn become_user(uid: u32) -> Answer {
    // SAFETY: the call accesses no memory.
    if unsafe { libc::setresgid(uid, uid, uid) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the call accesses no memory.
    if unsafe { libc::setresuid(uid, uid, uid) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(String::new())
}

/// A process that has changed its user cannot be inspected by others until it executes a program.
pub(crate) fn segments_open_after_root_has_become_another_user() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    requires_memfd_and(&[AS_OTHER])?;
    let mut creator = Peer::start();
    creator.make("default", 100)?;
    creator.drop_newest()?;
    creator.execute("user 65534")?;
    let mut other = Peer::start_by(AS_OTHER);
    for _ in 0..40 {
        let id = creator.make("default", 100)?;
        assert_eq!(other.open(&id), Ok(100), "{id}");
        other.drop_newest()?;
        creator.drop_newest()?;
    }
    Ok(())
}

/// Once a process has changed its user, segments of its former user are another user's.
pub(crate) fn segments_of_the_former_user_are_refused() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    let path = format!("/dev/shm/left-{}", std::process::id());
    if fs::write(&path, [7; 100]).is_err() {
        return skip("no POSIX shared memory here");
    }
    let open_as_other = || -> Result<_, Box<dyn std::error::Error>> {
        // Root has made it accessible to everybody.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let id = path.trim_start_matches("/dev/shm");
        let mut peer = Peer::start();
        peer.execute("user 65534")?;
        Ok(peer.open(&id))
    };
    let opened = open_as_other();
    fs::remove_file(&path)?;
    let error = opened?.expect_err("it is root's");
    assert!(error.contains("another user (uid 0)"), "{error}");
    Ok(())
}

/// All users that a namespace does not map have the same number there.
pub(crate) fn unmapped_user_is_refused() -> Outcome {
    let wrapper = &["unshare", "--user", "--"];
    requires_memfd_and(&[wrapper])?;
    let path = format!("/dev/shm/unmapped-{}", std::process::id());
    let id = path.trim_start_matches("/dev/shm").to_owned();
    let mut peer = Peer::start_by(wrapper);
    let mut ids = Vec::new();
    let mut creator = Peer::start();
    for mechanism in here(&["memfd", "sysv"]) {
        ids.push(creator.make(mechanism, 100)?);
    }
    // A file that everybody may access; another user's, if this process may change its owner.
    let is_open_to_all = fs::write(&path, [7; 100]).is_ok()
        && fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).is_ok();
    if is_open_to_all {
        let _ = std::os::unix::fs::chown(&path, Some(12345), Some(12345));
        ids.push(id);
    }
    let answers: Vec<_> = ids.iter().map(|id| peer.open(&id)).collect();
    let _ = fs::remove_file(&path);
    for (id, answer) in ids.iter().zip(answers) {
        let error = answer.expect_err(id);
        assert!(error.contains("no user of its own"), "{id}: {error}");
    }
    Ok(())
}

/// A holder of the same user in another user namespace.
pub(crate) fn holder_in_another_user_namespace_is_reported() -> Outcome {
    // Not 65534, which is also the number of all unmapped users.
    let plain: &[&str] = &[
        "setpriv",
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
    ];
    let namespace: &[&str] = &["unshare", "--user", "--map-current-user"];
    let wrapper = &[plain, namespace].concat();
    requires_memfd_and(&[plain, wrapper])?;
    let mut creator = Peer::start_by(plain);
    let id = creator.make("memfd", 100)?;
    let error = Peer::start_by(wrapper)
        .open(&id)
        .expect_err("another user namespace");
    assert!(
        !error.contains("another user (") && !error.contains("no process"),
        "{error}"
    );
    assert!(error.contains("user namespace"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    Ok(())
}

/// A process that Landlock restricts may not inspect processes outside of its domain.
pub(crate) fn security_module_is_reported() -> Outcome {
    requires_memfd_and(&[])?;
    let mut creator = Peer::start();
    let id = creator.make("memfd", 100)?;
    let mut other = Peer::start();
    if let Err(reason) = other.ask("landlock") {
        return skip(format!("no Landlock here: {reason}"));
    }
    let error = other.open(&id).expect_err("Landlock");
    assert!(!error.contains("another user ("), "{error}");
    for part in ["security module", "Landlock", "StdServedShMemProvider"] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}

/// What a peer does: restricts itself by Landlock to create no devices, which restricts `ptrace` as well
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
    // SAFETY: the call accesses no memory. The descriptor is closed with the process.
    match unsafe { libc::syscall(RESTRICT_SELF, fd, 0) } {
        0 => Ok(String::new()),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// Another user's process has a descriptor by which root could open a file that only root may access.
pub(crate) fn root_leaves_other_users_descriptors_alone() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root could open descriptors of others");
    }
    requires_memfd_and(&[AS_OTHER])?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fifo");
    mkfifo(&path)?;
    // Not close-on-exec, so that the other user's process inherits it.
    let fifo = rustix::fs::open(&path, OFlags::PATH, Mode::empty())?;
    let mut command = Command::new(AS_OTHER[0]);
    command
        .args(&AS_OTHER[1..])
        .arg(public_program())
        .arg("peer");
    let number = fifo.as_raw_fd();
    let copy = move || {
        // SAFETY: the call accesses no memory.
        match unsafe { libc::dup2(number, 40) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure only copies a descriptor, which is async-signal-safe.
    unsafe { command.pre_exec(copy) };
    let mut other = Peer::started(&mut command);
    let made = other.make("memfd", 100)?;
    let woken = wait_as_writer(&path);
    // An id with the same process and the descriptor of the FIFO.
    let id = with_descriptor(&made, 40);
    let error = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id));
    assert!(
        matches!(error, Err(Error::OtherUser { owner: Some(65534) })),
        "{error:?}"
    );
    let is_woken = woken();
    assert!(!is_woken, "the FIFO was opened");
    Ok(())
}

/// In a process with a root directory of its own, the link of any file can read like that of a memfd.
pub(crate) fn fifo_with_a_forged_link_is_not_opened() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can change the root directory");
    }
    requires_memfd_and(&[])?;
    let mut liar = Peer::start();
    let id = liar.make("memfd", 100)?;
    if let Err(reason) = liar.ask(format!("forged-fifo {id}")) {
        return skip(format!("no root directory of its own: {reason}"));
    }
    let error = Peer::start().open(&id).expect_err("a FIFO");
    assert_eq!(liar.ask("woken")?, "false", "the FIFO was opened");
    assert!(says_not_found(&error), "{error}");
    Ok(())
}

/// What a peer does: replaces its segment by a FIFO whose link reads like that of the segment.
pub(crate) fn forge_fifo(state: &mut State, id: &str) -> Answer {
    let directory = tempfile::tempdir()?;
    let root = CString::new(directory.path().as_os_str().as_encoded_bytes())?;
    let tmpfs = c"tmpfs".as_ptr();
    let checked = |result: libc::c_long| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: the call accesses no memory, and no other thread of this program uses paths.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let null = std::ptr::null();
    // SAFETY: the pointers are to strings that end with a zero, or null where that is allowed.
    checked(unsafe { libc::mount(null, c"/".as_ptr(), null, private, null.cast()) }.into())?;
    // SAFETY: as for the call before.
    checked(unsafe { libc::mount(tmpfs, root.as_ptr(), tmpfs, 0, null.cast()) }.into())?;
    // The old root stays mounted below the new one (`pivot_root(2)`, `pivot_root(".", ".")`).
    std::env::set_current_dir(directory.path())?;
    let here = c".".as_ptr();
    // SAFETY: as for the calls before.
    checked(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
    state.segments.clear();
    let name = format!("/memfd:shmem-{}", &id[8..]);
    mkfifo(Path::new(&name))?;
    // This gets the lowest free number, which is that of the segment.
    let fifo: OwnedFd = rustix::fs::open(&name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let woken = Arc::clone(&state.woken);
    let number = fifo.as_raw_fd();
    thread::spawn(move || {
        let path = format!("/proc/self/fd/{number}");
        // `/proc` may be hidden by the new root.
        let opened = rustix::fs::open(&name, OFlags::WRONLY, Mode::empty())
            .or_else(|_| rustix::fs::open(&path, OFlags::WRONLY, Mode::empty()));
        woken.store(opened.is_ok(), SeqCst);
    });
    // The thread blocks until there is a reader.
    thread::sleep(Duration::from_millis(200));
    fs::remove_file(format!("/memfd:shmem-{}", &id[8..]))?;
    state.decoy = Some(fifo);
    std::mem::forget(directory);
    Ok(String::new())
}

fn mkfifo(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the pointer is to a string that ends with a zero.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a thread that opens the FIFO for writing, which blocks until a process opens it for reading. The
/// function returned ends the thread, and returns `true` if a process had opened the FIFO before.
fn wait_as_writer(path: &Path) -> impl FnOnce() -> bool + use<> {
    let woken = Arc::new(AtomicBool::new(false));
    let (path, is_open) = (path.to_owned(), Arc::clone(&woken));
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            let opened = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            is_open.store(true, SeqCst);
            drop(opened);
        })
    };
    // The thread is to block before anything is tried.
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

/// Returns the id with another descriptor number of the same process.
fn with_descriptor(id: &str, number: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = |digit: u8| ALPHABET.iter().position(|&d| d == digit).unwrap_or(0) as u64;
    let locator = id[1..8]
        .bytes()
        .fold(0, |locator, digit| locator * 64 + value(digit));
    let mut locator = locator >> 20 << 20 | number;
    let mut digits = [0; 7];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(locator % 64) as usize];
        locator /= 64;
    }
    format!("m{}{}", String::from_utf8_lossy(&digits), &id[8..])
}

/// Ids of hostile peers cannot control a terminal.
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
    Ok(())
}
