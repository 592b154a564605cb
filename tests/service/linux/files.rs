//! The files of the service: socket and lock, the directory that they are in, and who may change it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Signal, geteuid, kill_process};
use shmem_providers::{ShMemProvider, ShMemService};
use tempfile::TempDir;

use super::lifetime::{Place, eventually};
use super::peer::{Provider, host_of};
use testkit::peer::{Peer, can_start_by, public_program};
use testkit::{Outcome, skip};

/// Runs a command as another user, who has nothing anywhere.
const AS_OTHER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

const OTHER: u32 = 65534;

/// A peer with these variables and no others that say where services are.
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

/// Whether programs of this user meet in /run/user, whatever `TMPDIR` says.
fn has_session() -> bool {
    Path::new(&format!("/run/user/{}", geteuid().as_raw())).exists()
}

/// The directory of temporary files in which other users may make files, but remove only their own.
fn shared_folder() -> Result<TempDir, std::io::Error> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777))?;
    Ok(folder)
}

/// A directory with two files that have the names of those of a service, and are not.
fn bystanders(name: &str) -> Result<TempDir, std::io::Error> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(name), "unrelated")?;
    fs::write(folder.path().join(format!("{name}.lock")), "unrelated")?;
    Ok(folder)
}

#[track_caller]
fn assert_untouched(folder: &TempDir, name: &str) {
    for name in [name.to_owned(), format!("{name}.lock")] {
        let content = fs::read_to_string(folder.path().join(&name));
        assert_eq!(content.ok().as_deref(), Some("unrelated"), "{name}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).map(Iterator::count).ok(),
        Some(2)
    );
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is ours");
    entries.flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
fn assert_empty(folder: &Path) {
    assert_eq!(entries(folder), Vec::<PathBuf>::new());
}

/// Until it is so.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lock_of(address: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", address.display()))
}

/// What a service removes in the end is what it has made, wherever its path leads by then.
pub(crate) fn files_in_a_swapped_directory_are_left_alone() -> Outcome {
    for moment in ["at once", "later"] {
        let outer = tempfile::tempdir()?;
        let (folder, moved) = (outer.path().join("folder"), outer.path().join("moved"));
        fs::create_dir(&folder)?;
        let elsewhere = bystanders("service")?;
        let mut host = Peer::start();
        host.ask(format!("host {}/service", folder.display()))?;
        fs::rename(&folder, &moved)?;
        symlink(elsewhere.path(), &folder)?;
        if moment == "later" {
            thread::sleep(Duration::from_millis(1500));
        }
        host.ask("unhost")?;
        drop(host);
        assert_untouched(&elsewhere, "service");
        assert_empty(&moved);
    }
    Ok(())
}

/// Root, with a variable that leads into a directory that another user may swap.
pub(crate) fn directory_of_another_user_is_refused() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can make directories of other users");
    }
    let outer = shared_folder()?;
    let theirs = outer.path().join("theirs");
    fs::create_dir(&theirs)?;
    fs::create_dir(theirs.join("inner"))?;
    chown(&theirs, Some(OTHER), Some(OTHER))?;
    for path in [theirs.join("service"), theirs.join("inner/service")] {
        let error = ShMemService::start_at(&path).expect_err("it is not safe there");
        let text = error.to_string();
        assert!(text.contains(&*theirs.to_string_lossy()), "{text}");
        assert!(
            text.contains("65534") && text.contains("SHMEM_SERVICE"),
            "{text}"
        );
        let mut peer = peer_with(&[(ShMemService::ENV, &path)]);
        for order in ["make 100", "host"] {
            let text = peer.ask(order).expect_err("the same");
            assert!(
                text.contains("65534") && text.contains("SHMEM_SERVICE"),
                "{text}"
            );
        }
    }
    if !has_session() {
        let mut peer = peer_with(&[("TMPDIR", &theirs)]);
        let text = peer.ask("make 100").expect_err("the same");
        assert!(
            text.contains("TMPDIR") && text.contains("SHMEM_SERVICE"),
            "{text}"
        );
    }
    // A link of another user may lead elsewhere tomorrow.
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
    let folder = outer.path().join("folder");
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let address = folder.join("service");
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
    assert_empty(&folder);
    fs::set_permissions(outer.path(), Permissions::from_mode(0o1777))?;
    ShMemService::start_at(&address)?;
    fs::set_permissions(outer.path(), Permissions::from_mode(0o755))?;
    ShMemService::start_at(&address)?;
    assert_empty(&folder);
    Ok(())
}

