//! `fork()` without `exec`, in a peer, which has a single thread.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::process;

use shmem_providers::ShMem;
use shmem_providers::pipes::Pipe;

use super::peer::{ALL, Answer, Commands, LASTING, Peer, State, assert_nothing_left, here};
use testkit::{Outcome, fork, name_exists, skip, too_few_descriptors};

pub(crate) fn a_child_that_drops_leaves_the_parents_segments() -> Outcome {
    a_child_leaves_the_parents_segments("drop")
}

pub(crate) fn a_child_that_exits_leaves_the_parents_segments() -> Outcome {
    a_child_leaves_the_parents_segments("exit")
}

fn a_child_leaves_the_parents_segments(by: &str) -> Outcome {
    for mechanism in here(ALL) {
        let mut parent = Peer::start();
        let id = parent.make(mechanism, 100)?;
        parent.put(50, 5)?;
        let files = parent.files()?;
        parent.execute(format!("fork {by}"))?;
        assert_eq!(parent.get(50)?, 5);
        assert_eq!(parent.files()?, files);
        let mut other = Peer::start();
        assert_eq!(other.open(&id)?, 100);
        other.put(50, 6)?;
        assert_eq!(parent.get(50)?, 6);
        // Dropping the creator's own segment still unlinks it.
        parent.drop_newest()?;
        assert!(!name_exists(&id));
        drop(other);
        assert_nothing_left(&[parent.kill()], &[&id]);
    }
    Ok(())
}

pub(crate) fn a_child_holds_what_it_inherited() -> Outcome {
    for mechanism in here(LASTING) {
        let mut parent = Peer::start();
        let id = parent.make(mechanism, 100)?;
        parent.put(50, 5)?;
        let child: i32 = parent.ask_for("fork stay")?;
        let parent = parent.kill();
        let mut other = Peer::start();
        let opened = other.open(&id);
        let seen = other.get(50);
        // SAFETY: the call accesses no memory. The child waits to be killed, so the number is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!((opened, seen), (Ok(100), Ok(5)));
        let child = child.unsigned_abs();
        wait_until_gone(child);
        assert_nothing_left(&[parent, other.kill(), child], &[&id]);
    }
    Ok(())
}

/// Random numbers and the process number are cached, but not across a fork.
pub(crate) fn parent_and_child_create_different_ids() -> Outcome {
    if let Some(reason) = too_few_descriptors(250) {
        return skip(reason);
    }
    for mechanism in here(ALL) {
        let mut parent = Peer::start();
        for before in [0, 1, 31, 32, 33] {
            for _ in 0..before {
                parent.make(mechanism, 1)?;
            }
            let answer = parent.ask(format!("fork {mechanism}"))?;
            let (ours, theirs) = answer.split_once('|').ok_or("there are no two lists")?;
            let ours: HashSet<_> = ours.split_whitespace().collect();
            let theirs: HashSet<_> = theirs.split_whitespace().collect();
            assert_eq!((ours.len(), theirs.len()), (70, 70));
            assert!(ours.is_disjoint(&theirs));
            if theirs.iter().all(|id| id.starts_with('m')) {
                // The first three characters have the upper 18 of the 22 bits of the process number, the
                // fourth has the others.
                let process = |id: &str| id[1..4].to_owned() + &id[4..5];
                let of = |ids: &HashSet<&str>| ids.iter().map(|id| process(id)).collect();
                let (ours, theirs): (HashSet<_>, HashSet<_>) = (of(&ours), of(&theirs));
                assert!(ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
            }
            for _ in 0..before {
                parent.drop_newest()?;
            }
        }
        assert_nothing_left(&[parent.kill()], &[]);
    }
    Ok(())
}

/// What a peer does: `drop` and `exit` fork a child that does so, and `stay` one that waits to be killed. A
/// mechanism forks one that creates 70 segments while the parent creates 70, and returns the ids of all.
pub(crate) fn execute(state: &mut State, what: &str) -> Answer {
    let mut pipe = Pipe::new()?;
    // SAFETY: this program has a single thread, so the child may do whatever the parent may.
    let child = unsafe { fork() };
    if child == 0 {
        pipe.close_read_end();
        match what {
            "drop" => state.segments.clear(),
            "exit" => process::exit(0),
            "stay" => loop {
                // SAFETY: the call has no preconditions.
                unsafe { libc::pause() };
            },
            mechanism => {
                let ids = seventy_ids(state, mechanism).unwrap_or_else(|error| error.to_string());
                let _ = pipe.write_all(ids.as_bytes());
                state.segments.clear();
            }
        }
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    pipe.close_write_end();
    match what {
        "stay" => return Ok(child.to_string()),
        "drop" | "exit" => {}
        mechanism => {
            let kept = state.segments.len();
            let ours = seventy_ids(state, mechanism)?;
            state.segments.truncate(kept);
            let mut theirs = String::new();
            pipe.read_to_string(&mut theirs)?;
            wait_for(child)?;
            return Ok(format!("{ours}|{theirs}"));
        }
    }
    wait_for(child)?;
    Ok(String::new())
}

/// What a peer does: creates System V segments itself, or in a child that then ends, and leaves them.
pub(crate) fn leave_orphans(by: &str, mode: i32, count: usize) -> Answer {
    let make = || {
        // SAFETY: no pointer is passed.
        (0..count).all(|_| unsafe { libc::shmget(libc::IPC_PRIVATE, 1, mode) } != -1)
    };
    if by == "child" {
        // SAFETY: this program has a single thread, so the child may do whatever the parent may.
        let child = unsafe { fork() };
        if child == 0 {
            let failed = i32::from(!make());
            // SAFETY: the call has no preconditions.
            unsafe { libc::_exit(failed) };
        }
        wait_for(child)?;
    } else if !make() {
        return Err("no more segments can be created".into());
    }
    Ok(String::new())
}

fn seventy_ids(state: &mut State, mechanism: &str) -> Answer {
    for _ in 0..70 {
        state.make(mechanism, 1)?;
    }
    let ids = state
        .segments
        .iter()
        .rev()
        .take(70)
        .map(|segment| segment.id().to_string());
    Ok(ids.collect::<Vec<_>>().join(" "))
}

pub(crate) fn wait_for(child: i32) -> Result<(), String> {
    let mut status = 0;
    // SAFETY: the pointer is valid for writes of a status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited == child && status == 0 {
        Ok(())
    } else {
        Err(format!("the child ended with {status:#x}"))
    }
}

/// Waits for the end of a process that is no child of this one.
pub(crate) fn wait_until_gone(pid: u32) {
    let stat = format!("/proc/{pid}/stat");
    let runs = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    for _ in 0..1000 {
        if !runs() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("process {pid} does not end");
}
