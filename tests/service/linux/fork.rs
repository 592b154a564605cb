//! `fork()` without `exec`, in a peer that has threads: the monitor of its connection, and perhaps the
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

use super::lifetime::{TestDir, eventually_gone, eventually_has_files, eventually_opens};
use super::peer::{Answer, Commands, State};
use testkit::peer::Peer;
use testkit::{Outcome, natively};

/// What qemu 7.2 cannot do, unless the child does almost nothing.
pub(crate) const WITH_THREADS: &str = "which ends by itself when a process with threads forks";

pub(crate) fn a_child_holds_what_its_parent_held() -> Outcome {
    natively(WITH_THREADS)?;
    for hosted_by_parent in [true, false] {
        let dir = TestDir::new()?;
        let host = (!hosted_by_parent).then(|| dir.host());
        let mut parent = dir.peer();
        let id = parent.make(100)?;
        parent.put(0, 5)?;
        let (child, made) = fork(&mut parent, "stay")?;
        let mut other = dir.peer();
        assert_eq!(other.open(&made)?, 200);
        // The child has a connection of its own, and keeps what the parent releases.
        parent.drop_newest()?;
        other.try_open(&id)?;
        parent.kill();
        other.open(&id)?;
        assert_eq!(other.get(0)?, 5);
        other.drop_newest()?;
        assert_last_holder(child, &mut other, &id)?;
        drop((other, host));
        dir.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn unannounced_child_registers_what_it_inherited() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    let (child, made) = fork(&mut parent, "plain")?;
    let mut other = dir.peer();
    assert_eq!(other.open(&made)?, 200);
    parent.kill();
    // The child has registered what it inherited with its first request.
    other.try_open(&id)?;
    assert_last_holder(child, &mut other, &id)?;
    drop(other);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn child_keeps_segments_if_its_parent_dies_first() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    parent.put(0, 5)?;
    // The child waits until its parent has ended.
    let child = parent.ask_for("fork orphan")?;
    parent.kill();
    let mut other = dir.peer();
    other.open(&id)?;
    assert_eq!(other.get(0)?, 5);
    other.drop_newest()?;
    thread::sleep(Duration::from_millis(500));
    other.try_open(&id)?;
    assert_last_holder(child, &mut other, &id)?;
    drop((other, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn child_keeps_segments_after_host_dies_during_fork() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    // The child waits until its parent has ended, when the service has ended as well.
    let child = parent.ask_for("fork orphan")?;
    host.kill();
    parent.kill();
    thread::sleep(Duration::from_millis(300));
    let mut other = dir.peer();
    eventually_opens(&mut other, &id);
    assert_last_holder(child, &mut other, &id)?;
    drop(other);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn idle_child_keeps_segments_after_host_dies() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    // The child makes no request.
    let (child, _) = fork(&mut parent, "idle")?;
    parent.kill();
    host.kill();
    thread::sleep(Duration::from_millis(300));
    let mut other = dir.peer();
    other.try_open(&id)?;
    assert_last_holder(child, &mut other, &id)?;
    drop(other);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn silent_child_leaks_no_descriptors() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    let before = host.files()?;
    parent.execute("fork die")?;
    parent.make(100)?;
    parent.drop_newest()?;
    parent.try_open(&id)?;
    // Another thread of the host closes what was released.
    eventually_has_files(&mut host, before);
    drop((parent, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn announced_fork_that_never_happens_expires() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut parent = dir.peer();
    parent.make(100)?;
    let full = host.files()?;
    parent.execute("fork never")?;
    // The thread that holds the lock for the fork can use the provider without calling `post_fork`.
    parent.drop_newest()?;
    assert_eq!(host.files()?, full);
    // What the child would have held is released after ten seconds.
    eventually_has_files(&mut host, full - 1);
    drop((parent, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn hundreds_of_forks_leak_no_descriptors() -> Outcome {
    natively(WITH_THREADS)?;
    for hosted_by_parent in [true, false] {
        let dir = TestDir::new()?;
        let host = (!hosted_by_parent).then(|| dir.host());
        let mut parent = dir.peer();
        let id = parent.make(100)?;
        for _ in 0..10 {
            parent.execute("fork die")?;
        }
        let files = parent.files()?;
        for turn in 0..300 {
            let how = if turn % 2 == 0 { "die" } else { "leave" };
            parent.execute(format!("fork {how}"))?;
        }
        eventually_has_files(&mut parent, files);
        parent.try_open(&id)?;
        drop((parent, host));
        dir.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn generations_of_children_leak_no_descriptors() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    let id = parent.make(100)?;
    let answer = parent.ask("fork generations")?;
    let counts: Vec<usize> = answer
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // Each of the twenty generations has one descriptor more: the pipe for its answer.
    let wanted: Vec<_> = (counts[0]..counts[0] + 20).collect();
    assert_eq!(counts, wanted);
    parent.try_open(&id)?;
    drop((parent, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn shared_providers_fork_while_threads_use_them() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    for kind in ["served", "announced", "plain"] {
        parent.execute(format!("fork shared-{kind}"))?;
    }
    drop(parent);
    // The same with an address in the environment.
    let mut parent = Peer::started(Peer::command().env(ShMemService::ENV, &dir.address));
    parent.execute("fork shared-served")?;
    drop((parent, host));
    dir.assert_nothing_left();
    Ok(())
}

/// No other thread can use the provider before the fork is over, however long that takes.
pub(crate) fn slow_fork_keeps_other_threads_out() -> Outcome {
    natively(WITH_THREADS)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut parent = dir.peer();
    parent.execute("fork shared-slow")?;
    drop((parent, host));
    dir.assert_nothing_left();
    Ok(())
}

/// Has a peer fork a child that waits to be killed. Returns the number of the child and what it reports.
pub(crate) fn fork(
    parent: &mut Peer,
    how: &str,
) -> Result<(libc::pid_t, String), Box<dyn std::error::Error>> {
    let answer = parent.ask(format!("fork {how}"))?;
    let (child, report) = answer.split_once(' ').ok_or("there is no number")?;
    Ok((child.parse()?, report.to_owned()))
}

/// Kills the child, and checks that it was the last holder of the segment.
fn assert_last_holder(
    child: libc::pid_t,
    other: &mut Peer,
    id: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    kill(child)?;
    eventually_gone(other, id);
    Ok(())
}

/// Ends a child of a peer by SIGKILL and waits for its end.
pub(crate) fn kill(child: libc::pid_t) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: the call accesses no memory. The child waits to be killed, so the number is its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    let stat = format!("/proc/{child}/stat");
    for _ in 0..2000 {
        if std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err(format!("process {child} does not end").into())
}

/// Children that report and then wait to be killed.
const STAYING: [&str; 4] = ["stay", "plain", "idle", "silent"];

/// What a peer does.
pub(crate) fn execute(state: &mut State, what: &str) -> Answer {
    if what == "never" {
        state.provider.pre_fork()?;
        return Ok(String::new());
    }
    match what {
        "shared-served" => {
            let provider = RcShMemProvider::from(state.provider.clone());
            return fork_beside_threads(provider, true, 50, Duration::ZERO);
        }
        "shared-slow" => {
            let provider = RcShMemProvider::from(state.provider.clone());
            return fork_beside_threads(provider, true, 3, Duration::from_millis(1500));
        }
        "shared-announced" => {
            let provider = RcShMemProvider::<StdShMemProvider>::new()?;
            return fork_beside_threads(provider, true, 50, Duration::ZERO);
        }
        "shared-plain" => {
            let provider = RcShMemProvider::<StdShMemProvider>::new()?;
            return fork_beside_threads(provider, false, 50, Duration::ZERO);
        }
        _ => {}
    }
    let announced = !["plain", "silent"].contains(&what);
    let parent = process::id();
    let mut pipe = Pipe::new()?;
    if announced {
        state.provider.pre_fork()?;
    }
    // SAFETY: the child uses nothing that another thread may have been changing, except for the allocator,
    // which supports that.
    let child = unsafe { testkit::fork() };
    if child == 0 {
        pipe.close_read_end();
        let report = as_child(state, what, parent, &mut pipe);
        let _ = pipe.write_all(report.unwrap_or_else(|error| error.to_string()).as_bytes());
        pipe.close_write_end();
        if STAYING.contains(&what) || what == "orphan" {
            loop {
                // SAFETY: the call has no preconditions.
                unsafe { libc::pause() };
            }
        }
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    if announced {
        state.provider.post_fork(false)?;
    }
    if what == "orphan" {
        return Ok(child.to_string());
    }
    let mut report = String::new();
    pipe.read_to_string(&mut report)?;
    if STAYING.contains(&what) {
        return Ok(format!("{child} {report}"));
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for writes of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(report)
}

/// Forks `count` children while four threads use the provider and two more take locks of the standard library.
/// Each child uses the provider and what its parent held. Each fork takes `duration` at least.
fn fork_beside_threads<P>(
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
                    let _ = provider.clone_ref(&made)?;
                }
                Ok(())
            }
        };
        let start_others = || {
            while !stop.load(Relaxed) {
                // So many that a list of the standard library has to grow, which happens under a lock.
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
                    // SAFETY: this program reads the environment by the standard library only.
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
    // SAFETY: the child uses the provider and the allocator only, which both support that.
    let child = unsafe { testkit::fork() };
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
            // `eprintln!` would take a lock of the standard library.
            let text = format!("in a child: {outcome:?}\n");
            // SAFETY: the pointer is valid for reads of `text.len()` bytes.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
        let code = i32::from(!outcome.is_ok_and(|right| right));
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(code) };
    }
    if announced {
        provider.post_fork(false)?;
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for writes of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if status != 0 {
        return Err(format!("a child ended with status {status:#x}").into());
    }
    Ok(())
}

/// What the child does.
fn as_child(state: &mut State, what: &str, parent: u32, pipe: &mut Pipe) -> Answer {
    match what {
        "die" | "silent" => return Ok(String::new()),
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
        "generations" => return generations(state, 20),
        _ => state.provider.post_fork(true)?,
    }
    state.make(200)
}

/// Each generation forks the next one. Returns the number of descriptors of each.
fn generations(state: &mut State, left: u32) -> Answer {
    state.provider.post_fork(true)?;
    state.make(10)?;
    state.segments.pop();
    let files = std::fs::read_dir("/proc/self/fd")?.count().to_string();
    if left == 1 {
        return Ok(files);
    }
    let mut pipe = Pipe::new()?;
    state.provider.pre_fork()?;
    // SAFETY: as in `execute`.
    let child = unsafe { testkit::fork() };
    if child == 0 {
        pipe.close_read_end();
        let report = generations(state, left - 1).unwrap_or_else(|error| error.to_string());
        let _ = pipe.write_all(report.as_bytes());
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    state.provider.post_fork(false)?;
    let mut report = String::new();
    pipe.read_to_string(&mut report)?;
    let mut status = 0;
    // SAFETY: the pointer is valid for writes of a status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(format!("{files} {report}"))
}