pub(crate) fn relative_address_does_not_follow_the_working_directory() -> Outcome {
    let folder = tempfile::tempdir()?;
    let elsewhere = bystanders("svc")?;
    let address = folder.path().join("svc");
    let from_argument = || -> Result<Peer, String> {
        let mut peer = Peer::start();
        peer.ask(format!("cd {}", folder.path().display()))?;
        peer.ask("host svc")?;
        Ok(peer)
    };
    let from_variable = || -> Result<Peer, String> {
        let mut peer = peer_with(&[(ShMemService::ENV, Path::new("svc"))]);
        peer.ask(format!("cd {}", folder.path().display()))?;
        peer.ask("host")?;
        Ok(peer)
    };
    for start in [
        &from_argument as &dyn Fn() -> Result<Peer, String>,
        &from_variable,
    ] {
        let mut host = start()?;
        host.ask(format!("cd {}", elsewhere.path().display()))?;
        let mut client = Peer::start();
        client.ask(format!("cd {}", folder.path().display()))?;
        client.ask("at svc")?;
        client.ask(format!("cd {}", elsewhere.path().display()))?;
        let id = client.ask("make 100")?;
        assert_eq!(client.ask("address")?, address.display().to_string());
        Provider::at(&address).shmem_from_id(shmem_providers::ShMemId::from_string(&id))?;
        host.ask("unhost")?;
        // The client serves now, and clears up in the end.
        client.ask(format!("try {id}"))?;
        drop((host, client));
        assert_untouched(&elsewhere, "svc");
        assert_empty(folder.path());
    }
    Ok(())
}

/// As `/run/user/UID` is emptied while somebody still runs, or files of a certain age are removed.
pub(crate) fn host_recreates_its_removed_files() -> Outcome {
    for gone in ["both", "socket", "lock"] {
        let place = Place::new()?;
        let host = place.host();
        let mut holder = place.peer();
        let id = holder.ask("make 100")?;
        if gone != "lock" {
            fs::remove_file(&place.address)?;
        }
        if gone != "socket" {
            fs::remove_file(lock_of(&place.address))?;
        }
        // Longer than it may take.
        thread::sleep(Duration::from_secs(1));
        wait_until("the host serves", || {
            host_of(&place.address) == Some(host.pid()) && place.address.exists()
        });
        let mut other = place.peer();
        other.ask(format!("open {id}"))?;
        let made = other.ask("make 100")?;
        holder.ask(format!("try {made}"))?;
        assert_eq!(place.files(), ["service", "service.lock"]);
        drop((other, holder, host));
        place.assert_nothing_left();
    }
    Ok(())
}

/// New programs come at once, and some of them become the host before the old one has noticed.
pub(crate) fn clients_survive_repeated_removal_of_the_files() -> Outcome {
    let place = Place::new()?;
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = place.peer();
        let id = holder.ask("make 100")?;
        holders.push((holder, id));
    }
    for round in 0..24 {
        // Somebody else may have done so, or nobody has it yet.
        if round % 3 != 1 {
            let _ = fs::remove_file(lock_of(&place.address));
        }
        if round % 3 != 0 {
            let _ = fs::remove_file(&place.address);
        }
        thread::sleep(Duration::from_millis(round * 37 % 300));
        let mut fresh = place.peer();
        for (_, id) in &holders {
            eventually(&mut fresh, &format!("try {id}"), "");
        }
        let id = fresh.ask("make 100")?;
        for (holder, _) in &mut holders {
            eventually(holder, &format!("try {id}"), "");
        }
        let oldest = holders.remove(0);
        drop(oldest);
        holders.push((fresh, id));
    }
    drop(holders);
    place.assert_nothing_left();
    Ok(())
}

/// Nobody waits until the host has noticed.
pub(crate) fn clients_survive_removal_of_the_directory() -> Outcome {
    if has_session() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let temporary = tempfile::tempdir()?;
    let start = || peer_with(&[("TMPDIR", temporary.path())]);
    let mut host = start();
    let kept = host.ask("make 100")?;
    let mut holder = start();
    let id = holder.ask("make 100")?;
    for round in 0..3 {
        for entry in entries(temporary.path()) {
            fs::remove_dir_all(entry)?;
        }
        if round > 0 {
            thread::sleep(Duration::from_millis(600 * round));
        }
        let mut other = start();
        eventually(&mut other, &format!("try {id}"), "");
        eventually(&mut other, &format!("try {kept}"), "");
        let made = other.ask("make 100")?;
        eventually(&mut holder, &format!("try {made}"), "");
        eventually(&mut host, &format!("try {made}"), "");
    }
    drop((holder, host));
    let folder = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    assert_empty(&folder);
    Ok(())
}

