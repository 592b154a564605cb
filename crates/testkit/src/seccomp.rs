//! Makes system calls fail, by a real seccomp filter.
#![allow(unsafe_code)]

use std::error::Error;
use std::io;

use crate::peer::Peer;
use crate::{Outcome, skip};

/// The number of `shmget`, or of `ipc`, one call for all of System V, on machines that have that.
#[cfg(any(target_arch = "x86", target_arch = "s390x"))]
const SHMGET: libc::c_long = libc::SYS_ipc;
#[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
const SHMGET: libc::c_long = libc::SYS_shmget;

/// The offset of the lower half of the first argument in `struct seccomp_data`, in bytes.
const FIRST_ARGUMENT: u32 = 16 + if cfg!(target_endian = "big") { 4 } else { 0 };

/// Makes these calls fail with this error in the peer from now on, for peers that execute `forbid` by
/// [`forbid`]. Skips the test where there are no seccomp filters.
pub fn forbid_in(peer: &mut Peer, errno: &str, calls: &str) -> Outcome {
    match peer.execute(format!("forbid {errno} {calls}")) {
        Ok(()) => Ok(()),
        Err(reason) => skip(format!("no seccomp filter here: {reason}")),
    }
}

/// What a peer does: `ERROR CALL…` makes these calls fail with this error from now on. `unix-socket` is
/// `socket` for sockets of this machine only.
pub fn forbid(words: &[&str]) -> Result<String, Box<dyn Error>> {
    let (&errno, calls) = words.split_first().ok_or("no error is named")?;
    let errno = match errno {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        "ENOSPC" => libc::ENOSPC,
        other => return Err(format!("unknown error {other}").into()),
    };
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let statement = |op, k| libc::sock_filter {
        code: code(op),
        jt: 0,
        jf: 0,
        k,
    };
    // `struct seccomp_data` starts with the number of the call.
    let number_of_call = || statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let mut program = vec![number_of_call()];
    for &call in calls {
        let number = match call {
            "memfd_create" => libc::SYS_memfd_create,
            "shmget" => SHMGET,
            "fallocate" => libc::SYS_fallocate,
            "unix-socket" if cfg!(any(target_arch = "x86", target_arch = "s390x")) => {
                return Err("this machine has one call for all of sockets".into());
            }
            "unix-socket" => libc::SYS_socket,
            "futex" => libc::SYS_futex,
            "flock" => libc::SYS_flock,
            "openat2" => libc::SYS_openat2,
            "madvise" => libc::SYS_madvise,
            "epoll_ctl" => libc::SYS_epoll_ctl,
            "close_range" => libc::SYS_close_range,
            "futex_waitv" => libc::SYS_futex_waitv,
            other => return Err(format!("unknown call {other}").into()),
        };
        let refuse = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let unless_equal = |k, skipped| libc::sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            jt: 0,
            jf: skipped,
            k,
        };
        let refuse = statement(libc::BPF_RET | libc::BPF_K, refuse);
        let number = u32::try_from(number)?;
        if call == "unix-socket" {
            let family = u32::try_from(libc::AF_UNIX)?;
            program.extend([
                unless_equal(number, 4),
                statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, FIRST_ARGUMENT),
                unless_equal(family, 1),
                refuse,
                number_of_call(),
            ]);
        } else {
            program.extend([unless_equal(number, 1), refuse]);
        }
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
    // SAFETY: the program outlives the call, which copies it.
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
