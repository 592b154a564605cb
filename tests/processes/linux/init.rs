//! A peer that is process 1 of a pid namespace and forks a child that is process 1 of another one: their
//! numbers do not tell them apart.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use std::{mem, process, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use shmem_providers::pipes::Pipe;
use shmem_providers::{
    MemfdBackend, NopShMem, NopShMemProvider, RcShMemProvider, ServedShMemProvider, ShMem, ShMemId,
    ShMemProvider, Slab, StdShMemPool, StdShMemProvider,
};

use super::peer::{Answer, Commands, Peer, State, assert_nothing_left, can_start_by, here};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, fork, name_exists, natively, skip};

/// Starts two peers that are process 1. The kernel refuses `madvise` to the second one, which then has no
/// page that is wiped on fork.
fn first_processes() -> Outcome<[Peer; 2]> {
    let mut wrapper = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        wrapper.push("--map-root-user");
    }
    wrapper.extend(["--pid", "--fork", "--kill-child", "--"]);
    can_start_by(&wrapper)?;
    let mut without = Peer::start_by(&wrapper);
    forbid_in(&mut without, "ENOSYS", "madvise")?;
    Ok([Peer::start_by(&wrapper), without])
}

/// Starts such peers, and has each execute a command in its child.
fn execute_in_children(command: &str) -> Outcome {
    for mut peer in first_processes()? {
        peer.execute(format!("init {command}"))?;
    }
    Ok(())
}

pub(crate) fn a_child_leaves_the_posix_name() -> Outcome {
    if !here(&["posix"]).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    for mut peer in first_processes()? {
        let id = peer.make("posix", 100)?;
        peer.execute("init drop")?;
        assert!(name_exists(&id), "the child has unlinked {id}");
        // Dropping the creator's own segment still unlinks it.
        peer.drop_newest()?;
        assert!(!name_exists(&id));
        assert_nothing_left(&[peer.kill()], &[&id]);
    }
    Ok(())
}

pub(crate) fn a_child_allocates_nothing_from_a_slab() -> Outcome {
    execute_in_children("slab")
}

pub(crate) fn a_child_takes_nothing_from_a_pool() -> Outcome {
    if !here(&["sysv"]).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    execute_in_children("pool")
}

/// The lock of `RcShMemProvider`, which is held for the fork, and the state of the client inside it.
pub(crate) fn a_child_uses_the_served_provider() -> Outcome {
    natively("which ends by itself when a process with threads forks")?;
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    for how in ["announced", "plain"] {
        execute_in_children(&format!("served-{how} {}", address.display()))?;
    }
    Ok(())
}

/// The lock of `RcShMemProvider`, held by a thread that does not exist in the child.
pub(crate) fn a_child_is_not_blocked_by_a_lock_of_a_lost_thread() -> Outcome {
    natively("which ends by itself when a process with threads forks")?;
    execute_in_children("lock")
}

/// What a peer does.
pub(crate) fn execute(state: &mut State, words: &[&str]) -> Answer {
    match *words {
        ["drop"] => in_child(
            || Ok(()),
            || {
                state.segments.clear();
                Ok(String::new())
            },
        ),
        ["slab"] => slab(),
        ["pool"] => pool(),
        ["served-announced", address] => served(Path::new(address), true),
        ["served-plain", address] => served(Path::new(address), false),
        ["lock"] => lock(),
        _ => Err(format!("unknown command {words:?}").into()),
    }
}

type Done = Result<(), Box<dyn Error>>;

