//! A program that has closed its standard streams, as daemons do: no descriptor of ours takes their
//! numbers, so what it prints later is not written to a segment or a socket.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use shmem_providers::pipes::Pipe;
use shmem_providers::{
    PosixBackend, ServedShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemPool,
};

use super::peer::{Answer, Peer, here, provider};
use testkit::{Outcome, natively};

/// Mechanisms whose descriptors are looked at.
const MECHANISMS: &[&str] = &["posix", "sysv", "memfd", "default"];

pub(crate) fn segments_leave_the_numbers_of_standard_streams_alone() -> Outcome {
    for mechanism in here(MECHANISMS) {
        let mut other = Peer::start();
        let id = other.ask(format!("make {mechanism} 100"))?;
        let mut peer = Peer::start();
        assert_eq!(peer.ask(format!("daemon {mechanism} {id}"))?, "");
        if mechanism == "default" {
            assert_eq!(peer.ask("daemon pool")?, "");
        }
    }
    Ok(())
}

pub(crate) fn pipes_leave_the_numbers_of_standard_streams_alone() -> Outcome {
    assert_eq!(Peer::start().ask("daemon pipe")?, "");
    Ok(())
}

/// With a table of descriptors for the thread of the service alone, and with one for all.
pub(crate) fn the_service_leaves_the_numbers_of_standard_streams_alone() -> Outcome {
    natively("which refuses a call that the service needs")?;
    for forbidden in ["", "forbid ENOSYS close_range"] {
        let folder = tempfile::tempdir()?;
        let place = folder.path().join("service");
        let mut peer = Peer::start();
        if !forbidden.is_empty() {
            peer.ask(forbidden)?;
        }
        assert_eq!(peer.ask(format!("daemon served {}", place.display()))?, "");
        drop(peer);
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
    }
    Ok(())
}

/// What a peer does: closes its standard streams, does the work, tells what has their numbers by then,
/// and opens them again.
pub(crate) fn obey(what: &[&str]) -> Answer {
    let streams: Vec<OwnedFd> = (0..3).map(above).collect::<Result<_, _>>()?;
    for number in 0..3 {
        // SAFETY: nobody uses it until it is open again: this program has one thread, which does not
        // print meanwhile.
        unsafe { libc::close(number) };
    }
    let found = match *what {
        ["pool"] => pool(),
        ["pipe"] => Pipe::new().map_err(Into::into).and_then(|pipe| {
            let taken = taken();
            drop(pipe);
            taken
        }),
        ["served", place] => served(Path::new(place)),
        [mechanism, id] => segments(mechanism, ShMemId::from_string(id)),
        _ => Err("unknown order".into()),
    };
    for (stream, number) in streams.iter().zip(0..) {
        // SAFETY: as above.
        unsafe { libc::dup2(stream.as_raw_fd(), number) };
    }
    found
}

/// A copy of the descriptor with a number that is none of theirs.
fn above(number: i32) -> Result<OwnedFd, std::io::Error> {
    // SAFETY: the standard streams are open.
    let stream = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(stream, 10)?)
}

/// What has the numbers of the standard streams, in the table of any thread. Threads of ours with a table
/// of their own have `/dev/null` there.
fn taken() -> Answer {
    // All of it is read, and closed, before anything is looked up: it takes a number meanwhile.
    let tasks = fs::read_dir("/proc/self/task")?;
    let tasks: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    let mut found = Vec::new();
    for task in tasks {
        for number in 0..3 {
            match fs::read_link(task.join(format!("fd/{number}"))) {
                Ok(link) if link != Path::new("/dev/null") => {
                    found.push(format!("{number} is {}", link.display()));
                }
                _ => {}
            }
        }
    }
    Ok(found.join(", "))
}

fn segments(mechanism: &str, id: ShMemId) -> Answer {
    let mut provider = provider(mechanism)?;
    let mut made = provider.new_shmem(100)?;
    let opened = provider.shmem_from_id(id)?;
    let again = provider.shmem_from_id(made.id())?;
    let clone = provider.clone_ref(&opened)?;
    made[99] = 1;
    assert_eq!((again[99], clone.len()), (1, 100));
    taken()
}

fn pool() -> Answer {
    let mut pool = StdShMemPool::new()?;
    let first = pool.new_shmem(4096)?;
    drop(pool.new_shmem(4096)?);
    let second = pool.new_shmem(4096)?;
    let found = taken();
    drop((first, second));
    found
}

fn served(place: &Path) -> Answer {
    let mut host = ServedShMemProvider::<PosixBackend>::at(place);
    let mut client = ServedShMemProvider::<PosixBackend>::at(place);
    let mut made = host.new_shmem(100)?;
    let opened = client.shmem_from_id(made.id())?;
    let clone = client.clone_ref(&opened)?;
    made[99] = 1;
    assert_eq!((opened[99], clone[99]), (1, 1));
    taken()
}
