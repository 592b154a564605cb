//! The schedule that `tests/model.rs` finds for a pool which asks once whether children are alive:
//! the first candidate is another process's, and before the second one is taken, a child is forked
//! that has it.
#![allow(clippy::expect_used)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::{fmt, ptr};
use std::io;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;

use crate::MemfdShMemProvider;
use crate::Pool;
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::segment::{Fresh, Provider, Room, Seclusion};
use crate::sys::attachments::tests::{may_fork, skipped};
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

const SIZE: usize = 65536;

fn memfd() -> impl Room<Handle = OwnedFd> {
    MemfdShMemProvider::default().room
}

type Event = Box<dyn FnOnce() + Send>;

/// Memfd, of which one segment is another process's when it is asked next; and what happens then.
#[derive(Clone, Default)]
struct Staged {
    next: Arc<Mutex<Option<Event>>>,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged")
    }
}

impl Room for Staged {
    type Handle = OwnedFd;

    fn create(&self, size: usize) -> Result<Fresh<OwnedFd>> {
        memfd().create(size)
    }

    fn open(&self, id: &ShMemId) -> Result<OwnedFd> {
        memfd().open(id)
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        memfd().duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, len: Option<usize>) -> Result<Mapping> {
        memfd().map(handle, len)
    }

    fn create_countable(&self, size: usize) -> Result<Fresh<OwnedFd>> {
        memfd().create_countable(size)
    }

    fn is_countable(&self, handle: &OwnedFd) -> bool {
        memfd().is_countable(handle)
    }

    fn seclude(&self, handle: &OwnedFd) -> Option<Seclusion> {
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
            None => memfd().seclude(handle),
        }
    }

    fn end_seclusion(&self, handle: &OwnedFd, since: Seclusion) -> bool {
        memfd().end_seclusion(handle, since)
    }

    fn unlink(&self, handle: &OwnedFd, id: &ShMemId) -> Result<()> {
        memfd().unlink(handle, id)
    }
}

/// Forks a child that says, once it is asked, whether all bytes are ones, and ends.
fn fork_with(bytes: &[u8], mut asked: &UnixStream) -> libc::pid_t {
    // SAFETY: the child makes system calls, and nothing else.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return child;
    }
    // SAFETY: no preconditions. Should nobody ask, it ends all the same.
    unsafe { libc::alarm(40) };
    let mut answer = || -> io::Result<()> {
        asked.read_exact(&mut [0])?;
        let intact = bytes.iter().all(|&byte| byte == 1);
        asked.write_all(&[u8::from(intact)])
    };
    let _ = answer();
    // SAFETY: it ends the child at once, which has nothing to clean up.
    unsafe { libc::_exit(0) }
}

#[test]
fn a_child_forked_between_two_candidates_keeps_its_segment() {
    let Some(_alone) = may_fork() else { return };
    let staged = Staged::default();
    let provider = Provider {
        room: staged.clone(),
    };
    let mut pool = Pool::over(provider, 8, 1 << 30);
    let (Ok(elsewhere), Ok(mut used)) = (pool.new_shmem(SIZE), pool.new_shmem(SIZE)) else {
        skipped("no memfd here");
        return;
    };
    used.fill(1);
    let id = used.id();
    drop(elsewhere);
    if pool.idle() == 0 {
        skipped("nothing is used again here");
        return;
    }

    let (mut ours, theirs) = UnixStream::pair().expect("two descriptors");
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
    assert!(child > 0, "nobody was forked");
    ours.write_all(&[1]).expect("the child waits");
    let mut intact = [9];
    ours.read_exact(&mut intact).expect("the child answers");
    // SAFETY: no pointer is passed but a null one, which is allowed.
    let waited = unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    assert_eq!(waited, child);
    assert_ne!(fresh.id(), id, "the child's segment is handed out");
    assert_eq!(intact, [1], "the child's segment is zeroed");
    // Now it is nobody's.
    let all = [(); 3].map(|()| pool.new_shmem(SIZE));
    assert!(all.iter().flatten().any(|segment| segment.id() == id));
}
