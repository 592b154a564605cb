//! System V segments of others: their owner, who may write them, and their pages.
#![allow(unsafe_code)]

use std::{io, ptr};

use shmem_providers::{Error, ShMemId, ShMemProvider, UnixShMemProvider};

use super::fork::wait_for;
use super::limits::{peer_in, permissions_are_reported};
use super::peer::{ALL, Answer, Commands, Peer, can_start_by, here};
use testkit::peer::AS_OTHER;
use testkit::{Outcome, fork, natively, skip};

/// A third user.
const AS_THIRD: &[&str] = &[
    "setpriv",
    "--reuid=65533",
    "--regid=65533",
    "--clear-groups",
    "--",
];

fn open(id: &str) -> Result<(), Error> {
    let opened = UnixShMemProvider::new()?.shmem_from_id(ShMemId::from_string(id));
    opened.map(drop)
}

/// The creator of a segment can set any owner and keeps access.
pub(crate) fn owner_that_the_creator_has_set_is_not_trusted() -> Outcome {
    permissions_are_reported().and_then(|()| can_start_by(AS_OTHER))?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let (mut creator, mut victim) = (Peer::start_by(AS_OTHER), Peer::start_by(AS_THIRD));
    let id = creator.ask("sysv make 4096 600 0")?;
    assert_eq!(open(&id), Err(Error::OtherUser { owner: Some(65534) }));
    let id = creator.ask("sysv make 4096 600 65533")?;
    for opened in [victim.open(&id), victim.open_part(&id, 100)] {
        let error = opened.expect_err("another user has created it");
        assert!(error.contains("uid 65534"), "{error}");
    }
    // For its creator it belongs to another user as well.
    let id = creator.ask("sysv make 4096 600 65533")?;
    let error = creator.open(&id).expect_err("given away");
    assert!(error.contains("uid 65533"), "{error}");
    Ok(())
}

/// The kernel refuses access to the segment and to its state. The error names the owner nevertheless.
pub(crate) fn owner_is_reported_when_the_kernel_refuses() -> Outcome {
    can_start_by(AS_OTHER)?;
    natively("which does not know SHM_STAT_ANY")?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let (mut creator, mut other) = (Peer::start_by(AS_THIRD), Peer::start_by(AS_OTHER));
    let id = creator.ask("sysv make 4096 600")?;
    let error = other.open(&id).expect_err("another user");
    assert!(error.contains("uid 65533"), "{error}");
    Ok(())
}

/// Even if the user's own programs have created it: every user could write it.
pub(crate) fn a_segment_that_others_may_write_is_refused() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    permissions_are_reported()?;
    let mut creator = Peer::start();
    for mode in ["666", "622", "660", "602"] {
        let id = creator.ask(format!("sysv make 4096 {mode}"))?;
        let error = open(&id).expect_err(mode);
        assert!(
            error.to_string().contains("let other users write"),
            "{mode}: {error}"
        );
    }
    for mode in ["600", "610", "640", "604"] {
        let id = creator.ask(format!("sysv make 4096 {mode}"))?;
        open(&id)?;
    }
    Ok(())
}

/// The error does not claim that the segment belongs to another user.
pub(crate) fn unwritable_segment_is_an_error_that_names_its_permissions() -> Outcome {
    permissions_are_reported().and_then(|()| can_start_by(AS_OTHER))?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut creator = Peer::start_by(AS_OTHER);
    for mode in ["400", "200", "0"] {
        let id = creator.ask(format!("sysv make 4096 {mode}"))?;
        let error = creator.open(&id).expect_err(mode);
        assert!(!error.contains("another user"), "{mode}: {error}");
        assert!(error.contains("permissions"), "{mode}: {error}");
    }
    Ok(())
}

/// An orphan was created without a key, by a process of this user.
pub(crate) fn only_own_orphans_without_a_key_are_removed() -> Outcome {
    permissions_are_reported()?;
    for (key, creator, is_orphan) in [("0", "-", true), ("7", "-", false), ("0", "65534", false)] {
        let mut peer = peer_in("-i", "")?;
        match peer.execute(format!("sysv leave {key} 610 {creator}")) {
            Err(reason) if creator != "-" => return skip(format!("no other user here: {reason}")),
            left => left?,
        }
        peer.make("sysv", 1)?;
        let left = peer.segments()?;
        let expected = if is_orphan { 1 } else { 2 };
        assert_eq!(left, expected, "key {key}, by {creator}");
    }
    Ok(())
}

