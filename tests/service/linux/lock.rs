//! The lock beside the socket: which service keeps the address while the lock is missing, lost or taken.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::process::{Signal, kill_process};
use shmem_providers::ShMemService;

use super::files::{directory_of, lock_of, wait_until};
use super::lifetime::{TestDir, eventually_opens};
use super::peer::{Commands, host_of};
use testkit::Outcome;
use testkit::peer::Peer;
use testkit::seccomp::forbid_in;

pub(crate) fn host_without_a_lock_is_not_replaced() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut holder = dir.peer();
    let id = holder.make(100)?;
    let socket = fs::metadata(&dir.address)?.ino();
    for _ in 0..20 {
        fs::remove_file(lock_of(&dir.address))?;
        let error = ShMemService::start_at(&dir.address).expect_err("it is taken");
        assert!(error.to_string().contains("another service"), "{error}");
        wait_until("the lock is there", || {
            host_of(&dir.address) == Some(host.pid())
        });
    }
    assert_eq!(fs::metadata(&dir.address)?.ino(), socket);
    dir.peer().try_open(&id)?;
    host.stop_serving()?;
    drop((holder, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn stopped_host_without_a_lock_is_not_replaced() -> Outcome {
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut holder = dir.peer();
    let id = holder.make(100)?;
    kill_process(host.process(), Signal::STOP)?;
    fs::remove_file(lock_of(&dir.address))?;
    for _ in 0..3 {
        let started = ShMemService::start_at(&dir.address);
        if started.is_ok() {
            kill_process(host.process(), Signal::CONT)?;
        }
        let error = started.expect_err("it is taken");
        assert!(error.to_string().contains("another service"), "{error}");
    }
    assert_eq!(dir.files(), ["service"]);
    kill_process(host.process(), Signal::CONT)?;
    dir.peer().try_open(&id)?;
    drop((holder, host));
    dir.assert_nothing_left();
    Ok(())
}

/// The new host cannot know of the old one when it starts.
pub(crate) fn segments_move_from_an_old_host_to_a_new_one() -> Outcome {
    let dir = TestDir::new()?;
    let mut old = dir.host();
    let mut holder = dir.peer();
    let id = holder.make(100)?;
    kill_process(old.process(), Signal::STOP)?;
    fs::remove_file(&dir.address)?;
    fs::remove_file(lock_of(&dir.address))?;
    let mut new = dir.host();
    kill_process(old.process(), Signal::CONT)?;
    // The clients of the old host register their segments with the new one.
    let mut other = dir.peer();
    eventually_opens(&mut other, &id);
    old.stop_serving()?;
    assert_eq!(host_of(&dir.address), Some(new.pid()));
    dir.peer().try_open(&id)?;
    new.stop_serving()?;
    drop((other, holder, old, new));
    dir.assert_nothing_left();

    // The old host is stopped before it has noticed the new one.
    let dir = TestDir::new()?;
    let mut old = dir.host();
    kill_process(old.process(), Signal::STOP)?;
    fs::remove_file(&dir.address)?;
    fs::remove_file(lock_of(&dir.address))?;
    let new = dir.host();
    old.send("unhost");
    kill_process(old.process(), Signal::CONT)?;
    drop(old);
    assert_eq!(dir.files(), ["service", "service.lock"]);
    dir.peer().make(100)?;
    drop(new);
    dir.assert_nothing_left();
    Ok(())
}

/// A process loses a record lock when it closes any descriptor of the file.
pub(crate) fn other_spellings_of_the_address_keep_the_lock() -> Outcome {
    let dir = TestDir::new()?;
    let directory = directory_of(&dir.address)?;
    let links = tempfile::tempdir()?;
    let link = links.path().join("link");
    symlink(directory, &link)?;
    let mut host = Peer::start();
    forbid_in(&mut host, "ENOSYS", "close_range")?;
    host.serve_at(&dir.address)?;
    host.use_address(&dir.address)?;
    let id = host.make(100)?;
    let name = directory
        .file_name()
        .ok_or("the directory has no name")?
        .to_string_lossy()
        .into_owned();
    for path in [
        link.join("service"),
        directory.join(".").join("service"),
        directory.join("..").join(&name).join("service"),
    ] {
        let text = host
            .serve_at(&path)
            .expect_err("it serves at this address already");
        assert!(text.contains("another service"), "{text}");
        assert_eq!(
            host_of(&dir.address),
            Some(host.pid()),
            "{}",
            path.display()
        );
        let mut other = Peer::start();
        other.use_address(&path)?;
        other.try_open(&id)?;
    }
    drop(host);
    dir.assert_nothing_left();
    Ok(())
}

/// The process loses the lock when it closes another descriptor of the file, where the service shares its
/// descriptor table.
pub(crate) fn host_takes_its_lost_lock_again() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = Peer::start();
    forbid_in(&mut host, "ENOSYS", "close_range")?;
    host.serve_at(&dir.address)?;
    let mut holder = dir.peer();
    let id = holder.make(100)?;
    for _ in 0..20 {
        host.ask(format!("read {}", lock_of(&dir.address).display()))?;
        assert!(ShMemService::start_at(&dir.address).is_err());
        wait_until("the host has the lock", || {
            host_of(&dir.address) == Some(host.pid())
        });
    }
    dir.peer().try_open(&id)?;
    assert_eq!(dir.files(), ["service", "service.lock"]);
    drop((holder, host));
    dir.assert_nothing_left();
    Ok(())
}
