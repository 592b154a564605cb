//! System V segments that others have made: whose they are, who may write them, and what their pages
//! are.
#![allow(unsafe_code)]

use std::{io, ptr};

use shmem_providers::{Error, ShMemId, ShMemProvider, UnixShMemProvider};

use super::fork::wait_for;
use super::limits::{peer_in, permissions_are_told};
use super::peer::{ALL, Answer, Peer, can_start_by, here};
use super::users::AS_OTHER;
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

/// The maker of a segment can set its owner to anybody, and goes on to have access.
pub(crate) fn owner_that_the_creator_has_set_is_not_trusted() -> Outcome {
    permissions_are_told().and_then(|()| can_start_by(AS_OTHER))?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let (mut maker, mut victim) = (Peer::start_by(AS_OTHER), Peer::start_by(AS_THIRD));
    let id = maker.ask("sysv make 4096 600 0")?;
    assert_eq!(open(&id), Err(Error::OtherUser { owner: Some(65534) }));
    let id = maker.ask("sysv make 4096 600 65533")?;
    for order in [format!("open {id}"), format!("open {id} 100")] {
        let error = victim.ask(order).expect_err("another user made it");
        assert!(error.contains("uid 65534"), "{error}");
    }
    // What was given away belongs to somebody else as well.
    let id = maker.ask("sysv make 4096 600 65533")?;
    let error = maker.ask(format!("open {id}")).expect_err("given away");
    assert!(error.contains("uid 65533"), "{error}");
    Ok(())
}

/// The kernel refuses before anything can be asked; the owner is told all the same.
pub(crate) fn owner_is_reported_when_the_kernel_refuses() -> Outcome {
    can_start_by(AS_OTHER)?;
    natively("which does not know SHM_STAT_ANY")?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let (mut maker, mut other) = (Peer::start_by(AS_THIRD), Peer::start_by(AS_OTHER));
    let id = maker.ask("sysv make 4096 600")?;
    let error = other.ask(format!("open {id}")).expect_err("another user");
    assert!(error.contains("uid 65533"), "{error}");
    Ok(())
}

/// Not even by the user's own programs: then every user could write it.
pub(crate) fn a_segment_that_others_may_write_is_refused() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    permissions_are_told()?;
    let mut maker = Peer::start();
    for mode in ["666", "622", "660", "602"] {
        let id = maker.ask(format!("sysv make 4096 {mode}"))?;
        let error = open(&id).expect_err(mode);
        assert!(
            error.to_string().contains("let other users write"),
            "{mode}: {error}"
        );
    }
    for mode in ["600", "610", "640", "604"] {
        let id = maker.ask(format!("sysv make 4096 {mode}"))?;
        open(&id)?;
    }
    Ok(())
}

/// That is no other user.
pub(crate) fn unwritable_segment_is_an_error_that_names_its_permissions() -> Outcome {
    permissions_are_told().and_then(|()| can_start_by(AS_OTHER))?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut maker = Peer::start_by(AS_OTHER);
    for mode in ["400", "200", "0"] {
        let id = maker.ask(format!("sysv make 4096 {mode}"))?;
        let error = maker.ask(format!("open {id}")).expect_err(mode);
        assert!(!error.contains("another user"), "{mode}: {error}");
        assert!(error.contains("permissions"), "{mode}: {error}");
    }
    Ok(())
}

/// Only what this user's processes have left, without a key, is an orphan.
pub(crate) fn only_own_orphans_without_a_key_are_removed() -> Outcome {
    permissions_are_told()?;
    for (key, giver, is_orphan) in [("0", "-", true), ("7", "-", false), ("0", "65534", false)] {
        let mut peer = peer_in("-i", "")?;
        match peer.ask(format!("sysv leave {key} 610 {giver}")) {
            Err(why) if giver != "-" => return skip(format!("no other user here: {why}")),
            left => left?,
        };
        peer.ask("make sysv 1")?;
        let left = peer.ask("segments")?;
        let expected = if is_orphan { "1" } else { "2" };
        assert_eq!(left, expected, "key {key}, by {giver}");
    }
    Ok(())
}

