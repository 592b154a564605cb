//! The schedule that `tests/model/pool.rs` finds for a pool that checks only once whether children are
//! alive: the first candidate is in use elsewhere, and before the pool takes the second one, a
//! child is forked that inherits it.
#![allow(clippy::expect_used)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::{fmt, ptr};
use std::io;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;

use crate::backend::{
    Attach, Backend, Created, Exclusive, ExclusiveLock, Expected, Lifecycle, Request, Sparse,
};
use crate::backends::memfd::MemfdBackend;
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::options::OptionReport;
use crate::pool::ShMemPool;
use crate::provider::Provider;
use crate::sys::attachments::tests::{may_fork, skipped};
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

const SIZE: usize = 65536;

type Event = Box<dyn FnOnce() + Send>;

/// Memfd, with an event that makes the next exclusive lock fail: it runs at that moment.
#[derive(Clone, Default)]
struct Staged {
    next: Arc<Mutex<Option<Event>>>,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged")
    }
}

impl Backend for Staged {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
        MemfdBackend.create(request, report)
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<OwnedFd> {
        MemfdBackend.open(id, expected)
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        MemfdBackend.duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        MemfdBackend.map(handle, attach, report)
    }

    fn unlink(&self, handle: &OwnedFd, id: &ShMemId) -> Result<()> {
        MemfdBackend.unlink(handle, id)
    }
}

impl Lifecycle for Staged {}

impl Sparse for Staged {}

impl Exclusive for Staged {
    fn supports_exclusive(&self, handle: &OwnedFd) -> bool {
        MemfdBackend.supports_exclusive(handle)
    }

    fn try_lock_exclusive(&self, handle: &OwnedFd) -> Option<ExclusiveLock> {
        let event = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match event {
            Some(event) => {
                event();
                None
            }
            None => MemfdBackend.try_lock_exclusive(handle),
        }
    }

    fn unlock_exclusive(&self, handle: &OwnedFd, lock: ExclusiveLock) -> bool {
        MemfdBackend.unlock_exclusive(handle, lock)
    }
}

/// Forks a child that waits for a byte, replies whether all of `bytes` are ones, and exits.
fn fork_with(bytes: &[u8], mut asked: &UnixStream) -> libc::pid_t {
    // SAFETY: the child only makes system calls, so a lock that another thread holds cannot block
    // it.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return child;
    }
    // SAFETY: the function has no preconditions. The alarm ends a child that is never asked.
    unsafe { libc::alarm(40) };
    let mut answer = || -> io::Result<()> {
        asked.read_exact(&mut [0])?;
        let intact = bytes.iter().all(|&byte| byte == 1);
        asked.write_all(&[u8::from(intact)])
    };
    let _ = answer();
    // SAFETY: it ends the child immediately, which has nothing to clean up.
    unsafe { libc::_exit(0) }
}

#[test]
fn a_child_forked_between_two_candidates_keeps_its_segment() {
    let Some(_guard) = may_fork() else { return };
    let staged = Staged::default();
    let provider = Provider {
        backend: staged.clone(),
    };
    let mut pool = ShMemPool::over(provider, 8, 1 << 30);
    let (Ok(elsewhere), Ok(mut used)) = (pool.new_shmem(SIZE), pool.new_shmem(SIZE)) else {
        skipped("no memfd here");
        return;
    };
    used.fill(1);
    let id = used.id();
    drop(elsewhere);
    if pool.idle() == 0 {
        skipped("segments are not reused here");
        return;
    }

    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let forked = Arc::new(Mutex::new(0));
    let event = {
        let forked = Arc::clone(&forked);
        move || {
            *forked.lock().expect("not poisoned") = fork_with(&used, &theirs);
            drop(used);
        }
    };
    *staged.next.lock().expect("not poisoned") = Some(Box::new(event));

    let fresh = pool.new_shmem(SIZE).expect("a segment");
    let child = *forked.lock().expect("not poisoned");
    assert!(child > 0, "no child was forked");
    ours.write_all(&[1]).expect("the child waits");
    let mut intact = [9];
    ours.read_exact(&mut intact).expect("the child answers");
    // SAFETY: the status pointer may be null.
    let waited = unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    assert_eq!(waited, child);
    assert_ne!(fresh.id(), id, "the child's segment was reused");
    assert_eq!(intact, [1], "the child's segment was zeroed");
    // The child has ended, so its segment is free again.
    let all = [(); 3].map(|()| pool.new_shmem(SIZE));
    assert!(all.iter().flatten().any(|segment| segment.id() == id));
}
