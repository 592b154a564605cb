//! Requests about locks that the client has no right to.

use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::AsFd;
use rustix::io;

use super::Scene;
use super::descriptors::memory;
use super::raw::{self, Raw, frame};
use testkit::Outcome;

/// A client that is one of the holders of the segment of the scene.
fn holder(scene: &Scene) -> io::Result<Raw> {
    let client = Raw::introduced(scene.address())?;
    assert_eq!(ask(&client, raw::OPEN, 0, &scene.id)?, Some(raw::DONE));
    Ok(client)
}

fn ask(client: &Raw, opcode: u8, byte: u64, id: &str) -> io::Result<Option<u8>> {
    client.ask(&frame(opcode, byte, id), &[])
}

pub(crate) fn bytes_of_segments_that_are_not_held_cannot_be_locked() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let own = memory(100)?;
    let create = frame(raw::CREATE, 100, &raw::id(1));
    assert_eq!(client.ask(&create, &[own.as_fd()])?, Some(raw::DONE));
    for id in [&*scene.id, &raw::id(2)] {
        for opcode in [raw::LOCK, raw::RELOCK, raw::QUERY] {
            let status = ask(&client, opcode, 0, id)?;
            assert_eq!(status, Some(raw::UNKNOWN), "{opcode} {id}");
        }
        assert_eq!(ask(&client, raw::UNLOCK, 0, id)?, Some(raw::UNKNOWN));
        assert_eq!(ask(&client, raw::SETTLE, 0, id)?, Some(raw::UNKNOWN));
        assert_eq!(ask(&client, raw::LIFE, 1, id)?, Some(raw::UNKNOWN));
        assert_eq!(ask(&client, raw::LIFE, 2, id)?, Some(raw::UNKNOWN));
    }
    // Nor can bytes that do not exist.
    for byte in [100, 1 << 32, u64::MAX] {
        for opcode in [raw::LOCK, raw::RELOCK, raw::QUERY] {
            let status = ask(&client, opcode, byte, &raw::id(1))?;
            assert_eq!(status, Some(raw::UNKNOWN), "{opcode} {byte}");
        }
    }
    assert_eq!(ask(&client, raw::LOCK, 99, &raw::id(1))?, Some(raw::DONE));
    drop(client);
    scene.assert_served();
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn locks_of_others_cannot_be_released() -> Outcome {
    let scene = Scene::new()?;
    let (owner, other) = (holder(&scene)?, holder(&scene)?);
    assert_eq!(ask(&owner, raw::LOCK, 7, &scene.id)?, Some(raw::DONE));
    // A client has one lock at most.
    assert_eq!(ask(&owner, raw::LOCK, 8, &scene.id)?, Some(raw::FULL));
    for opcode in [raw::LOCK, raw::RELOCK, raw::QUERY] {
        for client in [&owner, &other] {
            let status = ask(client, opcode, 7, &scene.id)?;
            assert_eq!(status, Some(raw::TAKEN), "{opcode}");
        }
    }
    assert_eq!(ask(&other, raw::UNLOCK, 0, &scene.id)?, Some(raw::UNKNOWN));
    other.send(&frame(raw::RELEASE, 0, &scene.id), &[])?;
    drop(other);
    let other = holder(&scene)?;
    assert_eq!(ask(&other, raw::QUERY, 7, &scene.id)?, Some(raw::TAKEN));
    // Nothing was locked when an earlier service died.
    assert_eq!(ask(&other, raw::RELOCK, 9, &scene.id)?, Some(raw::TAKEN));
    assert_eq!(ask(&owner, raw::UNLOCK, 0, &scene.id)?, Some(raw::DONE));
    assert_eq!(ask(&owner, raw::UNLOCK, 0, &scene.id)?, Some(raw::UNKNOWN));
    assert_eq!(ask(&other, raw::LOCK, 7, &scene.id)?, Some(raw::DONE));
    // The lock ends with the hold, and with the connection.
    other.send(&frame(raw::RELEASE, 0, &scene.id), &[])?;
    assert_eq!(ask(&other, raw::OPEN, 0, &scene.id)?, Some(raw::DONE));
    assert_eq!(ask(&other, raw::LOCK, 7, &scene.id)?, Some(raw::DONE));
    drop(other);
    let end = Instant::now() + Duration::from_secs(30);
    while ask(&owner, raw::LOCK, 7, &scene.id)? != Some(raw::DONE) {
        assert!(Instant::now() < end, "it is still locked");
        thread::sleep(Duration::from_millis(1));
    }
    drop(owner);
    scene.assert_unharmed();
    Ok(())
}

/// As after the death of a host: somebody may have a lock who has not returned.
pub(crate) fn segments_of_an_earlier_service_are_not_free() -> Outcome {
    let mut scene = Scene::new()?;
    let (client, other) = (
        Raw::introduced(scene.address())?,
        Raw::introduced(scene.address())?,
    );
    let own = memory(100)?;
    let id = raw::id(1);
    let register = frame(raw::REGISTER, 100, &id);
    assert_eq!(client.ask(&register, &[own.as_fd()])?, Some(raw::DONE));
    // What exists cannot be created once more.
    let create = frame(raw::CREATE, 100, &id);
    assert_eq!(other.ask(&create, &[own.as_fd()])?, Some(raw::DONE));
    for client in [&client, &other] {
        assert_eq!(ask(client, raw::LOCK, 0, &id)?, Some(raw::UNSETTLED));
        assert_eq!(ask(client, raw::QUERY, 0, &id)?, Some(raw::UNSETTLED));
        assert_eq!(ask(client, raw::LIFE, 1, &id)?, Some(raw::DONE));
        assert_eq!(ask(client, raw::LIFE, 2, &id)?, Some(raw::UNSETTLED));
    }
    assert_eq!(ask(&client, raw::RELOCK, 0, &id)?, Some(raw::DONE));
    assert_eq!(ask(&other, raw::QUERY, 0, &id)?, Some(raw::TAKEN));
    assert_eq!(ask(&other, raw::QUERY, 1, &id)?, Some(raw::UNSETTLED));
    assert_eq!(ask(&client, raw::LIFE, 2, &id)?, Some(raw::DONE));
    assert_eq!(ask(&client, raw::SETTLE, 0, &id)?, Some(raw::DONE));
    assert_eq!(ask(&other, raw::QUERY, 1, &id)?, Some(raw::DONE));
    // There are two ends.
    assert_eq!(ask(&client, raw::LIFE, 3, &id)?, None);
    drop((client, other));
    // The pipe stays until the service ends.
    if !cfg!(any(shmem_apple_rules, shmem_freebsd_rules)) {
        scene.files += 2;
    }
    scene.assert_unharmed();
    Ok(())
}
