//! Programs that have closed their standard streams, as daemons do: none of our descriptors gets their
//! numbers, so that what the program prints later is not written to a segment or a socket.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use shmem_providers::pipes::Pipe;
use shmem_providers::{
    PosixBackend, ServedShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemPool,
};

use super::peer::{Answer, Commands, Peer, here, provider};
use testkit::{Outcome, natively};

/// The mechanisms whose descriptors are checked.
const MECHANISMS: &[&str] = &["posix", "sysv", "memfd", "default"];

pub(crate) fn segments_leave_the_numbers_of_standard_streams_alone() -> Outcome {
    for mechanism in here(MECHANISMS) {
        let mut other = Peer::start();
        let id = other.make(mechanism, 100)?;
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

/// With a descriptor table of its own for the service's thread, and with one for all threads.
pub(crate) fn the_service_leaves_the_numbers_of_standard_streams_alone() -> Outcome {
    natively("which refuses a call that the service needs")?;
    for one_table in [false, true] {
        let directory = tempfile::tempdir()?;
        let address = directory.path().join("service");
        let mut peer = Peer::start();
        if one_table {
            peer.execute("forbid ENOSYS close_range")?;
        }
        assert_eq!(
            peer.ask(format!("daemon served {}", address.display()))?,
            ""
        );
        drop(peer);
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    }
    Ok(())
}

/// What a peer does: closes its standard streams, does the work, opens the streams again, and returns what had
/// their numbers in the meantime.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let streams: Vec<OwnedFd> = (0..3).map(above).collect::<Result<_, _>>()?;
    for number in 0..3 {
        // SAFETY: nothing uses the descriptor until it is open again: this program has a single thread, which
        // does not print before that.
        unsafe { libc::close(number) };
    }
    let found = match *words {
        ["pool"] => pool(),
        ["pipe"] => Pipe::new().map_err(Into::into).and_then(|pipe| {
            let taken = taken();
            drop(pipe);
            taken
        }),
        ["served", address] => served(Path::new(address)),
        [mechanism, id] => segments(mechanism, ShMemId::from_string(id)),
        _ => Err(format!("unknown command {words:?}").into()),
    };
    for (stream, number) in streams.iter().zip(0..) {
        // SAFETY: the stream is open, and nothing else uses the number, as above.
        unsafe { libc::dup2(stream.as_raw_fd(), number) };
    }
    found
}

/// Returns a copy of a standard stream whose number is none of theirs.
fn above(number: i32) -> Result<OwnedFd, std::io::Error> {
    // SAFETY: the standard streams are open.
    let stream = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(stream, 10)?)
}

/// Returns what has the numbers of the standard streams, in the descriptor table of any thread. Our threads
/// with a table of their own have `/dev/null` there.
fn taken() -> Answer {
    // The directory is read and closed before the lookups, because it takes a number itself.
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

fn served(address: &Path) -> Answer {
    let mut host = ServedShMemProvider::<PosixBackend>::at(address);
    let mut client = ServedShMemProvider::<PosixBackend>::at(address);
    let mut made = host.new_shmem(100)?;
    let opened = client.shmem_from_id(made.id())?;
    let clone = client.clone_ref(&opened)?;
    made[99] = 1;
    assert_eq!((opened[99], clone[99]), (1, 1));
    taken()
}
