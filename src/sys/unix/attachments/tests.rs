//! The schedules that `tests/model.rs` finds for a pool that only counts attachments.
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

/// For a test that forks: keeps others from forking, whose children would have what it has attached.
/// `None` in an emulator, which ends by itself when a process with threads forks.
pub(crate) fn may_fork() -> Option<MutexGuard<'static, ()>> {
    static FORKS: Mutex<()> = Mutex::new(());

    if std::env::var_os("SHMEM_TEST_EMULATED").is_some() {
        skipped("not in an emulator");
        return None;
    }
    Some(FORKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Says so where it is not captured.
pub(crate) fn skipped(reason: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// A process that attaches, writes and detaches when it is told to. It is forked before there is a
/// segment, so it inherits none.
struct Guest {
    child: libc::pid_t,
    orders: UnixStream,
}

impl Guest {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("two descriptors");
        // SAFETY: the child makes system calls, and nothing else.
        let child = unsafe { libc::fork() };
        assert_ne!(child, -1, "no child");
        if child != 0 {
            return Self {
                child,
                orders: ours,
            };
        }
        drop(ours);
        // SAFETY: no preconditions. Should nobody end it, it ends all the same.
        unsafe { libc::alarm(40) };
        let mut number = [0; 4];
        while (&theirs).read_exact(&mut number).is_ok() {
            visit(i32::from_ne_bytes(number));
            let _ = (&theirs).write_all(&[1]);
        }
        // SAFETY: it ends the child at once, which has nothing to clean up.
        unsafe { libc::_exit(0) }
    }

    fn visits(&mut self, segment: &Segment<SystemVBackend>) {
        let number = segment.id().as_int().expect("a number");
        let told = self.orders.write_all(&number.to_ne_bytes());
        told.expect("it waits for orders");
        self.orders.read_exact(&mut [0]).expect("it answers");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
        // SAFETY: no pointer is passed but a null one, which is allowed.
        unsafe { libc::waitpid(self.child, ptr::null_mut(), 0) };
    }
}

fn visit(number: i32) {
    // SAFETY: the kernel chooses the address.
    let base = unsafe { libc::shmat(number, ptr::null(), 0) };
    if base.addr() != usize::MAX {
        // SAFETY: attached for writing, and nobody in this process refers to it.
        unsafe { base.cast::<u8>().write_volatile(7) };
        // SAFETY: attached above.
        unsafe { libc::shmdt(base) };
    }
}

/// The guest, before any segment exists, and a segment of four pages.
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
fn a_process_that_comes_and_goes_between_two_looks_is_noticed() {
    let Some(_alone) = may_fork() else { return };
    let Some((mut guest, _, mut segment)) = start() else {
        return;
    };
    for round in 0..3 {
        // From the second round on, the guest was the last one before as well.
        let is_alone = segment.with_exclusive(|segment| {
            segment.clear();
            guest.visits(segment);
        });
        assert_eq!(segment[0], 7);
        assert!(!is_alone, "not noticed in round {round}");
    }
    // Who came before is forgotten.
    guest.visits(&segment);
    assert!(segment.with_exclusive(Segment::clear));
    assert_eq!(segment[0], 0);
}

#[test]
fn a_thread_that_comes_and_goes_between_two_looks_is_noticed() {
    let Some(_alone) = may_fork() else { return };
    let Some((mut guest, provider, mut segment)) = start() else {
        return;
    };
    let id = segment.id();
    let is_alone = segment.with_exclusive(|segment| {
        segment.clear();
        guest.visits(segment);
        // It makes this process the last one again.
        let mut provider = provider.clone();
        let attached = std::thread::spawn(move || provider.shmem_from_id(id).map(drop));
        attached.join().expect("no panic").expect("it exists");
    });
    assert_eq!(segment[0], 7);
    assert!(!is_alone, "neither of them was noticed");
}