fn check(condition: bool, otherwise: &str) -> Done {
    if condition {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}

fn slab() -> Answer {
    let slab = Slab::new(&mut StdShMemProvider::new()?, 64, 4)?;
    let object = slab.allocate().ok_or("no room")?;
    in_child(
        || Ok(()),
        || {
            check(
                slab.available() == 0,
                "the child has objects of its parent to allocate",
            )?;
            check(slab.allocate().is_none(), "the child has allocated")?;
            object.access().write_at(0, &[1])?;
            Ok(String::new())
        },
    )?;
    check(slab.available() == 3, "the parent has lost objects")?;
    Ok(String::new())
}

fn pool() -> Answer {
    let mut pool = StdShMemPool::new()?;
    drop(pool.new_shmem(4096)?);
    let kept = pool.idle();
    let mut theirs = pool.clone();
    in_child(
        || Ok(()),
        move || {
            check(theirs.idle() == 0, "the child has segments of its parent")?;
            drop(theirs.new_shmem(4096)?);
            check(
                theirs.idle() == 0,
                "the child keeps a segment for the pool of its parent",
            )?;
            Ok(String::new())
        },
    )?;
    check(kept == 1 && pool.idle() == 1, "the pool keeps nothing")?;
    Ok(String::new())
}

fn served(address: &Path, announced: bool) -> Answer {
    let inner = ServedShMemProvider::<MemfdBackend>::at(address);
    let mut provider = RcShMemProvider::from(inner);
    let kept = provider.new_shmem(100)?;
    if announced {
        provider.pre_fork()?;
    }
    let (mut ours, mut theirs) = (provider.clone(), provider.clone());
    let (id, kept) = (kept.id(), Cell::new(Some(kept)));
    let (mut go, mut start) = UnixStream::pair()?;
    let made = in_child(
        || {
            if announced {
                ours.post_fork(false)?;
                drop(kept.take());
            }
            go.write_all(&[0])?;
            Ok(())
        },
        || {
            if announced {
                theirs.post_fork(true)?;
            }
            // The service counts an announced child as a holder of what its parent held.
            start.read_exact(&mut [0])?;
            let made = theirs.new_shmem(10)?;
            let again = theirs.shmem_from_id(made.id())?;
            let inherited = theirs.shmem_from_id(id)?;
            check((again.len(), inherited.len()) == (10, 100), "wrong sizes")?;
            let id = made.id().to_string();
            mem::forget(made);
            Ok(id)
        },
    )?;
    // The child's connection has ended with the child, and the parent's has not changed.
    let made = ShMemId::from_string(&made);
    let end = Instant::now() + Duration::from_secs(20);
    let mut other = ServedShMemProvider::<MemfdBackend>::at(address);
    while other.shmem_from_id(made).is_ok() {
        check(
            Instant::now() < end,
            "the child has used its parent's connection",
        )?;
        thread::sleep(Duration::from_millis(10));
    }
    let _ = provider.new_shmem(10)?;
    Ok(String::new())
}

/// A provider that reports a request for a segment and then blocks forever.
#[derive(Clone, Debug, Default)]
struct Stuck(Option<Arc<Sender<()>>>);

impl ShMemProvider for Stuck {
    type ShMem = NopShMem;

    fn new() -> Result<Self, shmem_providers::Error> {
        Ok(Self::default())
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<NopShMem, shmem_providers::Error> {
        if let Some(asked) = &self.0 {
            let _ = asked.send(());
            loop {
                thread::park();
            }
        }
        NopShMemProvider::new()?.new_shmem(map_size)
    }

    fn shmem_from_id_and_size(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<NopShMem, shmem_providers::Error> {
        NopShMemProvider::new()?.shmem_from_id_and_size(id, size)
    }
}

fn lock() -> Answer {
    let (sender, asked) = channel();
    let mut provider = RcShMemProvider::from(Stuck(Some(Arc::new(sender))));
    let mut theirs = provider.clone();
    // The thread ends with the process.
    thread::spawn(move || drop(provider.new_shmem(1)));
    asked.recv()?;
    in_child(
        || Ok(()),
        || {
            let _ = theirs.new_shmem(1)?;
            Ok(String::new())
        },
    )
}

/// Calls `there` in a child that is process 1 as well, and `here` in the parent at the same time. Returns
/// what `there` returned.
///
/// Process 1 cannot end itself by a signal (`alarm` in `fork`), so the parent ends the child.
fn in_child(here: impl FnOnce() -> Done, there: impl FnOnce() -> Answer) -> Answer {
    check(process::id() == 1, "the peer is not process 1")?;
    let ours = File::open("/proc/self/ns/pid")?;
    let mut pipe = Pipe::new()?;
    // SAFETY: the flag affects future children only.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    // SAFETY: the child uses nothing that another thread may have been changing, except for the allocator,
    // which supports that.
    let child = unsafe { fork() };
    if child == 0 {
        pipe.close_read_end();
        let report =
            match check(process::id() == 1, "the child is not process 1").and_then(|()| there()) {
                Ok(answer) => format!("ok {answer}"),
                Err(error) => error.to_string(),
            };
        let _ = pipe.write_all(report.as_bytes());
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    // Further children and threads are in our own namespace again.
    move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    let done = here();
    let report = read_report(&mut pipe);
    // SAFETY: the call accesses no memory, and the number is that of our child, which was not waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: the pointer to the status may be null.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    done?;
    let report = report?;
    match report.strip_prefix("ok ") {
        Some(answer) => Ok(answer.to_owned()),
        None => Err(report.into()),
    }
}

/// Returns what the child writes, if it does so within 20 seconds. No child needs a hundredth of that.
fn read_report(pipe: &mut Pipe) -> Answer {
    let fd = pipe.read_end().ok_or("the pipe is closed")?;
    // SAFETY: the pipe stays open until this function returns.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    if poll(
        &mut [PollFd::new(&fd, PollFlags::IN)],
        Some(&Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        }),
    )? == 0
    {
        return Err("the child hangs".into());
    }
    let mut report = String::new();
    pipe.read_to_string(&mut report)?;
    Ok(report)
}
