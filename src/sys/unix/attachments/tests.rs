//! The schedules that `tests/model/attachments.rs` finds for a pool that checks only the number of attachments.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use core::fmt::Display;
use core::ptr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backends::sysv::SystemVBackend;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// Locks out other tests that fork, because their children would inherit the attachments of this
/// one. Returns `None` in an emulator, which crashes when a process with threads forks.
pub(crate) fn may_fork() -> Option<MutexGuard<'static, ()>> {
    static FORKS: Mutex<()> = Mutex::new(());

    if std::env::var_os("SHMEM_TEST_EMULATED").is_some() {
        skipped("not in an emulator");
        return None;
    }
    Some(FORKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Reports the reason on standard error, which the test harness does not capture.
pub(crate) fn skipped(reason: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A child process that attaches, writes to and detaches a segment on request. It is forked before
/// the segment is created, so it does not inherit it.
struct Guest {
    child: libc::pid_t,
    requests: UnixStream,
}

impl Guest {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        // SAFETY: the child only makes system calls, so a lock that another thread holds cannot
        // block it.
        let child = unsafe { libc::fork() };
        assert_ne!(child, -1, "fork failed");
        if child != 0 {
            return Self {
                child,
                requests: ours,
            };
        }
        drop(ours);
        // SAFETY: the function has no preconditions. The alarm ends a child that is never shut
        // down.
        unsafe { libc::alarm(40) };
        let mut number = [0; 4];
        while (&theirs).read_exact(&mut number).is_ok() {
            visit(i32::from_ne_bytes(number));
            let _ = (&theirs).write_all(&[1]);
        }
        // SAFETY: it ends the child immediately, which has nothing to clean up.
        unsafe { libc::_exit(0) }
    }

    fn visits(&mut self, segment: &Segment<SystemVBackend>) {
        let number = segment.id().as_int().expect("a number");
        let sent = self.requests.write_all(&number.to_ne_bytes());
        sent.expect("the child waits for requests");
        self.requests.read_exact(&mut [0]).expect("a reply");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.requests.shutdown(std::net::Shutdown::Both);
        // SAFETY: the status pointer may be null.
        unsafe { libc::waitpid(self.child, ptr::null_mut(), 0) };
    }
}

fn visit(number: i32) {
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let base = unsafe { libc::shmat(number, ptr::null(), 0) };
    if base.addr() != usize::MAX {
        // SAFETY: the segment is attached for reading and writing, and nothing else in this process
        // refers to this attachment.
        unsafe { base.cast::<u8>().write_volatile(7) };
        // SAFETY: the segment was attached above, and nothing refers to it any more.
        unsafe { libc::shmdt(base) };
    }
}

/// Starts the guest before any segment exists, then creates a segment of four pages.
fn start() -> Option<(Guest, Provider<SystemVBackend>, Segment<SystemVBackend>)> {
    let guest = Guest::start();
    let mut provider = Provider::<SystemVBackend>::default();
    match provider.new_shmem(16384) {
        Ok(segment) => Some((guest, provider, segment)),
        Err(error) => {
            skipped(error);
            None
        }
    }
}

#[test]
fn a_process_that_attaches_and_detaches_between_two_checks_is_noticed() {
    let Some(_guard) = may_fork() else { return };
    let Some((mut guest, _, mut segment)) = start() else {
        return;
    };
    for round in 0..3 {
        // From the second round on, the guest was also the last one before the first check.
        let is_alone = segment.with_exclusive(|segment| {
            segment.clear();
            guest.visits(segment);
        });
        assert_eq!(segment[0], 7);
        assert!(!is_alone, "not noticed in round {round}");
    }
    // An earlier visit does not count.
    guest.visits(&segment);
    assert!(segment.with_exclusive(Segment::clear));
    assert_eq!(segment[0], 0);
}

#[test]
fn a_thread_that_attaches_and_detaches_between_two_checks_is_noticed() {
    let Some(_guard) = may_fork() else { return };
    let Some((mut guest, provider, mut segment)) = start() else {
        return;
    };
    let id = segment.id();
    let is_alone = segment.with_exclusive(|segment| {
        segment.clear();
        guest.visits(segment);
        // This makes this process the last one again.
        let mut provider = provider.clone();
        let attached = std::thread::spawn(move || provider.shmem_from_id(id).map(drop));
        attached
            .join()
            .expect("no panic")
            .expect("the segment exists");
    });
    assert_eq!(segment[0], 7);
    assert!(!is_alone, "neither was noticed");
}
