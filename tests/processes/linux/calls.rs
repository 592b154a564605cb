//! Which system calls an operation makes, counted by strace: figures that do not depend on the machine.

use std::fs;

use super::peer::{Commands, Peer, can_start_by, here};
use testkit::{Outcome, natively, skip};

pub(crate) fn memfd_segments_take_the_documented_calls() -> Outcome {
    if !here(&["memfd"]).contains(&"memfd") {
        return skip("no memfd here");
    }
    // Root reads its capabilities each time.
    let is_root = rustix::process::geteuid().is_root();
    counted(
        "memfd",
        &[
            // The limit on the size of files.
            "prlimit",
            "memfd_create",
            "ftruncate",
            // Whether other processes can open it: dumpable, capabilities, `/proc`.
            "prctl",
            if is_root { "geteuid" } else { "" },
            "readlinkat",
            // The seals.
            "fcntl",
            "mmap",
        ],
        &[
            // The process and its owner.
            "geteuid",
            "openat",
            "fstat",
            // The link and the type of the descriptor.
            "openat",
            "readlinkat",
            "fstat",
            // The seals, size and owner of the segment.
            "openat",
            "fcntl",
            "fstat",
            "geteuid",
            "close",
            "close",
            // The same of what is mapped.
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

/// Once the creator has ended, all processes are searched, but not by a process that holds the segment.
pub(crate) fn holder_searches_no_other_process() -> Outcome {
    if !here(&["memfd"]).contains(&"memfd") {
        return skip("no memfd here");
    }
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("calls");
    let log_name = log.to_string_lossy();
    let wrapper = ["strace", "-o", &*log_name, "--"];
    can_start_by(&wrapper)?;
    let (mut creator, mut peer, mut other) =
        (Peer::start(), Peer::start_by(&wrapper), Peer::start());
    let id = creator.make("memfd", 65536)?;
    other.open(&id)?;
    creator.kill();
    peer.open(&id)?;
    peer.clone_newest()?;
    // Not even the holder that was found then is needed any more.
    other.kill();
    peer.open_part(&id, 4096)?;
    drop(peer);

    let log = fs::read_to_string(&log)?;
    let searched = |command: &str| {
        let received = log.find(&format!("\"{command}")).unwrap_or(log.len());
        let calls = log[received..].lines().skip(1);
        calls
            .take_while(|line| !line.starts_with("write(1,"))
            .any(|line| line.contains("\"/proc\""))
    };
    assert!(searched(&format!("open {id}\\n")), "{log}");
    assert!(!searched(&format!("open {id} 4096\\n")), "{log}");
    Ok(())
}

/// Compares the calls by which a peer creates, opens and drops a segment with these.
fn counted(mechanism: &str, make: &[&str], open: &[&str], drop: &[&str]) -> Outcome {
    natively("whose own calls strace would show")?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("calls");
    let log_name = log.to_string_lossy();
    let wrapper = ["strace", "-o", &*log_name, "--"];
    can_start_by(&wrapper)?;
    let mut peer = Peer::start_by(&wrapper);
    // The first one fills the cache of random numbers, and the program allocates what it needs.
    for _ in 0..3 {
        peer.make(mechanism, 65536)?;
    }
    let id = peer.make(mechanism, 65536)?;
    // What does not change is looked up once.
    for _ in 0..2 {
        peer.open(&id)?;
        peer.drop_newest()?;
    }
    // strace has written everything once the peer has ended.
    std::mem::drop(peer);

    let log = fs::read_to_string(&log)?;
    for (command, calls) in [("open", open), ("drop", drop), ("make", make)] {
        let calls: Vec<_> = calls.iter().filter(|call| !call.is_empty()).collect();
        let counted = calls_of(&log, command);
        assert!(
            counted.iter().eq(calls.iter().copied()),
            "{command}: {counted:?}, not {calls:?}"
        );
    }
    Ok(())
}

/// Returns the calls between the last such command and its answer, by names that are the same on all
/// machines.
fn calls_of(log: &str, command: &str) -> Vec<String> {
    let received = format!("\"{command}");
    let last = log.rfind(&received).unwrap_or(0);
    let lines = log[last..].lines().skip(1);
    // The allocator maps and unmaps memory of its own; musl's does so every few allocations.
    let allocations: Vec<_> = log
        .lines()
        .filter(|line| line.contains("MAP_ANONYMOUS"))
        .filter_map(|line| line.rsplit_once("= "))
        .map(|(_, address)| format!("munmap({address},"))
        .collect();
    lines
        .take_while(|line| !line.starts_with("write(1,"))
        .filter(|line| {
            !line.contains("MAP_ANONYMOUS")
                && !allocations.iter().any(|call| line.starts_with(call))
        })
        // The command may arrive in parts, and debug builds of the standard library check descriptors before
        // they close them.
        .filter(|line| !line.starts_with("read(0,") && !line.contains("F_GETFD"))
        // One mapping in 512 is aligned as huge pages are, and is then tested for them by this call.
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
