//! SIGKILL of creators and holders, at every moment that matters.

use std::thread;
use std::time::Duration;

use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemId, ShMemProvider};

use super::limits::permissions_are_reported;
use super::peer::{ALL, Commands, LASTING, Peer, assert_nothing_left, here};
use testkit::{Outcome, name_exists, says_not_found, skip};

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    for mechanism in here(LASTING) {
        let (mut a, mut b) = (Peer::start(), Peer::start());
        let id = a.make(mechanism, 70000)?;
        a.put(69999, 1)?;
        assert_eq!(b.open(&id)?, 70000);
        b.put(0, 2)?;
        let a = a.kill();

        let mut c = Peer::start();
        assert_eq!(c.open(&id)?, 70000);
        assert_eq!((c.get(69999)?, c.get(0)?), (1, 2));
        let (b, c) = (b.kill(), c.kill());

        assert_nothing_left(&[a, b, c], &[&id]);
        let error = Peer::start().open(&id).expect_err("it is gone");
        assert!(says_not_found(&error), "{error}");
    }
    Ok(())
}

/// Each process attaches to a segment whose only holder is the process before, which is then killed.
pub(crate) fn id_opens_through_ten_generations_of_holders() -> Outcome {
    for mechanism in here(LASTING) {
        let mut dead = Vec::new();
        let mut holder = Peer::start();
        let id = holder.make(mechanism, 100)?;
        for generation in 1..10_u8 {
            let mut next = Peer::start();
            next.open(&id)?;
            dead.push(holder.kill());
            let before = generation - 1;
            assert_eq!(next.get(before.into())?, before);
            next.put(generation.into(), generation)?;
            // A clone of a segment that was found by a search needs no search.
            next.clone_newest()?;
            next.drop_newest()?;
            holder = next;
        }
        assert_eq!(holder.get(5)?, 5);
        dead.push(holder.kill());
        assert_nothing_left(&dead, &[&id]);
    }
    Ok(())
}

/// Creators that are killed between two calls leave System V segments until the next process creates one.
/// POSIX names, which stay, are not part of this.
pub(crate) fn processes_killed_while_creating_leave_nothing() -> Outcome {
    permissions_are_reported()?;
    let mut dead = Vec::new();
    for round in 0..40 {
        for mechanism in here(LASTING) {
            let mut peer = Peer::start();
            peer.files()?;
            peer.send(&format!("churn {mechanism}"));
            thread::sleep(Duration::from_micros(500 + 131 * round));
            dead.push(peer.kill());
        }
    }
    if here(LASTING).contains(&"sysv") {
        Peer::start().make("sysv", 1)?;
    }
    assert_nothing_left(&dead, &[]);
    Ok(())
}

pub(crate) fn a_killed_creator_leaves_a_posix_name_that_can_be_removed() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let (mut a, mut b) = (Peer::start(), Peer::start());
    let id = a.make("posix", 100)?;
    a.put(0, 9)?;
    b.open(&id)?;
    a.kill();
    // As documented. The name can also still be opened.
    assert!(name_exists(&id));
    let mut c = Peer::start();
    c.open(&id)?;
    let name = ShMemId::from_string(&id);
    MmapShMemProvider::remove(name)?;
    assert_eq!(
        MmapShMemProvider::remove(name),
        Err(Error::Gone { id: name })
    );
    assert_eq!((b.get(0)?, c.get(0)?), (9, 9));
    assert_nothing_left(&[b.kill(), c.kill()], &[&id]);
    Ok(())
}

pub(crate) fn persisted_posix_segments_stay_until_removed() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let mut provider = MmapShMemProvider::new()?;
    let name = format!("test-{}", std::process::id());
    let segment = provider.new_shmem_with_id(100, format!("/{name}"))?;
    assert_eq!(segment.filename_path(), Some(segment.id().as_array()));
    assert_eq!(segment.id().as_str(), format!("/{name}"));
    let taken = provider
        .new_shmem_with_id(100, &name)
        .expect_err("the name is taken");
    assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));

    // Neither the failed attempt has removed it nor does dropping a segment that persists.
    let id = segment.id();
    drop(segment.persist()?);
    let mut peer = Peer::start();
    assert_eq!(peer.open(&id)?, 100);
    drop(provider.shmem_from_id(id)?);
    assert!(name_exists(id.as_str()));
    MmapShMemProvider::remove(id)?;
    assert!(!name_exists(id.as_str()));
    peer.put(99, 1)?;

    for name in [
        "",
        "/",
        ".",
        "..",
        "a/b",
        "//a",
        "nineteen characters",
        "nul\0inside",
    ] {
        let error = provider
            .new_shmem_with_id(100, name)
            .expect_err("no such name");
        assert!(
            matches!(error, Error::InvalidId { .. }),
            "{name}: {error:?}"
        );
        let error = MmapShMemProvider::remove(ShMemId::from_string(name)).expect_err("no name");
        assert!(
            matches!(error, Error::InvalidId { .. }),
            "{name}: {error:?}"
        );
    }
    Ok(())
}
