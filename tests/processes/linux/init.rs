//! A peer that is process 1 of a pid namespace, and forks a child that is process 1 of another one:
//! only the fork itself tells them apart.
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

use super::peer::{Answer, Peer, State, assert_nothing_left, can_start_by, here};
use testkit::{Outcome, fork, name_exists, natively, skip};

/// Peers that are process 1: one with a page that the kernel wipes on fork, and one to which it refuses
/// that.
fn first() -> Outcome<[Peer; 2]> {
    let mut wrapper = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        wrapper.push("--map-root-user");
    }
    wrapper.extend(["--pid", "--fork", "--kill-child", "--"]);
    can_start_by(&wrapper)?;
    let mut without = Peer::start_by(&wrapper);
    if let Err(error) = without.ask("forbid ENOSYS madvise") {
        return skip(format!("no seccomp filter: {error}"));
    }
    Ok([Peer::start_by(&wrapper), without])
}

/// The same, which then has this order obeyed in its child.
fn obeyed(what: &str) -> Outcome {
    let peers = first()?;
    for mut peer in peers {
        peer.ask(format!("init {what}"))?;
    }
    Ok(())
}

pub(crate) fn a_child_leaves_the_posix_name() -> Outcome {
    if !here(&["posix"]).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let peers = first()?;
    for mut peer in peers {
        let id = peer.ask("make posix 100")?;
        peer.ask("init drop")?;
        assert!(name_exists(&id), "the child has unlinked {id}");
        // The parent has not forgotten that it is the one to unlink.
        peer.ask("drop")?;
        assert!(!name_exists(&id));
        assert_nothing_left(&[peer.kill()], &[&id]);
    }
    Ok(())
}

pub(crate) fn a_child_allocates_nothing_from_a_slab() -> Outcome {
    obeyed("slab")
}

pub(crate) fn a_child_takes_nothing_from_a_pool() -> Outcome {
    if !here(&["sysv"]).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    obeyed("pool")
}

/// The lock of the counted provider, held for the fork, and the state of the client inside.
pub(crate) fn a_child_uses_the_served_provider() -> Outcome {
    natively("which ends by itself when a process with threads forks")?;
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("service");
    for how in ["announced", "plain"] {
        obeyed(&format!("served-{how} {}", place.display()))?;
    }
    Ok(())
}

/// The lock of the counted provider, held by a thread that the child does not have.
pub(crate) fn a_child_is_not_blocked_by_a_lock_of_a_lost_thread() -> Outcome {
    natively("which ends by itself when a process with threads forks")?;
    obeyed("lock")
}

/// What a peer does.
pub(crate) fn obey(state: &mut State, what: &[&str]) -> Answer {
    match *what {
        ["drop"] => in_child(
            || Ok(()),
            || {
                state.segments.clear();
                Ok(String::new())
            },
        ),
        ["slab"] => slab(),
        ["pool"] => pool(),
        ["served-announced", place] => served(Path::new(place), true),
        ["served-plain", place] => served(Path::new(place), false),
        ["lock"] => lock(),
        _ => Err("unknown order".into()),
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
                "the child could allocate what its parent allocates",
            )?;
            check(slab.allocate().is_none(), "the child has allocated")?;
            object.access().write_at(0, &[1])?;
            Ok(String::new())
        },
    )?;
    check(slab.available() == 3, "it is the parent's no more")?;
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
            check(theirs.idle() == 0, "the child has what is its parent's")?;
            drop(theirs.new_shmem(4096)?);
            check(
                theirs.idle() == 0,
                "the child keeps it for a pool that is its parent's",
            )?;
            Ok(String::new())
        },
    )?;
    check(kept == 1 && pool.idle() == 1, "nothing is kept")?;
    Ok(String::new())
}

fn served(place: &Path, announced: bool) -> Answer {
    let inner = ServedShMemProvider::<MemfdBackend>::at(place);
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
            // An announced child holds by itself what its parent held.
            start.read_exact(&mut [0])?;
            let made = theirs.new_shmem(10)?;
            let again = theirs.shmem_from_id(made.id())?;
            let inherited = theirs.shmem_from_id(id)?;
            check((again.len(), inherited.len()) == (10, 100), "wrong sizes")?;
            let told = made.id().to_string();
            mem::forget(made);
            Ok(told)
        },
    )?;
    // The parent's connection is what it was, and the child's has ended with the child.
    let made = ShMemId::from_string(&made);
    let end = Instant::now() + Duration::from_secs(20);
    let mut other = ServedShMemProvider::<MemfdBackend>::at(place);
    while other.shmem_from_id(made).is_ok() {
        check(
            Instant::now() < end,
            "the child has used its parent's connection",
        )?;
        thread::sleep(Duration::from_millis(10));
    }
    provider.new_shmem(10)?;
    Ok(String::new())
}

/// Says when it is asked to make a segment, and then never does.
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
    // It ends with the process.
    thread::spawn(move || drop(provider.new_shmem(1)));
    asked.recv()?;
    in_child(
        || Ok(()),
        || {
            theirs.new_shmem(1)?;
            Ok(String::new())
        },
    )
}

/// Does one thing in a child that is process 1 as well, and the other one in the parent meanwhile.
/// A signal that a process sends to itself does not end process 1, so its parent ends it.
fn in_child(here: impl FnOnce() -> Done, there: impl FnOnce() -> Answer) -> Answer {
    check(process::id() == 1, "this is not process 1")?;
    let ours = File::open("/proc/self/ns/pid")?;
    let mut pipe = Pipe::new()?;
    // SAFETY: the flag concerns children that are yet to be made.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    // SAFETY: the child uses nothing that another thread could have been changing, or the allocator,
    // which looks after itself.
    let child = unsafe { fork() };
    if child == 0 {
        pipe.close_read_end();
        let told =
            match check(process::id() == 1, "the child is not process 1").and_then(|()| there()) {
                Ok(told) => format!("right{told}"),
                Err(error) => error.to_string(),
            };
        let _ = pipe.write_all(told.as_bytes());
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    // Later children, and threads, are of our own namespace again.
    move_into_link_name_space(ours.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    let done = here();
    let told = answer(&mut pipe);
    // SAFETY: no memory is involved, and the number is that of our child, which was not waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: the status may be null.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    done?;
    let told = told?;
    match told.strip_prefix("right") {
        Some(told) => Ok(told.to_owned()),
        None => Err(told.into()),
    }
}

/// What the child says, if it does within 20 seconds. None takes a hundredth of that.
fn answer(pipe: &mut Pipe) -> Answer {
    let fd = pipe.read_end().ok_or("no pipe")?;
    // SAFETY: the pipe is open until this returns.
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
    let mut told = String::new();
    pipe.read_to_string(&mut told)?;
    Ok(told)
}