pub(crate) fn host_without_a_lock_is_not_replaced() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut holder = place.peer();
    let id = holder.ask("make 100")?;
    let socket = fs::metadata(&place.address)?.ino();
    for _ in 0..20 {
        fs::remove_file(lock_of(&place.address))?;
        let error = ShMemService::start_at(&place.address).expect_err("it is taken");
        assert!(error.to_string().contains("another service"), "{error}");
        wait_until("the lock is there", || {
            host_of(&place.address) == Some(host.pid())
        });
    }
    assert_eq!(fs::metadata(&place.address)?.ino(), socket);
    place.peer().ask(format!("try {id}"))?;
    host.ask("unhost")?;
    drop((holder, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn stopped_host_without_a_lock_is_not_replaced() -> Outcome {
    let place = Place::new()?;
    let host = place.host();
    let mut holder = place.peer();
    let id = holder.ask("make 100")?;
    kill_process(host.process(), Signal::STOP)?;
    fs::remove_file(lock_of(&place.address))?;
    for _ in 0..3 {
        let started = ShMemService::start_at(&place.address);
        if started.is_ok() {
            kill_process(host.process(), Signal::CONT)?;
        }
        let error = started.expect_err("it is taken");
        assert!(error.to_string().contains("another service"), "{error}");
    }
    assert_eq!(place.files(), ["service"]);
    kill_process(host.process(), Signal::CONT)?;
    place.peer().ask(format!("try {id}"))?;
    drop((holder, host));
    place.assert_nothing_left();
    Ok(())
}

/// Nobody can tell that there is an old one when the new one starts.
pub(crate) fn segments_move_from_an_old_host_to_a_new_one() -> Outcome {
    let place = Place::new()?;
    let mut old = place.host();
    let mut holder = place.peer();
    let id = holder.ask("make 100")?;
    kill_process(old.process(), Signal::STOP)?;
    fs::remove_file(&place.address)?;
    fs::remove_file(lock_of(&place.address))?;
    let mut new = place.host();
    kill_process(old.process(), Signal::CONT)?;
    // What the old one's clients hold comes to the new one.
    let mut other = place.peer();
    eventually(&mut other, &format!("try {id}"), "");
    old.ask("unhost")?;
    assert_eq!(host_of(&place.address), Some(new.pid()));
    place.peer().ask(format!("try {id}"))?;
    new.ask("unhost")?;
    drop((other, holder, old, new));
    place.assert_nothing_left();

    // Stopped before it has noticed.
    let place = Place::new()?;
    let mut old = place.host();
    kill_process(old.process(), Signal::STOP)?;
    fs::remove_file(&place.address)?;
    fs::remove_file(lock_of(&place.address))?;
    let new = place.host();
    old.send("unhost");
    kill_process(old.process(), Signal::CONT)?;
    drop(old);
    assert_eq!(place.files(), ["service", "service.lock"]);
    place.peer().ask("make 100")?;
    drop(new);
    place.assert_nothing_left();
    Ok(())
}

/// The home directory is the second place.
fn home_and_temporary() -> Result<(TempDir, TempDir), std::io::Error> {
    Ok((tempfile::tempdir()?, shared_folder()?))
}

pub(crate) fn home_is_used_if_the_directory_is_squatted() -> Outcome {
    if has_session() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let (home, temporary) = home_and_temporary()?;
    let folder = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    if geteuid().is_root() && can_start_by(AS_OTHER).is_ok() {
        let mut mkdir = Command::new(AS_OTHER[0]);
        mkdir.args(&AS_OTHER[1..]).arg("mkdir").arg(&folder);
        assert!(mkdir.status()?.success());
    } else {
        // Of another user or not, it cannot be used.
        fs::write(&folder, "")?;
    }
    let start = || peer_with(&[("TMPDIR", temporary.path()), ("HOME", home.path())]);
    let (mut a, mut b) = (start(), start());
    let id = a.ask("make 100")?;
    b.ask(format!("open {id}"))?;
    let address = a.ask("address")?;
    assert!(
        address.starts_with(&*home.path().to_string_lossy()),
        "{address}"
    );
    assert_eq!(b.ask("address")?, address);
    drop((a, b));
    let own = Path::new(&address).parent().ok_or("a directory")?;
    assert_empty(own);
    assert_eq!(fs::metadata(own)?.permissions().mode() & 0o777, 0o700);
    fs::remove_dir(own)?;
    assert_empty(home.path());

    // Neither works.
    fs::set_permissions(home.path(), Permissions::from_mode(0o777))?;
    let text = start().ask("make 100").expect_err("no place is safe");
    let (first, second) = (folder.to_string_lossy(), home.path().to_string_lossy());
    for part in [&*first, &*second, "TMPDIR", "HOME", "SHMEM_SERVICE"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_empty(home.path());
    Ok(())
}

/// Programs that start later meet in the first place again, and so do those from before.
pub(crate) fn first_directory_is_used_again_once_it_is_usable() -> Outcome {
    if has_session() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let (home, temporary) = home_and_temporary()?;
    let folder = temporary
        .path()
        .join(format!("shmem_providers-{}", geteuid().as_raw()));
    fs::write(&folder, "")?;
    let start = || peer_with(&[("TMPDIR", temporary.path()), ("HOME", home.path())]);
    let mut before = start();
    let id = before.ask("make 100")?;
    let address = before.ask("address")?;
    fs::remove_file(&folder)?;
    let mut after = start();
    eventually(&mut after, &format!("try {id}"), "");
    let made = after.ask("make 100")?;
    eventually(&mut before, &format!("try {made}"), "");
    assert_eq!(before.ask("address")?, after.ask("address")?);
    assert_ne!(before.ask("address")?, address);
    // Who was told the address from before finds it, and even when it was removed in between.
    let host = host_of(Path::new(&address));
    for _ in 0..3 {
        let mut told = peer_with(&[(ShMemService::ENV, Path::new(&address))]);
        if host.is_some() {
            told.ask(format!("try {id}"))?;
        }
        drop(told);
        // There and back, each at one moment: a host makes a folder that is missing.
        let aside = temporary.path().join("aside");
        let exchange = || renameat_with(CWD, &folder, CWD, &aside, RenameFlags::EXCHANGE);
        fs::write(&aside, "")?;
        exchange()?;
        eventually(&mut start(), &format!("try {id}"), "");
        exchange()?;
        fs::remove_file(&aside)?;
        eventually(&mut start(), &format!("try {id}"), "");
    }
    drop((before, after));
    assert_empty(&folder);
    for left in entries(home.path()) {
        assert_empty(&left);
    }
    Ok(())
}

/// Programs outside go on finding a service whose process has changed its root directory.
pub(crate) fn host_serves_its_old_address_after_chroot() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can change the root directory");
    }
    if has_session() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let (root, temporary) = (tempfile::tempdir()?, shared_folder()?);
    // The same path inside, and nothing in it.
    let below = |path: &Path| root.path().join(path.strip_prefix("/").unwrap_or(path));
    let inside = below(temporary.path());
    fs::create_dir_all(&inside)?;
    let start = || peer_with(&[("TMPDIR", temporary.path())]);
    let mut host = start();
    host.ask("host")?;
    let address = host.ask("address")?;
    let mut holder = start();
    let id = holder.ask("make 100")?;
    host.ask(format!("root {}", root.path().display()))?;
    let moved = below(Path::new(&address));
    wait_until("it serves inside as well", || moved.exists());
    assert_eq!(host_of(Path::new(&address)), Some(host.pid()));
    let mut other = start();
    other.ask(format!("open {id}"))?;
    drop((other, holder, host));
    for address in [&moved, Path::new(&address)] {
        assert_empty(address.parent().ok_or("a directory")?);
    }
    Ok(())
}

/// A host that acts for another user makes room for a service of its clients' user.
pub(crate) fn host_that_changes_its_user_is_replaced() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can become another user");
    }
    let place = Place::new()?;
    let mut host = place.host();
    let mut holder = place.peer();
    let id = holder.ask("make 100")?;
    host.ask(format!("user {OTHER}"))?;
    eventually(&mut place.peer(), &format!("try {id}"), "");
    assert_ne!(host_of(&place.address), Some(host.pid()));
    host.ask("unhost")?;
    place.peer().ask(format!("try {id}"))?;
    drop((holder, host));
    place.assert_nothing_left();
    Ok(())
}

