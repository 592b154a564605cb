//! The files of the service: the socket, the lock, and the directory that has them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Signal, geteuid, kill_process};
use shmem_providers::{ShMemProvider, ShMemService};
use tempfile::TempDir;

use super::lifetime::{TestDir, eventually, eventually_opens};
use super::peer::{Commands, Provider, host_of};
use testkit::peer::{Peer, can_start_by, public_program};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, skip};

/// Runs a command as another user, who owns nothing.
const AS_OTHER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

const OTHER: u32 = 65534;

/// Starts a peer with these variables and no others that the default address depends on.
fn peer_with(variables: &[(&str, &Path)]) -> Peer {
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
fn requires_no_session() -> Outcome {
    if has_session() {
        return skip("there is a directory in /run/user, which has precedence over TMPDIR");
    }
    Ok(())
}

fn has_session() -> bool {
    Path::new(&format!("/run/user/{}", geteuid().as_raw())).exists()
}

/// Creates a directory like `/tmp`: other users may create files in it, and remove only their own.
fn shared_directory() -> Result<TempDir, std::io::Error> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777))?;
    Ok(directory)
}

/// Creates a directory with two unrelated files that have the names of a service's socket and lock.
fn bystanders(name: &str) -> Result<TempDir, std::io::Error> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join(name), "unrelated")?;
    fs::write(directory.path().join(format!("{name}.lock")), "unrelated")?;
    Ok(directory)
}

#[track_caller]
fn assert_untouched(directory: &TempDir, name: &str) {
    for name in [name.to_owned(), format!("{name}.lock")] {
        let content = fs::read_to_string(directory.path().join(&name));
        assert_eq!(content.ok().as_deref(), Some("unrelated"), "{name}");
    }
    assert_eq!(
        fs::read_dir(directory.path()).map(Iterator::count).ok(),
        Some(2)
    );
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it is ours");
    entries.flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
fn assert_empty(directory: &Path) {
    assert_eq!(entries(directory), Vec::<PathBuf>::new());
}

/// Waits until a condition holds. `what` describes it.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(|| {
        holds()
            .then_some(())
            .ok_or_else(|| format!("not so: {what}"))
    });
}

fn directory_of(address: &Path) -> Result<&Path, &'static str> {
    address.parent().ok_or("the address has no directory")
}

fn lock_of(address: &Path) -> PathBuf {
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

/// Root, with a variable that names a directory which another user can swap.
pub(crate) fn directory_of_another_user_is_refused() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can create directories of other users");
    }
    let outer = shared_directory()?;
    let theirs = outer.path().join("theirs");
    fs::create_dir(&theirs)?;
    fs::create_dir(theirs.join("inner"))?;
    chown(&theirs, Some(OTHER), Some(OTHER))?;
    for path in [theirs.join("service"), theirs.join("inner/service")] {
        let error = ShMemService::start_at(&path).expect_err("the directory is not safe");
        let text = error.to_string();
        assert!(text.contains(&*theirs.to_string_lossy()), "{text}");
        assert!(
            text.contains("65534") && text.contains("SHMEM_SERVICE"),
            "{text}"
        );
        let mut peer = peer_with(&[(ShMemService::ENV, &path)]);
        for command in ["make 100", "host"] {
            let text = peer.ask(command).expect_err("the same");
            assert!(
                text.contains("65534") && text.contains("SHMEM_SERVICE"),
                "{text}"
            );
        }
    }
    if !has_session() {
        let mut peer = peer_with(&[("TMPDIR", &theirs)]);
        let text = peer.make(100).expect_err("the same");
        assert!(
            text.contains("TMPDIR") && text.contains("SHMEM_SERVICE"),
            "{text}"
        );
    }
    // Another user can change where a link of theirs leads.
    let ours = tempfile::tempdir()?;
    let link = outer.path().join("link");
    symlink(ours.path(), &link)?;
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER))?;
    let error = ShMemService::start_at(link.join("service")).expect_err("not safe either");
    assert!(error.to_string().contains("65534"), "{error}");
    assert_empty(ours.path());
    assert_eq!(entries(&theirs), [theirs.join("inner")]);
    assert_empty(&theirs.join("inner"));
    Ok(())
}

