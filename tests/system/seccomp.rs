//! Kernels and sandboxes without the system calls, by a real seccomp filter.
#![allow(unsafe_code)]

use std::io;

use crate::limits::peer_in;
use crate::peer::{ALL, Answer, Peer, here};
use crate::support::{DONE, Outcome, skip};

pub(crate) fn without_memfd_create() -> Outcome {
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
    DONE
}

pub(crate) fn without_memfd_and_system_v() -> Outcome {
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
    DONE
}

pub(crate) fn without_anything() -> Outcome {
    let mut peer = match peer_in("-m", "mount -t tmpfs -o ro tmpfs /dev/shm") {
        Ok(peer) => peer,
        Err(skipped) => return skipped,
    };
    if let Err(why) = peer.ask("forbid ENOSYS memfd_create shmget") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    // The first time each rung is tried, the second time it is known.
    let error = peer.ask("make default 100").expect_err("nothing is left");
    assert!(error.starts_with("memfd_create: "), "{error}");
    let error = peer.ask("make default 100").expect_err("nothing is left");
    assert!(
        error.starts_with("neither memfd nor System V nor POSIX"),
        "{error}"
    );
    let error = peer.ask("make posix 100").expect_err("nothing is left");
    assert!(error.starts_with("shm_open"), "{error}");
    DONE
}

/// `shmget`, or the one call for all of System V where its C library uses that.
#[cfg(any(target_arch = "x86", target_arch = "s390x"))]
const SHMGET: libc::c_long = libc::SYS_ipc;
#[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
const SHMGET: libc::c_long = libc::SYS_shmget;

/// What a peer does: lets these calls fail with this error from now on.
pub(crate) fn forbid(words: &[&str]) -> Answer {
    let (&errno, calls) = words.split_first().ok_or("which error?")?;
    let errno = match errno {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        other => return Err(format!("no error {other}").into()),
    };
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let statement = |op, k| libc::sock_filter {
        code: code(op),
        jt: 0,
        jf: 0,
        k,
    };
    // The number of the call is the first word of `struct seccomp_data`.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for &call in calls {
        let number = match call {
            "memfd_create" => libc::SYS_memfd_create,
            "shmget" => SHMGET,
            other => return Err(format!("no call {other}").into()),
        };
        let refuse = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
        program.push(libc::sock_filter {
            code: equal,
            jt: 0,
            jf: 1,
            k: u32::try_from(number)?,
        });
        program.push(statement(libc::BPF_RET | libc::BPF_K, refuse));
    }
    program.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program = libc::sock_fprog {
        len: u16::try_from(program.len())?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: no pointer is passed.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the program lives until the call returns, which copies it.
    if unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    } != 0
    {
        return Err(io::Error::last_os_error().into());
    }
    Ok(String::new())
}
