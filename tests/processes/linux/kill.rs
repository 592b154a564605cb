//! SIGKILL, at every point that matters.

use std::thread;
use std::time::Duration;

use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemId, ShMemProvider};

use super::limits::permissions_are_told;
use super::peer::{ALL, LASTING, Peer, assert_nothing_left, here};
use testkit::{Outcome, name_exists, says_not_found, skip};

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    for mechanism in here(LASTING) {
        let (mut a, mut b) = (Peer::start(), Peer::start());
        let id = a.ask(format!("make {mechanism} 70000"))?;
        a.ask("put 69999 1")?;
        assert_eq!(b.ask(format!("open {id}"))?, "70000");
        b.ask("put 0 2")?;
        let a = a.kill();

        let mut c = Peer::start();
        assert_eq!(c.ask(format!("open {id}"))?, "70000");
        assert_eq!(
            (c.ask("get 69999")?, c.ask("get 0")?),
            ("1".into(), "2".into())
        );
        let (b, c) = (b.kill(), c.kill());

        assert_nothing_left(&[a, b, c], &[&id]);
        let error = Peer::start()
            .ask(format!("open {id}"))
            .expect_err("it is gone");
        assert!(says_not_found(&error), "{error}");
    }
    Ok(())
}

/// Each attaches to what only its dead predecessor's successor holds.
pub(crate) fn id_opens_through_ten_generations_of_holders() -> Outcome {
    for mechanism in here(LASTING) {
        let mut dead = Vec::new();
        let mut holder = Peer::start();
        let id = holder.ask(format!("make {mechanism} 100"))?;
        for generation in 1..10 {
            let mut next = Peer::start();
            next.ask(format!("open {id}"))?;
            dead.push(holder.kill());
            assert_eq!(
                next.ask(format!("get {}", generation - 1))?,
                (generation - 1).to_string()
            );
            next.ask(format!("put {generation} {generation}"))?;
            // A clone of what was found by searching needs no search.
            next.ask("clone")?;
            next.ask("drop")?;
            holder = next;
        }
        assert_eq!(holder.ask("get 5")?, "5");
        dead.push(holder.kill());
        assert_nothing_left(&dead, &[&id]);
    }
    Ok(())
}

/// Of System V segments some are left, those of creators that were killed between two calls, until
/// the next process makes one. Not POSIX, whose names stay.
pub(crate) fn processes_killed_while_creating_leave_nothing() -> Outcome {
    permissions_are_told()?;
    let mut dead = Vec::new();
    for round in 0..40 {
        for mechanism in here(LASTING) {
            let mut peer = Peer::start();
            peer.ask("files")?;
            peer.tell(&format!("churn {mechanism}"));
            thread::sleep(Duration::from_micros(500 + 131 * round));
            dead.push(peer.kill());
        }
    }
    if here(LASTING).contains(&"sysv") {
        Peer::start().ask("make sysv 1")?;
    }
    assert_nothing_left(&dead, &[]);
    Ok(())
}

pub(crate) fn a_killed_creator_leaves_a_posix_name_that_can_be_removed() -> Outcome {
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let (mut a, mut b) = (Peer::start(), Peer::start());
    let id = a.ask("make posix 100")?;
    a.ask("put 0 9")?;
    b.ask(format!("open {id}"))?;
    a.kill();
    // As its documentation says; so it can still be opened, too.
    assert!(name_exists(&id));
    let mut c = Peer::start();
    c.ask(format!("open {id}"))?;
    let name = ShMemId::from_string(&id);
    MmapShMemProvider::remove(name)?;
    assert_eq!(
        MmapShMemProvider::remove(name),
        Err(Error::Gone { id: name })
    );
    assert_eq!((b.ask("get 0")?, c.ask("get 0")?), ("9".into(), "9".into()));
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

    // The failed attempt has not removed it, and dropping what persists does not either.
    let id = segment.id();
    drop(segment.persist()?);
    let mut peer = Peer::start();
    assert_eq!(peer.ask(format!("open {id}"))?, "100");
    drop(provider.shmem_from_id(id)?);
    assert!(name_exists(id.as_str()));
    MmapShMemProvider::remove(id)?;
    assert!(!name_exists(id.as_str()));
    peer.ask("put 99 1")?;

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