pub(crate) fn parents_that_others_may_rename_are_refused() -> Outcome {
    let outer = tempfile::tempdir()?;
    let directory = outer.path().join("directory");
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let address = directory.join("service");
    fs::set_permissions(outer.path(), Permissions::from_mode(0o777))?;
    let error = ShMemService::start_at(&address).expect_err("others may rename it");
    let made = Provider::at(&address).new_shmem(1).expect_err("the same");
    for text in [error.to_string(), made.to_string()] {
        assert!(text.contains(&*address.to_string_lossy()), "{text}");
        assert!(
            text.contains("rename") && text.contains("SHMEM_SERVICE"),
            "{text}"
        );
    }
    assert_empty(&directory);
    fs::set_permissions(outer.path(), Permissions::from_mode(0o1777))?;
    ShMemService::start_at(&address)?;
    fs::set_permissions(outer.path(), Permissions::from_mode(0o755))?;
    ShMemService::start_at(&address)?;
    assert_empty(&directory);
    Ok(())
}

pub(crate) fn relative_address_does_not_follow_the_working_directory() -> Outcome {
    let directory = tempfile::tempdir()?;
    let elsewhere = bystanders("svc")?;
    let address = directory.path().join("svc");
    let from_argument = || -> Result<Peer, String> {
        let mut peer = Peer::start();
        peer.change_directory(directory.path())?;
        peer.serve_at(Path::new("svc"))?;
        Ok(peer)
    };
    let from_variable = || -> Result<Peer, String> {
        let mut peer = peer_with(&[(ShMemService::ENV, Path::new("svc"))]);
        peer.change_directory(directory.path())?;
        peer.execute("host")?;
        Ok(peer)
    };
    for start in [
        &from_argument as &dyn Fn() -> Result<Peer, String>,
        &from_variable,
    ] {
        let mut host = start()?;
        host.change_directory(elsewhere.path())?;
        let mut client = Peer::start();
        client.change_directory(directory.path())?;
        client.use_address(Path::new("svc"))?;
        client.change_directory(elsewhere.path())?;
        let id = client.make(100)?;
        assert_eq!(client.address()?, address.display().to_string());
        Provider::at(&address).shmem_from_id(shmem_providers::ShMemId::from_string(&id))?;
        host.stop_serving()?;
        // The client is the host now, and removes the files in the end.
        client.try_open(&id)?;
        drop((host, client));
        assert_untouched(&elsewhere, "svc");
        assert_empty(directory.path());
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

/// Creates directories for `HOME`, the second choice, and `TMPDIR`, the first.
fn home_and_temporary() -> Result<(TempDir, TempDir), std::io::Error> {
    Ok((tempfile::tempdir()?, shared_directory()?))
}

pub(crate) fn home_is_used_if_the_directory_is_squatted() -> Outcome {
    requires_no_session()?;
    let (home, temporary) = home_and_temporary()?;
    let directory = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    if geteuid().is_root() && can_start_by(AS_OTHER).is_ok() {
        let mut mkdir = Command::new(AS_OTHER[0]);
        mkdir.args(&AS_OTHER[1..]).arg("mkdir").arg(&directory);
        assert!(mkdir.status()?.success());
    } else {
        // A file of this user is unusable as well.
        fs::write(&directory, "")?;
    }
    let start = || peer_with(&[("TMPDIR", temporary.path()), ("HOME", home.path())]);
    let (mut a, mut b) = (start(), start());
    let id = a.make(100)?;
    b.open(&id)?;
    let address = a.address()?;
    assert!(
        address.starts_with(&*home.path().to_string_lossy()),
        "{address}"
    );
    assert_eq!(b.address()?, address);
    drop((a, b));
    let own = directory_of(Path::new(&address))?;
    assert_empty(own);
    assert_eq!(fs::metadata(own)?.permissions().mode() & 0o777, 0o700);
    fs::remove_dir(own)?;
    assert_empty(home.path());

    // Neither directory is safe.
    fs::set_permissions(home.path(), Permissions::from_mode(0o777))?;
    let text = start().make(100).expect_err("neither is safe");
    let (first, second) = (directory.to_string_lossy(), home.path().to_string_lossy());
    for part in [&*first, &*second, "TMPDIR", "HOME", "SHMEM_SERVICE"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_empty(home.path());
    Ok(())
}

/// Programs that start later use the first directory again, and programs from before follow.
pub(crate) fn first_directory_is_used_again_once_it_is_usable() -> Outcome {
    requires_no_session()?;
    let (home, temporary) = home_and_temporary()?;
    let directory = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    fs::write(&directory, "")?;
    let start = || peer_with(&[("TMPDIR", temporary.path()), ("HOME", home.path())]);
    let mut before = start();
    let id = before.make(100)?;
    let address = before.address()?;
    fs::remove_file(&directory)?;
    let mut after = start();
    eventually_opens(&mut after, &id);
    let made = after.make(100)?;
    eventually_opens(&mut before, &made);
    assert_eq!(before.address()?, after.address()?);
    assert_ne!(before.address()?, address);
    // Programs that were given the previous address find it, also after it was removed in between.
    let host = host_of(Path::new(&address));
    for _ in 0..3 {
        let mut informed = peer_with(&[(ShMemService::ENV, Path::new(&address))]);
        if host.is_some() {
            informed.try_open(&id)?;
        }
        drop(informed);
        // Both exchanges are atomic, because a host creates a directory that is missing.
        let aside = temporary.path().join("aside");
        let exchange = || renameat_with(CWD, &directory, CWD, &aside, RenameFlags::EXCHANGE);
        fs::write(&aside, "")?;
        exchange()?;
        eventually_opens(&mut start(), &id);
        exchange()?;
        fs::remove_file(&aside)?;
        eventually_opens(&mut start(), &id);
    }
    drop((before, after));
    assert_empty(&directory);
    for left in entries(home.path()) {
        assert_empty(&left);
    }
    Ok(())
}

/// Programs outside still find a service whose process has changed its root directory.
pub(crate) fn host_serves_its_old_address_after_chroot() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can change the root directory");
    }
    requires_no_session()?;
    let (root, temporary) = (tempfile::tempdir()?, shared_directory()?);
    // The same path inside the new root is an empty directory.
    let below = |path: &Path| root.path().join(path.strip_prefix("/").unwrap_or(path));
    let inside = below(temporary.path());
    fs::create_dir_all(&inside)?;
    let start = || peer_with(&[("TMPDIR", temporary.path())]);
    let mut host = start();
    host.execute("host")?;
    let address = host.address()?;
    let mut holder = start();
    let id = holder.make(100)?;
    host.execute(format!("root {}", root.path().display()))?;
    let moved = below(Path::new(&address));
    wait_until("the host serves inside as well", || moved.exists());
    assert_eq!(host_of(Path::new(&address)), Some(host.pid()));
    let mut other = start();
    other.open(&id)?;
    drop((other, holder, host));
    for address in [&moved, Path::new(&address)] {
        assert_empty(directory_of(address)?);
    }
    Ok(())
}

/// A host that has become another user gives way to a service of its clients' user.
pub(crate) fn host_that_changes_its_user_is_replaced() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut holder = dir.peer();
    let id = holder.make(100)?;
    host.execute(format!("user {OTHER}"))?;
    eventually_opens(&mut dir.peer(), &id);
    assert_ne!(host_of(&dir.address), Some(host.pid()));
    host.stop_serving()?;
    dir.peer().try_open(&id)?;
    drop((holder, host));
    dir.assert_nothing_left();
    Ok(())
}

