//! Kernels and sandboxes without the system calls, by a real seccomp filter.

use super::limits::peer_in;
use super::peer::{ALL, Peer, here};
use testkit::{Outcome, skip};

pub(crate) fn system_v_is_used_without_memfd_create() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut other = Peer::start();
    for errno in ["ENOSYS", "EPERM"] {
        let mut peer = Peer::start();
        if let Err(why) = peer.ask(format!("forbid {errno} memfd_create")) {
            return skip(format!("no seccomp filter here: {why}"));
        }
        let error = peer.ask("make memfd 100").expect_err("it is forbidden");
        assert!(error.starts_with("memfd_create: "), "{error}");
        let id = peer.ask("make default 100")?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        assert_eq!(peer.ask("mechanism")?, "Some(SystemV)");
        // To open one that somebody else made, the call is not needed.
        if let Ok(id) = other.ask("make memfd 100") {
            peer.ask(format!("open {id}"))?;
        }
        peer.ask("make default 100")?;
    }
    Ok(())
}

pub(crate) fn posix_is_used_without_memfd_create_and_shmget() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut peer = Peer::start();
    if let Err(why) = peer.ask("forbid EPERM memfd_create shmget") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    let id = peer.ask("make default 100")?;
    assert!(id.starts_with('/'), "{id}");
    let error = peer.ask("make sysv 100").expect_err("it is forbidden");
    assert!(error.starts_with("shmget (100 bytes): "), "{error}");
    peer.ask("drop")?;
    Ok(())
}

pub(crate) fn missing_mechanisms_are_an_error_that_names_the_call() -> Outcome {
    let mut peer = peer_in("-m", "mount -t tmpfs -o ro tmpfs /dev/shm")?;
    if let Err(why) = peer.ask("forbid ENOSYS memfd_create shmget") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    // The first time each mechanism is tried; the second time it is known what the kernel lacks, but
    // `/dev/shm` could have been mounted since.
    let error = peer.ask("make default 100").expect_err("nothing is left");
    assert!(error.starts_with("memfd_create: "), "{error}");
    let error = peer.ask("make default 100").expect_err("nothing is left");
    assert!(error.starts_with("shm_open"), "{error}");
    Ok(())
}
