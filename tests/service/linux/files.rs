//! The files of the service: the socket, the lock, and the directory that has them.

use std::fs::{self};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::geteuid;
use shmem_providers::{ShMemProvider, ShMemService};
use tempfile::TempDir;

use super::lifetime::{TestDir, eventually, eventually_opens};
use super::peer::{Commands, Provider, host_of};
use testkit::peer::Peer;
use testkit::{Outcome, skip};

/// Starts a peer with these variables and no others that the default address depends on.
pub(super) fn peer_with(variables: &[(&str, &Path)]) -> Peer {
    let mut command = Peer::command();
    for name in [ShMemService::ENV, "XDG_RUNTIME_DIR", "TMPDIR", "HOME"] {
        command.env_remove(name);
    }
    for (name, value) in variables {
        command.env(name, value);
    }
    Peer::started(&mut command)
}

/// Skips the test if this user has a directory in `/run/user`, which has precedence over `TMPDIR`.
pub(super) fn requires_no_session() -> Outcome {
    if has_session() {
        return skip("there is a directory in /run/user, which has precedence over TMPDIR");
    }
    Ok(())
}

pub(super) fn has_session() -> bool {
    Path::new(&format!("/run/user/{}", geteuid().as_raw())).exists()
}

/// Creates a directory with two unrelated files that have the names of a service's socket and lock.
pub(super) fn bystanders(name: &str) -> Result<TempDir, std::io::Error> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join(name), "unrelated")?;
    fs::write(directory.path().join(format!("{name}.lock")), "unrelated")?;
    Ok(directory)
}

#[track_caller]
pub(super) fn assert_untouched(directory: &TempDir, name: &str) {
    for name in [name.to_owned(), format!("{name}.lock")] {
        let content = fs::read_to_string(directory.path().join(&name));
        assert_eq!(content.ok().as_deref(), Some("unrelated"), "{name}");
    }
    assert_eq!(
        fs::read_dir(directory.path()).map(Iterator::count).ok(),
        Some(2)
    );
}

pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it is ours");
    entries.flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
pub(super) fn assert_empty(directory: &Path) {
    assert_eq!(entries(directory), Vec::<PathBuf>::new());
}

/// Waits until a condition holds. `what` describes it.
#[track_caller]
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(|| {
        holds()
            .then_some(())
            .ok_or_else(|| format!("not so: {what}"))
    });
}

pub(super) fn directory_of(address: &Path) -> Result<&Path, &'static str> {
    address.parent().ok_or("the address has no directory")
}

pub(super) fn lock_of(address: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", address.display()))
}

/// A service removes only files that it has created, whatever its path refers to when it stops.
pub(crate) fn files_in_a_swapped_directory_are_left_alone() -> Outcome {
    for moment in ["at once", "later"] {
        let outer = tempfile::tempdir()?;
        let (directory, moved) = (outer.path().join("directory"), outer.path().join("moved"));
        fs::create_dir(&directory)?;
        let elsewhere = bystanders("service")?;
        let mut host = Peer::start();
        host.serve_at(&directory.join("service"))?;
        fs::rename(&directory, &moved)?;
        symlink(elsewhere.path(), &directory)?;
        if moment == "later" {
            thread::sleep(Duration::from_millis(1500));
        }
        host.stop_serving()?;
        drop(host);
        assert_untouched(&elsewhere, "service");
        assert_empty(&moved);
    }
    Ok(())
}

/// `/run/user/UID` is emptied on log-out while programs still run, and old files in `/tmp` are removed.
pub(crate) fn host_recreates_its_removed_files() -> Outcome {
    for gone in ["both", "socket", "lock"] {
        let dir = TestDir::new()?;
        let host = dir.host();
        let mut holder = dir.peer();
        let id = holder.make(100)?;
        if gone != "lock" {
            fs::remove_file(&dir.address)?;
        }
        if gone != "socket" {
            fs::remove_file(lock_of(&dir.address))?;
        }
        // The host checks its files at least once a second.
        thread::sleep(Duration::from_secs(1));
        wait_until("the host serves", || {
            host_of(&dir.address) == Some(host.pid()) && dir.address.exists()
        });
        let mut other = dir.peer();
        other.open(&id)?;
        let made = other.make(100)?;
        holder.try_open(&made)?;
        assert_eq!(dir.files(), ["service", "service.lock"]);
        drop((other, holder, host));
        dir.assert_nothing_left();
    }
    Ok(())
}

/// New programs start at once, and some become the host before the old one has noticed the removal.
pub(crate) fn clients_survive_repeated_removal_of_the_files() -> Outcome {
    let dir = TestDir::new()?;
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = dir.peer();
        let id = holder.make(100)?;
        holders.push((holder, id));
    }
    for round in 0..24 {
        // They may not exist at this moment.
        if round % 3 != 1 {
            let _ = fs::remove_file(lock_of(&dir.address));
        }
        if round % 3 != 0 {
            let _ = fs::remove_file(&dir.address);
        }
        thread::sleep(Duration::from_millis(round * 37 % 300));
        let mut fresh = dir.peer();
        for (_, id) in &holders {
            eventually_opens(&mut fresh, id);
        }
        let id = fresh.make(100)?;
        for (holder, _) in &mut holders {
            eventually_opens(holder, &id);
        }
        let oldest = holders.remove(0);
        drop(oldest);
        holders.push((fresh, id));
    }
    drop(holders);
    dir.assert_nothing_left();
    Ok(())
}

