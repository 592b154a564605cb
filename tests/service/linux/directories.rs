//! The directory of the socket: which one is used, which ones are refused, and what the errors name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;
use shmem_providers::{ShMemProvider, ShMemService};
use tempfile::TempDir;

use super::files::{
    assert_empty, assert_untouched, bystanders, directory_of, entries, has_session, peer_with,
    requires_no_session, wait_until,
};
use super::lifetime::{TestDir, eventually_opens};
use super::peer::{Commands, Provider, host_of};
use testkit::peer::{AS_OTHER, Peer, can_start_by, public_program};
use testkit::{Outcome, skip};

/// The user of [`AS_OTHER`].
const OTHER: u32 = 65534;

/// Creates a directory like `/tmp`: other users may create files in it, and remove only their own.
fn shared_directory() -> Result<TempDir, std::io::Error> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777))?;
    Ok(directory)
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
        let _ = Provider::at(&address).shmem_from_id(shmem_providers::ShMemId::from_string(&id))?;
        host.stop_serving()?;
        // The client is the host now, and removes the files in the end.
        client.try_open(&id)?;
        drop((host, client));
        assert_untouched(&elsewhere, "svc");
        assert_empty(directory.path());
    }
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
