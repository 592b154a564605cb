//! Kernels and sandboxes that lack system calls, by a real seccomp filter.

use super::limits::peer_in;
use super::peer::{ALL, Commands, Peer, here};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, skip};

pub(crate) fn system_v_is_used_without_memfd_create() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut other = Peer::start();
    for errno in ["ENOSYS", "EPERM"] {
        let mut peer = Peer::start();
        forbid_in(&mut peer, errno, "memfd_create")?;
        let error = peer.make("memfd", 100).expect_err("it is forbidden");
        assert!(error.starts_with("memfd_create: "), "{error}");
        let id = peer.make("default", 100)?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        assert_eq!(peer.ask("mechanism")?, "Some(SystemV)");
        // Opening a memfd of another process does not need the call.
        if let Ok(id) = other.make("memfd", 100) {
            peer.open(&id)?;
        }
        peer.make("default", 100)?;
    }
    Ok(())
}

pub(crate) fn posix_is_used_without_memfd_create_and_shmget() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut peer = Peer::start();
    forbid_in(&mut peer, "EPERM", "memfd_create shmget")?;
    let id = peer.make("default", 100)?;
    assert!(id.starts_with('/'), "{id}");
    let error = peer.make("sysv", 100).expect_err("it is forbidden");
    assert!(error.starts_with("shmget (100 bytes): "), "{error}");
    peer.drop_newest()?;
    Ok(())
}

pub(crate) fn missing_mechanisms_are_an_error_that_names_the_call() -> Outcome {
    let shell = "mount -t tmpfs -o ro tmpfs /dev/shm; export TMPDIR=/dev/shm";
    let mut peer = peer_in("-m", shell)?;
    forbid_in(&mut peer, "ENOSYS", "memfd_create shmget")?;
    // The first attempt tries each mechanism. The second one skips what the kernel lacks, but not POSIX and files,
    // as `/dev/shm` could have been mounted since.
    let error = peer.make("default", 100).expect_err("nothing is left");
    assert!(error.starts_with("memfd_create: "), "{error}");
    let error = peer.make("default", 100).expect_err("nothing is left");
    assert!(error.starts_with("shm_open"), "{error}");
    Ok(())
}