/// A user that a namespace does not map has the same number there as all other such users.
pub(crate) fn unmapped_user_is_refused() -> Outcome {
    let wrapper = ["unshare", "--user", "--"];
    can_start_by(&wrapper)?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut honest = dir.peer();
    let id = honest.make(100)?;
    let mut unmapped = Peer::start_by(&wrapper);
    unmapped.use_address(&dir.address)?;
    for command in [format!("try {id}"), "make 100".into(), "host".into()] {
        let text = unmapped.ask(&command).expect_err("its user is not mapped");
        assert!(text.contains("no user of its own"), "{command}: {text}");
    }
    honest.try_open(&id)?;
    drop((unmapped, honest, host));
    dir.assert_nothing_left();
    Ok(())
}

/// A set-user-ID copy of this program.
pub(crate) fn variables_are_ignored_in_setuid_programs() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can create a program that runs as another user");
    }
    let directory = shared_directory()?;
    let program = directory.path().join("program");
    fs::copy(public_program(), &program)?;
    chown(&program, Some(OTHER), Some(OTHER))?;
    fs::set_permissions(&program, Permissions::from_mode(0o4755))?;
    let trap = directory.path().join("trap");
    fs::DirBuilder::new().mode(0o700).create(&trap)?;
    chown(&trap, Some(OTHER), Some(OTHER))?;
    let usual = Path::new("/tmp").join(format!("shmem_providers-{OTHER}"));
    let was_there = usual.exists();
    let mut outcome = Ok(());
    for name in [ShMemService::ENV, "XDG_RUNTIME_DIR", "TMPDIR", "HOME"] {
        let mut command = Command::new(&program);
        command.arg("peer").env_remove(ShMemService::ENV);
        command.env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
        if name == ShMemService::ENV {
            command.env(name, trap.join("service"));
        } else {
            command.env(name, &trap);
        }
        let mut peer = Peer::started(&mut command);
        if peer.ask("secure")? != "1" {
            outcome = skip("set-user-ID programs do not work in the temporary directory");
            break;
        }
        let address = peer.address()?;
        assert!(
            !address.starts_with(&*directory.path().to_string_lossy()),
            "{name}: {address}"
        );
    }
    if !was_there {
        // It is not empty if another program uses it.
        let _ = fs::remove_dir(&usual);
    }
    outcome
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

