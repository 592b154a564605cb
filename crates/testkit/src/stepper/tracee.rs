//! [`Tracee`]: a forked child of this process, stopped between two instructions.
#![allow(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::pid_t;

use super::Doomed;
use crate::{Outcome, skip};

/// What the C library takes as a request of `ptrace(2)`.
#[cfg(target_env = "musl")]
pub(super) type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
pub(super) type Request = libc::c_uint;

/// The exit code of a child that may not be traced.
const NOT_TRACED: i32 = 77;
/// The exit code of a child whose operation has failed.
const FAILED: i32 = 101;

/// Why a child has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A single step is done, or there is a breakpoint.
    Trap,
    /// A system call begins or ends.
    SystemCall,
    /// The operation begins or ends.
    Marker,
}

/// A child. It is killed by SIGKILL and reaped when this value is dropped, or when this process ends.
#[derive(Debug)]
pub(super) struct Tracee(pid_t);

impl Tracee {
    /// Forks a child that executes the operation, and stops it where that begins.
    ///
    /// This process has a single thread, as [`sweep`](super::sweep) demands.
    pub(super) fn start(operation: impl FnOnce(&Doomed) -> Outcome) -> Outcome<Self> {
        // SAFETY: there is no other thread that could be changing anything.
        let pid = unsafe { crate::fork() };
        match pid {
            -1 => return Err(io::Error::last_os_error().into()),
            0 => be_traced(operation),
            _ => {}
        }
        let child = Self(pid);
        match child.stop()? {
            Some(Stop::Marker) => {}
            Some(stop) => return Err(format!("stopped before the operation: {stop:?}").into()),
            None => return skip("ptrace(2) is not permitted here"),
        }
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        child.request(
            libc::PTRACE_SETOPTIONS,
            0,
            u64::from(options.unsigned_abs()),
        )?;
        Ok(child)
    }

    /// Continues until the next stop of the kind that is requested: `PTRACE_SINGLESTEP`, `PTRACE_SYSCALL` or
    /// `PTRACE_CONT`.
    pub(super) fn resume(&self, request: Request) -> Outcome<Stop> {
        self.request(request, 0, 0)?;
        let ended = "the child has ended before the end of the operation";
        self.stop()?.ok_or_else(|| ended.into())
    }

    /// Returns the address of the next instruction.
    pub(super) fn at(&self) -> Outcome<u64> {
        peek(
            libc::PTRACE_PEEKUSER,
            self.0,
            offset_of!(libc::user_regs_struct, rip) as u64,
        )
    }

    /// Sets the address of the next instruction.
    pub(super) fn go_to(&self, address: u64) -> Outcome {
        let rip = offset_of!(libc::user_regs_struct, rip) as u64;
        self.request(libc::PTRACE_POKEUSER, rip, address)
    }

    /// Puts a breakpoint before the instruction at this address, and returns the word that was there.
    pub(super) fn set_breakpoint(&self, address: u64) -> Outcome<u64> {
        let word = peek(libc::PTRACE_PEEKTEXT, self.0, address)?;
        // `int3`, in the first byte.
        self.write_text(address, word & !0xff | 0xcc)?;
        Ok(word)
    }

    /// Replaces a word of the program.
    pub(super) fn write_text(&self, address: u64, word: u64) -> Outcome {
        self.request(libc::PTRACE_POKETEXT, address, word)
    }

    fn request(&self, request: Request, address: u64, data: u64) -> Outcome {
        // SAFETY: the requests of this file read and write the memory of the child, which is stopped and whose
        // memory is its own; the kernel checks its addresses.
        let result = unsafe { libc::ptrace(request, self.0, address, data) };
        match result {
            -1 => Err(io::Error::last_os_error().into()),
            _ => Ok(()),
        }
    }

    /// Waits until the child stops. Returns `None` if it cannot be traced.
    fn stop(&self) -> Outcome<Option<Stop>> {
        let status = wait(self.0)?;
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == NOT_TRACED {
            return Ok(None);
        }
        if !libc::WIFSTOPPED(status) {
            return Err(
                format!("the operation has failed in the child, status {status:#x}").into(),
            );
        }
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => Ok(Some(Stop::Trap)),
            libc::SIGSTOP => Ok(Some(Stop::Marker)),
            signal if signal == libc::SIGTRAP | 0x80 => Ok(Some(Stop::SystemCall)),
            signal => Err(format!("the child has got the signal {signal}").into()),
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // SAFETY: the child is not reaped before the next line, so that the number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        while let Ok(status) = wait(self.0) {
            if !libc::WIFSTOPPED(status) {
                break;
            }
        }
    }
}

/// Stops this process, so that the tracer knows that an operation begins or ends.
pub(super) fn mark() {
    // SAFETY: the call has no preconditions.
    let me = unsafe { libc::getpid() };
    // SAFETY: the signal stops this process, which has a tracer that continues or kills it.
    unsafe { libc::syscall(libc::SYS_kill, me, libc::SIGSTOP) };
}

/// What the child does.
fn be_traced(operation: impl FnOnce(&Doomed) -> Outcome) -> ! {
    // SAFETY: the request has no preconditions, and no other argument.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    let code = if result == -1 {
        NOT_TRACED
    } else {
        // What panics has printed its message.
        if let Ok(Err(failure)) = catch_unwind(AssertUnwindSafe(|| operation(&Doomed(())))) {
            eprintln!("the operation fails: {failure:?}");
        }
        FAILED
    };
    // SAFETY: the call has no preconditions. The destructors of this process belong to its parent.
    unsafe { libc::_exit(code) }
}

/// Reads a word of the child.
fn peek(request: Request, pid: pid_t, address: u64) -> Outcome<u64> {
    let mut word: u64 = 0;
    // The wrapper of the C library returns the word, in which an error cannot be told from a value; the system call
    // writes it.
    // SAFETY: the kernel writes a word to the pointer, which is valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            i64::from(request),
            pid,
            address,
            &raw mut word,
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error().into()),
        _ => Ok(word),
    }
}

fn wait(pid: pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a valid value.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