/// Of huge pages that nobody has reserved, the first touch raises SIGBUS if there are none.
pub(crate) fn huge_pages_without_a_reservation_are_refused() -> Outcome {
    const HUGE: &str = "600 huge";
    natively("which has no huge pages")?;
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut maker = Peer::start();
    // More than a machine sets aside.
    let size = 1_u64
        << if cfg!(target_pointer_width = "64") {
            40
        } else {
            30
        };
    let id = match maker.ask(format!("sysv make {size} {HUGE}")) {
        Ok(id) => id,
        Err(why) => return skip(format!("no huge pages here: {why}")),
    };
    let mut peer = Peer::start();
    // Were it mapped, these would end the peer.
    if peer.ask(format!("open {id} 8388608")).is_ok() {
        peer.ask("get 0")?;
        peer.ask("get 8388607")?;
        return skip("the huge pages are there");
    }
    let error = peer
        .ask(format!("open {id} 8388608"))
        .expect_err("as before");
    assert!(error.contains("huge pages"), "{error}");
    // It goes on.
    let ordinary = maker.ask("sysv make 8388608 600")?;
    peer.ask(format!("open {ordinary}"))?;
    Ok(())
}

/// The number means another segment there. The size of the description tells most of them.
pub(crate) fn number_of_another_ipc_namespace_is_refused_if_the_size_differs() -> Outcome {
    let start = || peer_in("-i", "");
    let (mut here, mut there) = (start()?, start()?);
    let ours = here.ask("make sysv 65536")?;
    let theirs = there.ask("make sysv 4096")?;
    assert_eq!(ours, theirs, "the first number of each");
    let error = there
        .ask(format!("open {ours} 65536"))
        .expect_err("it is another segment");
    assert!(error.contains("has 4096"), "{error}");
    // As documented: nothing tells these apart.
    assert_eq!(there.ask(format!("open {ours} 4096"))?, "4096");
    Ok(())
}

/// What a peer does: `make SIZE MODE [UID | huge]` makes a segment that it holds until it ends, and
/// sets its owner; `leave KEY MODE UID` has a child make one and leave it, which is given to this user
/// by the other one if there is a number.
pub(crate) fn obey(words: &[&str]) -> Answer {
    match *words {
        ["make", size, mode, ref rest @ ..] => {
            let mode = i32::from_str_radix(mode, 8)?;
            let kind = match rest {
                ["huge"] => libc::SHM_HUGETLB | libc::SHM_NORESERVE,
                _ => 0,
            };
            let number = get(libc::IPC_PRIVATE, size.parse()?, 0o600 | kind)?;
            // SAFETY: the kernel chooses the address.
            let place = unsafe { libc::shmat(number, ptr::null(), 0) };
            let attached = io::Error::last_os_error();
            let uid = rest.first().and_then(|uid| uid.parse().ok());
            let us = rustix::process::geteuid().as_raw();
            let changed = set(number, uid.unwrap_or(us), mode);
            // It stays until this process ends.
            remove(number)?;
            changed?;
            if place.addr() == usize::MAX {
                return Err(attached.into());
            }
            Ok(number.to_string())
        }
        ["leave", key, mode, giver] => {
            let (key, mode) = (key.parse()?, i32::from_str_radix(mode, 8)?);
            let giver = giver.parse().ok();
            let us = rustix::process::geteuid().as_raw();
            // SAFETY: this program has a single thread, so the child may do whatever the parent may.
            let child = unsafe { fork() };
            if child == 0 {
                let left = || {
                    if let Some(giver) = giver {
                        // SAFETY: no pointer is passed.
                        if unsafe { libc::setuid(giver) } != 0 {
                            return Err(io::Error::last_os_error());
                        }
                    }
                    let number = get(key, 1, mode | libc::IPC_CREAT)?;
                    set(number, us, mode)
                };
                let failed = i32::from(left().is_err());
                // SAFETY: no preconditions.
                unsafe { libc::_exit(failed) };
            }
            wait_for(child)?;
            Ok(String::new())
        }
        _ => Err(format!("unknown order {words:?}").into()),
    }
}

fn get(key: i32, size: usize, flags: i32) -> io::Result<i32> {
    // SAFETY: no pointer is passed.
    match unsafe { libc::shmget(key, size, flags) } {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// Sets owner and permissions.
fn set(number: i32, uid: u32, mode: i32) -> io::Result<()> {
    // SAFETY: all zeros are a value of it.
    let mut facts: libc::shmid_ds = unsafe { std::mem::zeroed() };
    facts.shm_perm.uid = uid;
    facts.shm_perm.mode = (mode & 0o777).try_into().unwrap_or(0);
    // SAFETY: the pointer is valid for reads of what the command reads.
    match unsafe { libc::shmctl(number, libc::IPC_SET, &raw mut facts) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn remove(number: i32) -> io::Result<()> {
    // SAFETY: this command reads nothing from the pointer.
    match unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