/// Each error names the path, the variable that it comes from, and the cure.
pub(crate) fn address_errors_name_path_source_and_cure() -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("a\nfile");
    fs::write(&file, "")?;
    let links = tempfile::tempdir()?;
    symlink(directory.path().join("service"), links.path().join("link"))?;
    let paths = [
        file.clone(),
        links.path().join("link"),
        directory.path().join("x".repeat(104)),
        directory.path().join("x".repeat(300)),
        directory.path().join("missing/directory"),
        directory.path().to_owned(),
        file.join("service"),
        PathBuf::from("/"),
        PathBuf::from(".."),
    ];
    for path in &paths {
        let mut peer = peer_with(&[(ShMemService::ENV, path)]);
        let shown = format!("{:?}", path.as_os_str());
        for command in ["make 100", "host"] {
            let text = peer.ask(command).expect_err("it is not an address");
            // The errors name relative paths as absolute ones.
            assert!(
                path.is_relative() || text.contains(&shown[1..shown.len() - 1]),
                "{text}"
            );
            assert!(text.contains("SHMEM_SERVICE"), "{text}");
        }
        let text = match Provider::at(path).new_shmem(1) {
            Ok(_) => return Err(format!("{shown} is used as an address").into()),
            Err(error) => error.to_string(),
        };
        assert!(text.contains("SHMEM_SERVICE"), "{text}");
    }
    assert_eq!(entries(directory.path()), [file]);
    if !has_session() {
        // Neither a relative directory nor a missing one can have the default address.
        let own = |name: &str| directory.path().join(name);
        let mut peer = peer_with(&[
            ("XDG_RUNTIME_DIR", Path::new("relative")),
            ("TMPDIR", &own("missing")),
            ("HOME", &own("nowhere")),
        ]);
        let text = peer.make(100).expect_err("there is no usable directory");
        for part in [
            "XDG_RUNTIME_DIR",
            "TMPDIR",
            "HOME",
            "SHMEM_SERVICE",
            "missing",
            "nowhere",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    Ok(())
}

pub(crate) fn permission_errors_name_path_and_cause() -> Outcome {
    can_start_by(AS_OTHER)?;
    let dir = TestDir::new()?;
    let directory = directory_of(&dir.address)?;
    let host = dir.host();
    let mut other = Peer::start_by(AS_OTHER);
    other.use_address(&dir.address)?;
    for mode in [0o700, 0o755] {
        fs::set_permissions(directory, Permissions::from_mode(mode))?;
        let text = other.make(100).expect_err("it is another user's");
        assert!(text.contains(&*dir.address.to_string_lossy()), "{text}");
        assert!(
            text.contains("SHMEM_SERVICE") && text.contains("another user"),
            "{text}"
        );
        assert!(!text.contains("the id"), "{text}");
    }
    // The error does not claim that an inaccessible directory is missing.
    let inner = directory.join("inner");
    fs::create_dir(&inner)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for command in ["at", "host"] {
        let command = format!("{command} {}/service", inner.display());
        let text = match other.ask(command) {
            Ok(_) => other.make(100).expect_err("it is another user's"),
            Err(text) => text,
        };
        assert!(
            text.contains("ermission denied") && text.contains("another user"),
            "{text}"
        );
    }
    other.use_address(&dir.address)?;
    fs::remove_dir(&inner)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    drop(host);
    // A service of the same user to which no client may connect.
    let own = tempfile::tempdir()?;
    chown(own.path(), Some(OTHER), Some(OTHER))?;
    let address = own.path().join("service");
    let mut host = Peer::start_by(AS_OTHER);
    host.serve_at(&address)?;
    fs::set_permissions(&address, Permissions::from_mode(0o000))?;
    let mut client = Peer::start_by(AS_OTHER);
    client.use_address(&address)?;
    let text = client.make(100).expect_err("no client may connect");
    for part in [
        &*address.to_string_lossy(),
        "connect",
        "SHMEM_SERVICE",
        "security module",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("another user"), "{text}");
    drop((client, host));
    let text = other
        .serve_at(&dir.address)
        .expect_err("it may not create a lock there");
    assert!(text.contains(&*dir.address.to_string_lossy()), "{text}");
    assert!(
        text.contains("SHMEM_SERVICE") && text.contains("ermission denied"),
        "{text}"
    );
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

pub(crate) fn read_only_directory_is_an_error_that_names_it() -> Outcome {
    requires_no_session()?;
    let root = geteuid().is_root();
    let mut wrapper: Vec<&str> = vec!["unshare"];
    if !root {
        wrapper.push("--map-root-user");
    }
    let directory = tempfile::tempdir()?;
    let script = format!(
        "set -e; mount -t tmpfs -o ro none '{0}'; unset HOME XDG_RUNTIME_DIR SHMEM_SERVICE; \
         export TMPDIR='{0}'; exec \"$@\"",
        directory.path().display()
    );
    wrapper.extend(["--mount", "sh", "-c", &script, "sh"]);
    can_start_by(&wrapper)?;
    let mut peer = Peer::start_by(&wrapper);
    let text = peer.make(100).expect_err("nothing can be created there");
    for part in [
        &*directory.path().to_string_lossy(),
        "TMPDIR",
        "SHMEM_SERVICE",
        "Read-only",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = peer
        .serve_at(&directory.path().join("service"))
        .expect_err("the same");
    for part in [
        &*directory.path().to_string_lossy(),
        "SHMEM_SERVICE",
        "Read-only",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    Ok(())
}
