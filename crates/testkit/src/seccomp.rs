//! System calls that fail, by a real seccomp filter.
#![allow(unsafe_code)]

use std::error::Error;
use std::io;

/// `shmget`, or the one call for all of System V where its C library uses that.
#[cfg(any(target_arch = "x86", target_arch = "s390x"))]
const SHMGET: libc::c_long = libc::SYS_ipc;
#[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
const SHMGET: libc::c_long = libc::SYS_shmget;

/// What a peer does: lets these calls fail with this error from now on.
pub fn forbid(words: &[&str]) -> Result<String, Box<dyn Error>> {
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
            "flock" => libc::SYS_flock,
            "openat2" => libc::SYS_openat2,
            "madvise" => libc::SYS_madvise,
            "close_range" => libc::SYS_close_range,
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
