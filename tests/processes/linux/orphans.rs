//! Names in `/dev/shm` that no process uses any more: which ones are removed, and when.
#![allow(unsafe_code)]

use std::process::{self};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::fork::wait_until_gone;
use super::limits::peer_in;
use super::peer::{Commands, Peer};
use super::posix::{File, is_gone, like_ours, requires_posix};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, name_exists};

/// By the creator of the next segment, in another process, and by `remove_orphans`.
pub(crate) fn orphaned_names_are_removed() -> Outcome {
    requires_posix()?;
    let mut left = Peer::start();
    let id = left.make("posix", 100)?;
    left.kill();
    assert!(Peer::start().make("posix", 100).is_ok());
    assert!(is_gone(&id), "the next creator removes it");

    let mut left = Peer::start();
    let id = left.make("posix", 100)?;
    left.kill();
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    let error = StdShMemProvider::new()?
        .shmem_from_id(ShMemId::from_string(&id))
        .expect_err("it is gone");
    assert!(matches!(error, Error::Gone { .. }), "{error:?}");
    Ok(())
}

/// `exit` runs no destructors of statics or of values on a stack.
pub(crate) fn names_left_by_exit_are_removed() -> Outcome {
    requires_posix()?;
    let mut left = Peer::start();
    let id = left.make("posix", 100)?;
    left.send("posix exit");
    drop(left);
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    Ok(())
}

pub(crate) fn remove_orphans_returns_the_count() -> Outcome {
    let shell = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm";
    let mut peer = peer_in("-m", shell)?;
    peer.execute("posix leave 3 100")?;
    assert_eq!(peer.names()?, 3);
    assert_eq!(peer.remove_orphans()?, 3);
    assert_eq!(peer.remove_orphans()?, 0);
    assert_eq!(peer.names()?, 0);
    Ok(())
}

pub(crate) fn names_in_use_stay() -> Outcome {
    requires_posix()?;
    // By a process that has opened it, or has a clone.
    for how in ["open", "clone"] {
        let (mut creator, mut holder) = (Peer::start(), Peer::start());
        let id = creator.make("posix", 100)?;
        creator.put(7, 7)?;
        holder.open(&id)?;
        if how == "clone" {
            holder.clone_newest()?;
            holder.execute("posix drop-oldest")?;
        }
        creator.kill();
        stays(&id)?;
        // Even while the holder is stopped.
        kill_process(holder.process(), Signal::STOP)?;
        stays(&id)?;
        kill_process(holder.process(), Signal::CONT)?;
        assert_eq!(holder.get(7)?, 7);
        holder.kill();
        MmapShMemProvider::remove_orphans()?;
        assert!(is_gone(&id), "{how}");
    }
    // By a forked child.
    let mut parent = Peer::start();
    let id = parent.make("posix", 100)?;
    let child: i32 = parent.ask_for("fork stay")?;
    parent.kill();
    stays(&id)?;
    // SAFETY: the call accesses no memory. The child waits to be killed, so the number is its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait_until_gone(child.unsigned_abs());
    MmapShMemProvider::remove_orphans()?;
    assert!(is_gone(&id));
    Ok(())
}

/// Checks that nothing removes the name, and that it can be opened.
fn stays(id: &str) -> Result<(), Box<dyn std::error::Error>> {
    MmapShMemProvider::remove_orphans()?;
    Peer::start().make("posix", 1)?;
    Peer::start().open_part(&id, 100)?;
    assert!(name_exists(id));
    Ok(())
}

/// Segments that persist or have a chosen name, and files of other programs.
pub(crate) fn persisted_named_and_foreign_files_stay() -> Outcome {
    requires_posix()?;
    let mut provider = MmapShMemProvider::new()?;
    let persisted = provider.new_shmem(100)?.persist()?.id();
    let other = File::new(&like_ours('a'), 0o600)?;
    let marked = File::new(&format!("other-{}", process::id()), 0o1600)?;
    let mut named = Peer::start();
    let name = format!("/named-{}", process::id());
    named.make_named(&name, 100)?;
    named.kill();

    MmapShMemProvider::remove_orphans()?;
    Peer::start().make("posix", 1)?;
    for id in [
        persisted.as_str(),
        &name,
        other.id().as_str(),
        marked.id().as_str(),
    ] {
        assert!(name_exists(id), "{id}");
    }
    MmapShMemProvider::remove(ShMemId::from_string(&name))?;
    MmapShMemProvider::remove(persisted)?;
    Ok(())
}