/// Other users show under the same number as this one, which is nobody then.
pub(crate) fn unmapped_user_is_refused() -> Outcome {
    let wrapper = ["unshare", "--user", "--"];
    can_start_by(&wrapper)?;
    let place = Place::new()?;
    let host = place.host();
    let mut honest = place.peer();
    let id = honest.ask("make 100")?;
    let mut unmapped = Peer::start_by(&wrapper);
    unmapped.ask(format!("at {}", place.address.display()))?;
    for order in [format!("try {id}"), "make 100".into(), "host".into()] {
        let text = unmapped.ask(&order).expect_err("it is nobody");
        assert!(text.contains("no user of its own"), "{order}: {text}");
    }
    honest.ask(format!("try {id}"))?;
    drop((unmapped, honest, host));
    place.assert_nothing_left();
    Ok(())
}

/// A copy of this program that runs as another user than the one who starts it.
pub(crate) fn variables_are_ignored_in_setuid_programs() -> Outcome {
    if !geteuid().is_root() {
        return skip("only root can make a program that runs as another user");
    }
    let folder = shared_folder()?;
    let program = folder.path().join("program");
    fs::copy(public_program(), &program)?;
    chown(&program, Some(OTHER), Some(OTHER))?;
    fs::set_permissions(&program, Permissions::from_mode(0o4755))?;
    let trap = folder.path().join("trap");
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
            outcome =
                skip("programs that run as their owner do not work in the temporary directory");
            break;
        }
        let address = peer.ask("address")?;
        assert!(
            !address.starts_with(&*folder.path().to_string_lossy()),
            "{name}: {address}"
        );
    }
    if !was_there {
        // Somebody else may use it by now.
        let _ = fs::remove_dir(&usual);
    }
    outcome
}