/// Clients do not wait until the host has noticed the removal.
pub(crate) fn clients_survive_removal_of_the_directory() -> Outcome {
    requires_no_session()?;
    let temporary = tempfile::tempdir()?;
    let start = || peer_with(&[("TMPDIR", temporary.path())]);
    let mut host = start();
    let kept = host.make(100)?;
    let mut holder = start();
    let id = holder.make(100)?;
    for round in 0..3 {
        for entry in entries(temporary.path()) {
            fs::remove_dir_all(entry)?;
        }
        if round > 0 {
            thread::sleep(Duration::from_millis(600 * round));
        }
        let mut other = start();
        eventually_opens(&mut other, &id);
        eventually_opens(&mut other, &kept);
        let made = other.make(100)?;
        eventually_opens(&mut holder, &made);
        eventually_opens(&mut host, &made);
    }
    drop((holder, host));
    let directory = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    assert_empty(&directory);
    Ok(())
}

/// A service fails for lack of descriptors, with one more of them each time; or because of other files.
pub(crate) fn nothing_is_left_after_errors() -> Outcome {
    let dir = TestDir::new()?;
    let mut failed = 0;
    for limit in 3..16 {
        let mut peer = dir.peer();
        peer.execute(format!("limit {limit}"))?;
        if peer.serve_at(&dir.address).is_err() {
            failed += 1;
            dir.assert_nothing_left();
        }
        peer.stop_serving()?;
        // It may start a service that it cannot connect to.
        let _ = peer.make(100);
        drop(peer);
        dir.assert_nothing_left();
    }
    assert!(failed > 0);
    // Unrelated files with these names stay.
    let directory = directory_of(&dir.address)?;
    fs::write(&dir.address, "unrelated")?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    assert_eq!(dir.files(), ["service"]);
    fs::write(lock_of(&dir.address), "unrelated")?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    assert!(Provider::at(&dir.address).new_shmem(1).is_err());
    assert_eq!(dir.files(), ["service", "service.lock"]);
    assert_eq!(fs::read_to_string(lock_of(&dir.address))?, "unrelated");
    fs::remove_file(&dir.address)?;
    fs::remove_file(lock_of(&dir.address))?;
    // A directory, and a link, in the place of the lock.
    fs::create_dir(lock_of(&dir.address))?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    assert_eq!(dir.files(), ["service.lock"]);
    fs::remove_dir(lock_of(&dir.address))?;
    symlink(directory.join("target"), lock_of(&dir.address))?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    assert_eq!(dir.files(), ["service.lock"]);
    fs::remove_file(lock_of(&dir.address))?;
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn files_of_a_killed_host_are_removed() -> Outcome {
    let dir = TestDir::new()?;
    dir.host().kill();
    assert_eq!(dir.files(), ["service", "service.lock"]);
    ShMemService::start_at(&dir.address)?.stop();
    dir.assert_nothing_left();
    dir.host().kill();
    drop(Provider::at(&dir.address).new_shmem(100)?);
    dir.assert_nothing_left();
    // The lock was removed.
    dir.host().kill();
    fs::remove_file(lock_of(&dir.address))?;
    ShMemService::start_at(&dir.address)?.stop();
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn files_left_by_exit_are_removed() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    host.send("exit");
    drop(host);
    // `exit` runs no destructor of the service.
    assert_eq!(dir.files(), ["service", "service.lock"]);
    drop(Provider::at(&dir.address).new_shmem(100)?);
    dir.assert_nothing_left();
    Ok(())
}

/// Sockets that are neither a service's nor dead.
pub(crate) fn sockets_of_other_programs_are_left_alone() -> Outcome {
    let dir = TestDir::new()?;
    let listener = UnixListener::bind(&dir.address)?;
    let inode = fs::metadata(&dir.address)?.ino();
    assert!(ShMemService::start_at(&dir.address).is_err());
    assert!(Provider::at(&dir.address).new_shmem(1).is_err());
    assert_eq!(fs::metadata(&dir.address)?.ino(), inode);
    assert_eq!(dir.files(), ["service"]);
    drop(listener);
    fs::remove_file(&dir.address)?;
    let datagrams = UnixDatagram::bind(&dir.address)?;
    let inode = fs::metadata(&dir.address)?.ino();
    assert!(ShMemService::start_at(&dir.address).is_err());
    let error = Provider::at(&dir.address)
        .new_shmem(1)
        .expect_err("it is not a service");
    assert!(error.to_string().contains("SHMEM_SERVICE"), "{error}");
    assert_eq!(fs::metadata(&dir.address)?.ino(), inode);
    assert_eq!(dir.files(), ["service"]);
    drop(datagrams);
    drop(Provider::at(&dir.address).new_shmem(1)?);
    dir.assert_nothing_left();
    Ok(())
}