/// But not if it has a holder, if it persists, or if another program has created it.
pub(crate) fn a_chosen_name_is_free_again_after_its_creator_was_killed() -> Outcome {
    requires_posix()?;
    let name = format!("/again-{}", process::id());
    let mut first = Peer::start();
    first.make_named(&name, 100)?;
    first.put(0, 1)?;
    let assert_taken = |when: &str| {
        let error = Peer::start().make_named(&name, 100).expect_err(when);
        assert!(error.contains("exists"), "{when}: {error}");
    };
    assert_taken("its creator has it");
    let mut holder = Peer::start();
    holder.open(&name)?;
    first.kill();
    assert_taken("another process has it");
    holder.kill();

    let mut second = Peer::start();
    second.make_named(&name, 100)?;
    assert_eq!(second.get(0)?, 0);
    second.execute("posix persist")?;
    second.kill();
    assert_taken("it persists");
    MmapShMemProvider::remove(ShMemId::from_string(&name))?;

    let file = File::new(&name[1..], 0o600)?;
    assert_taken("another program has created it");
    drop(file);
    assert!(!name_exists(&name));
    Ok(())
}

/// A process without locks creates segments while another one cleans up all the time.
pub(crate) fn segments_without_locks_stay() -> Outcome {
    requires_posix()?;
    let mut peer = Peer::start();
    forbid_in(&mut peer, "ENOSYS", "flock")?;
    let done = AtomicBool::new(false);
    let missing = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let _ = MmapShMemProvider::remove_orphans();
            }
        });
        let missing = (0..10_000).find_map(|_| {
            let made = peer.make("posix", 100);
            let missing = made.as_ref().is_ok_and(|id| !name_exists(id));
            let dropped = peer.drop_newest();
            (missing || made.is_err() || dropped.is_err()).then_some(made)
        });
        done.store(true, Relaxed);
        missing
    });
    assert_eq!(missing, None);
    Ok(())
}

/// Thousands of files of other programs cost little.
pub(crate) fn crowded_dev_shm_is_searched_quickly() -> Outcome {
    let shell = "mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
        cd /dev/shm; seq -f 'file-%g' 10000 | xargs touch; cd /";
    let mut peer = peer_in("-m", shell)?;
    assert_eq!(peer.names()?, 10000);
    let begin = Instant::now();
    peer.make("posix", 100)?;
    assert!(begin.elapsed() < Duration::from_secs(10));
    peer.execute("posix leave 1500 1")?;
    assert_eq!(peer.remove_orphans()?, 1500);
    assert_eq!(peer.names()?, 10001);
    Ok(())
}

/// Whatever state the creators were in. The test has a `/dev/shm` of its own.
pub(crate) fn creators_killed_at_any_time_leave_nothing() -> Outcome {
    let shell = "mount -t tmpfs -o size=16m,mode=1777 tmpfs /dev/shm";
    let mut peer = peer_in("-m", shell)?;
    peer.execute("posix kill-creators 300")?;
    peer.remove_orphans()?;
    assert_eq!(peer.names()?, 0);
    Ok(())
}

/// No creator or holder loses a name while other processes remove orphans.
pub(crate) fn cleaning_up_disturbs_nobody() -> Outcome {
    requires_posix()?;
    let mut creators: Vec<_> = (0..2).map(|_| Peer::start()).collect();
    let mut remover = Peer::start();
    remover.send("posix keep-removing-orphans");
    for creator in &mut creators {
        creator.send("posix make-and-check 2000");
    }
    let answers: Vec<_> = creators
        .iter_mut()
        .map(|creator| creator.answer_to("make-and-check"))
        .collect();
    remover.kill();
    for answer in answers {
        answer?;
    }
    Ok(())
}

pub(crate) fn orphans_make_room_in_dev_shm() -> Outcome {
    let shell = "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm";
    let mut peer = peer_in("-m", shell)?;
    // The first creation searches for orphans as well. Now that is done.
    peer.make("posix", 1)?;
    peer.drop_newest()?;
    peer.execute("posix leave 1 900000")?;
    assert_eq!(peer.names()?, 1);
    peer.make("posix", 900_000)?;
    assert_eq!(peer.names()?, 1);
    Ok(())
}