/// The first access to an unreserved huge page raises SIGBUS if none is free.
pub(crate) fn huge_pages_without_a_reservation_are_refused() -> Outcome {
    const HUGE: &str = "600 huge";
    natively("which has no huge pages")?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut creator = Peer::start();
    // More than a machine sets aside.
    let size = 1_u64
        << if cfg!(target_pointer_width = "64") {
            40
        } else {
            30
        };
    let id = match creator.ask(format!("sysv make {size} {HUGE}")) {
        Ok(id) => id,
        Err(reason) => return skip(format!("no huge pages here: {reason}")),
    };
    let mut peer = Peer::start();
    // If the segment is mapped and a page is missing, an access ends the peer.
    if peer.open_part(&id, 8 << 20).is_ok() {
        peer.get(0)?;
        peer.get((8 << 20) - 1)?;
        return skip("there are enough huge pages");
    }
    let error = peer.open_part(&id, 8 << 20).expect_err("as before");
    assert!(error.contains("huge pages"), "{error}");
    // The peer continues.
    let ordinary = creator.ask("sysv make 8388608 600")?;
    peer.open(&ordinary)?;
    Ok(())
}

/// The number means another segment there. The size in the description detects most of these mistakes.
pub(crate) fn number_of_another_ipc_namespace_is_refused_if_the_size_differs() -> Outcome {
    let start = || peer_in("-i", "");
    let (mut here, mut there) = (start()?, start()?);
    let ours = here.make("sysv", 65536)?;
    let theirs = there.make("sysv", 4096)?;
    assert_eq!(ours, theirs, "the first number of each");
    let error = there
        .open_part(&ours, 65536)
        .expect_err("it is another segment");
    assert!(error.contains("has 4096"), "{error}");
    // As documented, segments of the same size cannot be told apart.
    assert_eq!(there.open_part(&ours, 4096)?, 4096);
    Ok(())
}

/// What a peer does: `make SIZE MODE [UID | huge]` creates a segment that it holds until it ends, and sets the
/// owner. `leave KEY MODE UID` creates a segment in a child and leaves it; if there is a UID, that user is the
/// creator, and makes this user the owner.
pub(crate) fn execute(words: &[&str]) -> Answer {
    match *words {
        ["make", size, mode, ref rest @ ..] => {
            let mode = i32::from_str_radix(mode, 8)?;
            let kind = match rest {
                ["huge"] => libc::SHM_HUGETLB | libc::SHM_NORESERVE,
                _ => 0,
            };
            let number = get(libc::IPC_PRIVATE, size.parse()?, 0o600 | kind)?;
            // SAFETY: the kernel chooses an unused address.
            let address = unsafe { libc::shmat(number, ptr::null(), 0) };
            let attached = io::Error::last_os_error();
            let uid = rest.first().and_then(|uid| uid.parse().ok());
            let us = rustix::process::geteuid().as_raw();
            let changed = set(number, uid.unwrap_or(us), mode);
            // The attachment keeps the segment until this process ends.
            remove(number)?;
            changed?;
            if address.addr() == usize::MAX {
                return Err(attached.into());
            }
            Ok(number.to_string())
        }
        ["leave", key, mode, creator] => {
            let (key, mode) = (key.parse()?, i32::from_str_radix(mode, 8)?);
            let creator = creator.parse().ok();
            let us = rustix::process::geteuid().as_raw();
            // SAFETY: this program has a single thread, so the child may do whatever the parent may.
            let child = unsafe { fork() };
            if child == 0 {
                let left = || {
                    if let Some(creator) = creator {
                        // SAFETY: the call takes no pointer.
                        if unsafe { libc::setuid(creator) } != 0 {
                            return Err(io::Error::last_os_error());
                        }
                    }
                    let number = get(key, 1, mode | libc::IPC_CREAT)?;
                    set(number, us, mode)
                };
                let failed = i32::from(left().is_err());
                // SAFETY: the call has no preconditions.
                unsafe { libc::_exit(failed) };
            }
            wait_for(child)?;
            Ok(String::new())
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}

fn get(key: i32, size: usize, flags: i32) -> io::Result<i32> {
    // SAFETY: the call takes no pointer.
    match unsafe { libc::shmget(key, size, flags) } {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// Sets owner and permissions.
fn set(number: i32, uid: u32, mode: i32) -> io::Result<()> {
    // SAFETY: all zeros are a valid value of this type.
    let mut settings: libc::shmid_ds = unsafe { std::mem::zeroed() };
    settings.shm_perm.uid = uid;
    settings.shm_perm.mode = (mode & 0o777).try_into().unwrap_or(0);
    // SAFETY: the pointer is valid for reads of a `shmid_ds`.
    match unsafe { libc::shmctl(number, libc::IPC_SET, &raw mut settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn remove(number: i32) -> io::Result<()> {
    // SAFETY: this command does not use the pointer.
    match unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