/// There are not enough descriptors for a service, each time one more.
pub(crate) fn nothing_is_left_after_errors() -> Outcome {
    let place = Place::new()?;
    let mut failed = 0;
    for limit in 3..16 {
        let mut peer = place.peer();
        peer.ask(format!("limit {limit}"))?;
        if peer
            .ask(format!("host {}", place.address.display()))
            .is_err()
        {
            failed += 1;
            place.assert_nothing_left();
        }
        peer.ask("unhost")?;
        // It may host a service that it cannot connect to.
        let _ = peer.ask("make 100");
        drop(peer);
        place.assert_nothing_left();
    }
    assert!(failed > 0);
    // What stands there is not ours.
    let folder = place.address.parent().ok_or("a directory")?;
    fs::write(&place.address, "unrelated")?;
    assert!(ShMemService::start_at(&place.address).is_err());
    assert_eq!(place.files(), ["service"]);
    fs::write(lock_of(&place.address), "unrelated")?;
    assert!(ShMemService::start_at(&place.address).is_err());
    assert!(Provider::at(&place.address).new_shmem(1).is_err());
    assert_eq!(place.files(), ["service", "service.lock"]);
    assert_eq!(fs::read_to_string(lock_of(&place.address))?, "unrelated");
    fs::remove_file(&place.address)?;
    fs::remove_file(lock_of(&place.address))?;
    // A lock that is none.
    fs::create_dir(lock_of(&place.address))?;
    assert!(ShMemService::start_at(&place.address).is_err());
    assert_eq!(place.files(), ["service.lock"]);
    fs::remove_dir(lock_of(&place.address))?;
    symlink(folder.join("target"), lock_of(&place.address))?;
    assert!(ShMemService::start_at(&place.address).is_err());
    assert_eq!(place.files(), ["service.lock"]);
    fs::remove_file(lock_of(&place.address))?;
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn files_of_a_killed_host_are_removed() -> Outcome {
    let place = Place::new()?;
    place.host().kill();
    assert_eq!(place.files(), ["service", "service.lock"]);
    ShMemService::start_at(&place.address)?.stop();
    place.assert_nothing_left();
    place.host().kill();
    drop(Provider::at(&place.address).new_shmem(100)?);
    place.assert_nothing_left();
    // Its lock was removed by somebody.
    place.host().kill();
    fs::remove_file(lock_of(&place.address))?;
    ShMemService::start_at(&place.address)?.stop();
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn files_left_by_exit_are_removed() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    host.send("exit");
    drop(host);
    // No destructor has run.
    assert_eq!(place.files(), ["service", "service.lock"]);
    drop(Provider::at(&place.address).new_shmem(100)?);
    place.assert_nothing_left();
    Ok(())
}

/// A record lock is lost when its process closes any descriptor of the file.
pub(crate) fn other_spellings_of_the_address_keep_the_lock() -> Outcome {
    let place = Place::new()?;
    let folder = place.address.parent().ok_or("a directory")?;
    let links = tempfile::tempdir()?;
    let link = links.path().join("link");
    symlink(folder, &link)?;
    let mut host = Peer::start();
    if let Err(why) = host.ask("forbid ENOSYS close_range") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    host.ask(format!("host {}", place.address.display()))?;
    let id = host
        .ask(format!("at {}", place.address.display()))
        .and_then(|_| host.ask("make 100"))?;
    let name = folder
        .file_name()
        .ok_or("a name")?
        .to_string_lossy()
        .into_owned();
    for path in [
        link.join("service"),
        folder.join(".").join("service"),
        folder.join("..").join(&name).join("service"),
    ] {
        let text = host
            .ask(format!("host {}", path.display()))
            .expect_err("it serves there itself");
        assert!(text.contains("another service"), "{text}");
        assert_eq!(
            host_of(&place.address),
            Some(host.pid()),
            "{}",
            path.display()
        );
        let mut other = Peer::start();
        other.ask(format!("at {}", path.display()))?;
        other.ask(format!("try {id}"))?;
    }
    drop(host);
    place.assert_nothing_left();
    Ok(())
}

/// Which are neither ours nor dead.
pub(crate) fn sockets_of_other_programs_are_left_alone() -> Outcome {
    let place = Place::new()?;
    let listener = UnixListener::bind(&place.address)?;
    let inode = fs::metadata(&place.address)?.ino();
    assert!(ShMemService::start_at(&place.address).is_err());
    assert!(Provider::at(&place.address).new_shmem(1).is_err());
    assert_eq!(fs::metadata(&place.address)?.ino(), inode);
    assert_eq!(place.files(), ["service"]);
    drop(listener);
    fs::remove_file(&place.address)?;
    let datagrams = UnixDatagram::bind(&place.address)?;
    let inode = fs::metadata(&place.address)?.ino();
    assert!(ShMemService::start_at(&place.address).is_err());
    let error = Provider::at(&place.address)
        .new_shmem(1)
        .expect_err("it is no service");
    assert!(error.to_string().contains("SHMEM_SERVICE"), "{error}");
    assert_eq!(fs::metadata(&place.address)?.ino(), inode);
    assert_eq!(place.files(), ["service"]);
    drop(datagrams);
    drop(Provider::at(&place.address).new_shmem(1)?);
    place.assert_nothing_left();
    Ok(())
}

/// Each of them names the path, where it comes from, and what cures it.
pub(crate) fn address_errors_name_path_source_and_cure() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a\nfile");
    fs::write(&file, "")?;
    let links = tempfile::tempdir()?;
    symlink(folder.path().join("service"), links.path().join("link"))?;
    let paths = [
        file.clone(),
        links.path().join("link"),
        folder.path().join("x".repeat(104)),
        folder.path().join("x".repeat(300)),
        folder.path().join("missing/folder"),
        folder.path().to_owned(),
        file.join("service"),
        PathBuf::from("/"),
        PathBuf::from(".."),
    ];
    for path in &paths {
        let mut peer = peer_with(&[(ShMemService::ENV, path)]);
        let shown = format!("{:?}", path.as_os_str());
        for order in ["make 100", "host"] {
            let text = peer.ask(order).expect_err("it is no address");
            // Relative ones are named as they were understood.
            assert!(
                path.is_relative() || text.contains(&shown[1..shown.len() - 1]),
                "{text}"
            );
            assert!(text.contains("SHMEM_SERVICE"), "{text}");
        }
        let text = match Provider::at(path).new_shmem(1) {
            Ok(_) => return Err(format!("{shown} is no address").into()),
            Err(error) => error.to_string(),
        };
        assert!(text.contains("SHMEM_SERVICE"), "{text}");
    }
    assert_eq!(entries(folder.path()), [file]);
    if !has_session() {
        // A relative directory is no place to meet, and neither is what is missing.
        let own = |name: &str| folder.path().join(name);
        let mut peer = peer_with(&[
            ("XDG_RUNTIME_DIR", Path::new("relative")),
            ("TMPDIR", &own("missing")),
            ("HOME", &own("nowhere")),
        ]);
        let text = peer.ask("make 100").expect_err("there is no place");
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
    let place = Place::new()?;
    let folder = place.address.parent().ok_or("a directory")?;
    let host = place.host();
    let mut other = Peer::start_by(AS_OTHER);
    other.ask(format!("at {}", place.address.display()))?;
    for mode in [0o700, 0o755] {
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
        let text = other.ask("make 100").expect_err("another user's");
        assert!(text.contains(&*place.address.to_string_lossy()), "{text}");
        assert!(
            text.contains("SHMEM_SERVICE") && text.contains("another user"),
            "{text}"
        );
        assert!(!text.contains("the id"), "{text}");
    }
    // What cannot be seen is not said to be missing.
    let inner = folder.join("inner");
    fs::create_dir(&inner)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for order in ["at", "host"] {
        let order = format!("{order} {}/service", inner.display());
        let text = match other.ask(order) {
            Ok(_) => other.ask("make 100").expect_err("another user's"),
            Err(text) => text,
        };
        assert!(
            text.contains("ermission denied") && text.contains("another user"),
            "{text}"
        );
    }
    other.ask(format!("at {}", place.address.display()))?;
    fs::remove_dir(&inner)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    drop(host);
    // Its own, and still denied.
    let own = tempfile::tempdir()?;
    chown(own.path(), Some(OTHER), Some(OTHER))?;
    let address = own.path().join("service");
    let mut host = Peer::start_by(AS_OTHER);
    host.ask(format!("host {}", address.display()))?;
    fs::set_permissions(&address, Permissions::from_mode(0o000))?;
    let mut client = Peer::start_by(AS_OTHER);
    client.ask(format!("at {}", address.display()))?;
    let text = client.ask("make 100").expect_err("nobody may connect");
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
        .ask(format!("host {}", place.address.display()))
        .expect_err("it may not make a lock there");
    assert!(text.contains(&*place.address.to_string_lossy()), "{text}");
    assert!(
        text.contains("SHMEM_SERVICE") && text.contains("ermission denied"),
        "{text}"
    );
    place.assert_nothing_left();
    Ok(())
}

/// By closing another descriptor of the file, where the service shares its descriptors.
pub(crate) fn host_takes_its_lost_lock_again() -> Outcome {
    let place = Place::new()?;
    let mut host = Peer::start();
    if let Err(why) = host.ask("forbid ENOSYS close_range") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    host.ask(format!("host {}", place.address.display()))?;
    let mut holder = place.peer();
    let id = holder.ask("make 100")?;
    for _ in 0..20 {
        host.ask(format!("read {}", lock_of(&place.address).display()))?;
        assert!(ShMemService::start_at(&place.address).is_err());
        wait_until("it has the lock", || {
            host_of(&place.address) == Some(host.pid())
        });
    }
    place.peer().ask(format!("try {id}"))?;
    assert_eq!(place.files(), ["service", "service.lock"]);
    drop((holder, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn read_only_directory_is_an_error_that_names_it() -> Outcome {
    if has_session() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let root = geteuid().is_root();
    let mut wrapper: Vec<&str> = vec!["unshare"];
    if !root {
        wrapper.push("--map-root-user");
    }
    let folder = tempfile::tempdir()?;
    let script = format!(
        "set -e; mount -t tmpfs -o ro none '{0}'; unset HOME XDG_RUNTIME_DIR SHMEM_SERVICE; \
         export TMPDIR='{0}'; exec \"$@\"",
        folder.path().display()
    );
    wrapper.extend(["--mount", "sh", "-c", &script, "sh"]);
    can_start_by(&wrapper)?;
    let mut peer = Peer::start_by(&wrapper);
    let text = peer.ask("make 100").expect_err("nothing can be made there");
    for part in [
        &*folder.path().to_string_lossy(),
        "TMPDIR",
        "SHMEM_SERVICE",
        "Read-only",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = peer
        .ask(format!("host {}/service", folder.path().display()))
        .expect_err("the same");
    for part in [
        &*folder.path().to_string_lossy(),
        "SHMEM_SERVICE",
        "Read-only",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    Ok(())
}
