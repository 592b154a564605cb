//! How many system calls an operation takes: figures that do not depend on the machine.

use std::fs;

use super::peer::{Peer, can_start_by, here};
use testkit::{Outcome, natively, skip};

pub(crate) fn memfd_segments_take_the_documented_calls() -> Outcome {
    if !here(&["memfd"]).contains(&"memfd") {
        return skip("no memfd here");
    }
    // Only root's capabilities are asked for each time.
    let is_root = rustix::process::geteuid().is_root();
    counted(
        "memfd",
        &[
            // Whether there is a limit on the size.
            "prlimit",
            "memfd_create",
            "ftruncate",
            // Whether others can open it: dumpable, capabilities, `/proc`.
            "prctl",
            if is_root { "geteuid" } else { "" },
            "readlinkat",
            // The seals.
            "fcntl",
            "mmap",
        ],
        &[
            // The process, and its owner.
            "geteuid",
            "openat",
            "fstat",
            // The descriptor, and what it is.
            "openat",
            "readlinkat",
            "fstat",
            // The segment: seals, size, owner.
            "openat",
            "fcntl",
            "fstat",
            "geteuid",
            "close",
            "close",
            // What is mapped.
            "fcntl",
            "fstat",
            "geteuid",
            "mmap",
        ],
        &["munmap", "close"],
    )
}

pub(crate) fn system_v_segments_take_the_documented_calls() -> Outcome {
    if !here(&["sysv"]).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    counted(
        "sysv",
        &["shmget", "shmat", "shmctl"],
        &["shmctl", "geteuid", "shmat", "shmctl", "geteuid"],
        &["shmdt"],
    )
}

/// Once the creator is gone, all processes are looked through; but only once, by who keeps the segment.
pub(crate) fn holder_searches_no_other_process() -> Outcome {
    if !here(&["memfd"]).contains(&"memfd") {
        return skip("no memfd here");
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("calls");
    let log_name = log.to_string_lossy();
    let wrapper = ["strace", "-o", &*log_name, "--"];
    can_start_by(&wrapper)?;
    let (mut creator, mut peer, mut other) =
        (Peer::start(), Peer::start_by(&wrapper), Peer::start());
    let id = creator.ask("make memfd 65536")?;
    other.ask(format!("open {id}"))?;
    creator.kill();
    peer.ask(format!("open {id}"))?;
    peer.ask("clone")?;
    // Not even the one who was found then is needed any more.
    other.kill();
    peer.ask(format!("open {id} 4096"))?;
    drop(peer);

    let log = fs::read_to_string(&log)?;
    let searched = |order: &str| {
        let given = log.find(&format!("\"{order}")).unwrap_or(log.len());
        let calls = log[given..].lines().skip(1);
        calls
            .take_while(|line| !line.starts_with("write(1,"))
            .any(|line| line.contains("\"/proc\""))
    };
    assert!(searched(&format!("open {id}\\n")), "{log}");
    assert!(!searched(&format!("open {id} 4096\\n")), "{log}");
    Ok(())
}

/// Compares the calls of a peer, by strace, to make, to open and to drop a segment.
fn counted(mechanism: &str, make: &[&str], open: &[&str], drop: &[&str]) -> Outcome {
    natively("whose own calls strace would show")?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("calls");
    let log_name = log.to_string_lossy();
    let wrapper = ["strace", "-o", &*log_name, "--"];
    can_start_by(&wrapper)?;
    let mut peer = Peer::start_by(&wrapper);
    // The first fills the stock of random numbers, and what the program itself allocates is there.
    for _ in 0..3 {
        peer.ask(format!("make {mechanism} 65536"))?;
    }
    let id = peer.ask(format!("make {mechanism} 65536"))?;
    // What does not change is asked once.
    for _ in 0..2 {
        peer.ask(format!("open {id}"))?;
        peer.ask("drop")?;
    }
    // It ends, and strace has written all.
    std::mem::drop(peer);

    let log = fs::read_to_string(&log)?;
    for (order, calls) in [("open", open), ("drop", drop), ("make", make)] {
        let calls: Vec<_> = calls.iter().filter(|call| !call.is_empty()).collect();
        let counted = calls_between(&log, order);
        assert!(
            counted.iter().eq(calls.iter().copied()),
            "{order}: {counted:?}, not {calls:?}"
        );
    }
    Ok(())
}

/// The names of the calls (which have several on some machines) from where the peer was last given
/// this order until its answer.
fn calls_between(log: &str, order: &str) -> Vec<String> {
    let given = format!("\"{order}");
    let last = log.rfind(&given).unwrap_or(0);
    let lines = log[last..].lines().skip(1);
    // What the allocator takes for itself, and gives back: musl's does so for every few allocations.
    let taken: Vec<_> = log
        .lines()
        .filter(|line| line.contains("MAP_ANONYMOUS"))
        .filter_map(|line| line.rsplit_once("= "))
        .map(|(_, address)| format!("munmap({address},"))
        .collect();
    lines
        .take_while(|line| !line.starts_with("write(1,"))
        .filter(|line| {
            !line.contains("MAP_ANONYMOUS") && !taken.iter().any(|call| line.starts_with(call))
        })
        // The order may come in parts. The standard library's own check before it closes a descriptor, in debug builds.
        .filter(|line| !line.starts_with("read(0,") && !line.contains("F_GETFD"))
        // One address in 512 is aligned as if it were of huge pages.
        .filter(|line| !line.contains("MADV_DONTNEED"))
        .filter_map(|line| line.split_once('('))
        .map(|(name, _)| {
            name.trim_end_matches("64")
                .trim_end_matches("32")
                .replace("newfstat", "fstat")
                .replace("statx", "fstat")
                .replace("mmap2", "mmap")
        })
        .collect()
}
