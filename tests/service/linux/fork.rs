//! `fork()` without `exec`, by a peer that has threads: the keeper of its connection, and perhaps the
//! service.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier};
use std::time::Duration;
use std::{process, thread};

use shmem_providers::pipes::Pipe;
use shmem_providers::{
    RcShMem, RcShMemProvider, ShMem, ShMemProvider, ShMemService, StdShMemProvider,
};

use super::lifetime::{Place, eventually};
use super::peer::{Answer, State};
use testkit::peer::Peer;
use testkit::{Outcome, fork, natively};

/// What qemu 7.2 cannot do, unless the child does next to nothing.
pub(crate) const WITH_THREADS: &str = "which ends by itself when a process with threads forks";

pub(crate) fn a_child_holds_what_its_parent_held() -> Outcome {
    natively(WITH_THREADS)?;
    for hosted_by_parent in [true, false] {
        let place = Place::new()?;
        let host = (!hosted_by_parent).then(|| place.host());
        let mut parent = place.peer();
        let id = parent.ask("make 100")?;
        parent.ask("put 0 5")?;
        let told = parent.ask("fork stay")?;
        let (child, made) = told.split_once(' ').ok_or("two words")?;
        let mut other = place.peer();
        assert_eq!(other.ask(format!("open {made}"))?, "200");
        // Its connection is its own: what the parent lets go, the child still has.
        parent.ask("drop")?;
        other.ask(format!("try {id}"))?;
        parent.kill();
        other.ask(format!("open {id}"))?;
        assert_eq!(other.ask("get 0")?, "5");
        other.ask("drop")?;
        the_child_was_the_last(&mut other, child, &id)?;
        drop((other, host));
        place.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn unannounced_child_registers_what_it_inherited() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    let told = parent.ask("fork plain")?;
    let (child, made) = told.split_once(' ').ok_or("two words")?;
    let mut other = place.peer();
    assert_eq!(other.ask(format!("open {made}"))?, "200");
    parent.kill();
    // It has handed in what it inherited, with its first request.
    other.ask(format!("try {id}"))?;
    the_child_was_the_last(&mut other, child, &id)?;
    drop(other);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn child_keeps_segments_if_its_parent_dies_first() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    parent.ask("put 0 5")?;
    // The child waits until its parent is dead.
    let child = parent.ask("fork orphan")?;
    parent.kill();
    let mut other = place.peer();
    other.ask(format!("open {id}"))?;
    assert_eq!(other.ask("get 0")?, "5");
    other.ask("drop")?;
    thread::sleep(Duration::from_millis(500));
    other.ask(format!("try {id}"))?;
    the_child_was_the_last(&mut other, &child, &id)?;
    drop((other, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn child_keeps_segments_after_host_dies_during_fork() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    // The child waits until its parent is dead, and so is the service.
    let child = parent.ask("fork orphan")?;
    host.kill();
    parent.kill();
    thread::sleep(Duration::from_millis(300));
    let mut other = place.peer();
    eventually(&mut other, &format!("try {id}"), "");
    the_child_was_the_last(&mut other, &child, &id)?;
    drop(other);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn idle_child_keeps_segments_after_host_dies() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    // The child asks for nothing of its own.
    let told = parent.ask("fork idle")?;
    let child = told.split(' ').next().ok_or("a number")?;
    parent.kill();
    host.kill();
    thread::sleep(Duration::from_millis(300));
    let mut other = place.peer();
    other.ask(format!("try {id}"))?;
    the_child_was_the_last(&mut other, child, &id)?;
    drop(other);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn silent_child_leaks_no_descriptors() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    let before = host.ask("files")?;
    parent.ask("fork die")?;
    parent.ask("make 100")?;
    parent.ask("drop")?;
    parent.ask(format!("try {id}"))?;
    // What is let go is closed by another thread.
    eventually(&mut host, "files", &before);
    drop((parent, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn announced_fork_that_never_happens_expires() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut parent = place.peer();
    parent.ask("make 100")?;
    let full = host.ask("files")?;
    parent.ask("fork never")?;
    // The lock is free for the thread that had it held, although it has not called `post_fork`.
    parent.ask("drop")?;
    assert_eq!(host.ask("files")?, full);
    // What the fork would have held is let go after ten.
    let one_less = (full.parse::<u32>()? - 1).to_string();
    for _ in 0..200 {
        if host.ask("files")? == one_less {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(host.ask("files")?, one_less);
    drop((parent, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn hundreds_of_forks_leak_no_descriptors() -> Outcome {
    natively(WITH_THREADS)?;
    for hosted_by_parent in [true, false] {
        let place = Place::new()?;
        let host = (!hosted_by_parent).then(|| place.host());
        let mut parent = place.peer();
        let id = parent.ask("make 100")?;
        for _ in 0..10 {
            parent.ask("fork die")?;
        }
        let files = parent.ask("files")?;
        for turn in 0..300 {
            parent.ask(if turn % 2 == 0 {
                "fork die"
            } else {
                "fork leave"
            })?;
        }
        eventually(&mut parent, "files", &files);
        parent.ask(format!("try {id}"))?;
        drop((parent, host));
        place.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn generations_of_children_leak_no_descriptors() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    let id = parent.ask("make 100")?;
    let told = parent.ask("fork line")?;
    let counts: Vec<_> = told.split(' ').collect();
    // Each of twenty generations has one descriptor more, of the pipe that it answers through.
    let first: usize = counts[0].parse()?;
    let wanted: Vec<_> = (first..first + 20).map(|count| count.to_string()).collect();
    assert_eq!(counts, wanted);
    parent.ask(format!("try {id}"))?;
    drop((parent, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn shared_providers_fork_while_threads_use_them() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    for kind in ["served", "announced", "plain"] {
        parent.ask(format!("fork counted-{kind}"))?;
    }
    drop(parent);
    // By an address that is not chosen, but found in the environment.
    let mut parent = Peer::started(Peer::command().env(ShMemService::ENV, &place.address));
    parent.ask("fork counted-served")?;
    drop((parent, host));
    place.assert_nothing_left();
    Ok(())
}

/// Nobody gets the provider meanwhile, however long it takes.
pub(crate) fn slow_fork_keeps_other_threads_out() -> Outcome {
    natively(WITH_THREADS)?;
    let place = Place::new()?;
    let host = place.host();
    let mut parent = place.peer();
    parent.ask("fork counted-slow")?;
    drop((parent, host));
    place.assert_nothing_left();
    Ok(())
}

/// Kills the child, with which its segment goes.
fn the_child_was_the_last(
    other: &mut Peer,
    child: &str,
    id: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    kill(child)?;
    let gone = format!("knows no holder of segment {id}");
    eventually(other, &format!("try {id}"), &gone);
    Ok(())
}

/// Ends a process by SIGKILL and waits until it has. It is a child of a peer, so it is looked up.
pub(crate) fn kill(child: &str) -> Result<(), Box<dyn std::error::Error>> {
    let number: i32 = child.parse()?;
    // SAFETY: no memory is involved. The child waits to be killed, so the number is its own.
    unsafe { libc::kill(number, libc::SIGKILL) };
    let stat = format!("/proc/{child}/stat");
    for _ in 0..2000 {
        if std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err(format!("process {child} does not end").into())
}

/// Children that wait to be killed when they have done what they are for.
const STAYING: [&str; 3] = ["stay", "plain", "idle"];

/// What a peer does.
pub(crate) fn obey(state: &mut State, what: &str) -> Answer {
    if what == "never" {
        state.provider.pre_fork()?;
        return Ok(String::new());
    }
    match what {
        "counted-served" => {
            let provider = RcShMemProvider::from(state.provider.clone());
            return counted(provider, true, 50, Duration::ZERO);
        }
        "counted-slow" => {
            let provider = RcShMemProvider::from(state.provider.clone());
            return counted(provider, true, 3, Duration::from_millis(1500));
        }
        "counted-announced" => {
            let provider = RcShMemProvider::<StdShMemProvider>::new()?;
            return counted(provider, true, 50, Duration::ZERO);
        }
        "counted-plain" => {
            let provider = RcShMemProvider::<StdShMemProvider>::new()?;
            return counted(provider, false, 50, Duration::ZERO);
        }
        _ => {}
    }
    let announced = what != "plain";
    let parent = process::id();
    let mut pipe = Pipe::new()?;
    if announced {
        state.provider.pre_fork()?;
    }
    // SAFETY: the child uses nothing that another thread could have been changing, or the allocator,
    // which looks after itself.
    let child = unsafe { fork() };
    if child == 0 {
        pipe.close_read_end();
        let told = as_child(state, what, parent, &mut pipe);
        let _ = pipe.write_all(told.unwrap_or_else(|error| error.to_string()).as_bytes());
        pipe.close_write_end();
        if STAYING.contains(&what) || what == "orphan" {
            loop {
                // SAFETY: no preconditions.
                unsafe { libc::pause() };
            }
        }
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    if announced {
        state.provider.post_fork(false)?;
    }
    if what == "orphan" {
        return Ok(child.to_string());
    }
    let mut told = String::new();
    pipe.read_to_string(&mut told)?;
    if STAYING.contains(&what) {
        return Ok(format!("{child} {told}"));
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the write of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(told)
}

/// Forks so many children while four threads use the provider and two more do nothing but what takes
/// locks of the standard library. Each child uses the provider as well, and what its parent held.
///
/// The fork takes so long at least.
fn counted<P>(
    mut provider: RcShMemProvider<P>,
    announced: bool,
    count: u32,
    duration: Duration,
) -> Answer
where
    P: ShMemProvider + Send,
{
    let mut kept = provider.new_shmem(100)?;
    kept[99] = 5;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = || {
            let mut provider = provider.clone();
            let stop = &stop;
            move || -> Result<(), shmem_providers::Error> {
                while !stop.load(Relaxed) {
                    let made = provider.new_shmem(64)?;
                    provider.clone_ref(&made)?;
                }
                Ok(())
            }
        };
        let start_others = || {
            while !stop.load(Relaxed) {
                // So many at once that the library's list of them has to grow, under its lock.
                let all_there = Arc::new(Barrier::new(20));
                let many = (0..20).map(|_| {
                    let all_there = Arc::clone(&all_there);
                    thread::spawn(move || all_there.wait())
                });
                for one in many.collect::<Vec<_>>() {
                    let _ = one.join();
                }
            }
            Ok(())
        };
        let change_environment = || {
            while !stop.load(Relaxed) {
                for _ in 0..100 {
                    // SAFETY: this program reads the environment by the standard library alone.
                    unsafe { std::env::set_var("SHMEM_TEST_NOISE", "1") };
                }
                thread::sleep(Duration::from_micros(50));
            }
            Ok(())
        };
        let mut threads: Vec<_> = (0..4).map(|_| scope.spawn(work())).collect();
        threads.push(scope.spawn(start_others));
        threads.push(scope.spawn(change_environment));
        let mut forks = provider.clone();
        let done = (0..count).try_for_each(|_| fork_once(&mut forks, &kept, announced, duration));
        stop.store(true, Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        done.map(|()| String::new())
    })
}

fn fork_once<P: ShMemProvider>(
    provider: &mut RcShMemProvider<P>,
    kept: &RcShMem<P>,
    announced: bool,
    duration: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    if announced {
        provider.pre_fork()?;
    }
    thread::sleep(duration);
    // SAFETY: the child uses the provider, which is made for that, and the allocator, which looks after
    // itself.
    let child = unsafe { fork() };
    if child == 0 {
        let mut uses_it = || -> Result<bool, shmem_providers::Error> {
            if announced {
                provider.post_fork(true)?;
            }
            let made = provider.new_shmem(10)?;
            let again = provider.shmem_from_id(made.id())?;
            let theirs = provider.shmem_from_id(kept.id())?;
            Ok((again.len(), theirs[99], kept[99]) == (10, 5, 5))
        };
        let outcome = uses_it();
        if outcome.is_err() {
            // Without the locks of the standard library.
            let text = format!("in a child: {outcome:?}\n");
            // SAFETY: the pointer is valid for reads of so many bytes.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
        let code = i32::from(!outcome.is_ok_and(|right| right));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(code) };
    }
    if announced {
        provider.post_fork(false)?;
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the write of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if status != 0 {
        return Err(format!("a child ended with status {status:#x}").into());
    }
    Ok(())
}

/// What the child does.
fn as_child(state: &mut State, what: &str, parent: u32, pipe: &mut Pipe) -> Answer {
    match what {
        "die" => return Ok(String::new()),
        "leave" => {
            state.provider.post_fork(true)?;
            state.segments.clear();
            return Ok(String::new());
        }
        "plain" => {}
        "idle" => {
            state.provider.post_fork(true)?;
            return Ok(String::new());
        }
        "orphan" => {
            pipe.close_write_end();
            while std::os::unix::process::parent_id() == parent {
                thread::sleep(Duration::from_millis(1));
            }
            state.provider.post_fork(true)?;
            return Ok(String::new());
        }
        "line" => return line(state, 20),
        _ => state.provider.post_fork(true)?,
    }
    state.make(200)
}

/// Each of so many generations forks the next, and says how many descriptors it has.
fn line(state: &mut State, generations: u32) -> Answer {
    state.provider.post_fork(true)?;
    state.make(10)?;
    state.segments.pop();
    let files = std::fs::read_dir("/proc/self/fd")?.count().to_string();
    if generations == 1 {
        return Ok(files);
    }
    let mut pipe = Pipe::new()?;
    state.provider.pre_fork()?;
    // SAFETY: as above.
    let child = unsafe { fork() };
    if child == 0 {
        pipe.close_read_end();
        let told = line(state, generations - 1).unwrap_or_else(|error| error.to_string());
        let _ = pipe.write_all(told.as_bytes());
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    state.provider.post_fork(false)?;
    let mut told = String::new();
    pipe.read_to_string(&mut told)?;
    let mut status = 0;
    // SAFETY: the pointer is valid for the write of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(format!("{files} {told}"))
}
