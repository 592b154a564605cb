//! How programs find the service: the default address, the environment, namespaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use shmem_providers::{Error, ShMemProvider, ShMemService};

use super::lifetime::TestDir;
use super::peer::{Commands, Provider};
use testkit::Outcome;
use testkit::peer::{Peer, can_start_by};

/// Starts a peer with this variable, and with no other address or session directory in its environment.
fn peer_with(name: &str, value: &std::ffi::OsStr) -> Peer {
    let mut command: Command = Peer::command();
    command
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove(ShMemService::ENV);
    Peer::started(command.env(name, value))
}

pub(crate) fn programs_of_a_user_share_the_default_address() -> Outcome {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
    for variable in ["XDG_RUNTIME_DIR", "TMPDIR"] {
        let (mut a, mut b) = (
            peer_with(variable, directory.path().as_os_str()),
            peer_with(variable, directory.path().as_os_str()),
        );
        let address = a.address()?;
        assert_eq!(b.address()?, address);
        if !address.starts_with(&*directory.path().to_string_lossy()) {
            // There is a directory in /run/user, which has precedence over TMPDIR.
            assert_eq!(variable, "TMPDIR");
            continue;
        }
        let own = std::path::Path::new(&address)
            .parent()
            .ok_or("the address has no directory")?;
        assert_eq!(fs::metadata(own)?.permissions().mode() & 0o777, 0o700);
        let id = a.make(100)?;
        b.open(&id)?;
        drop((a, b));
        assert_eq!(fs::read_dir(own)?.count(), 0);
    }
    Ok(())
}

pub(crate) fn address_in_the_environment_is_used() -> Outcome {
    let dir = TestDir::new()?;
    let service = ShMemService::start_at(&dir.address)?;
    let (mut a, mut b) = (
        peer_with(ShMemService::ENV, service.address().as_os_str()),
        peer_with(ShMemService::ENV, service.address().as_os_str()),
    );
    let id = a.make(100)?;
    b.open(&id)?;
    let _ = Provider::at(&dir.address).shmem_from_id(shmem_providers::ShMemId::from_string(&id))?;
    drop((a, b));
    service.stop();
    dir.assert_nothing_left();
    Ok(())
}

/// The kernel reports the users of the two sides to each other, but not their process numbers.
pub(crate) fn programs_in_different_pid_namespaces_share_segments() -> Outcome {
    let root = rustix::process::geteuid().is_root();
    let mut namespace = vec!["unshare"];
    if !root {
        namespace.push("--map-current-user");
    }
    namespace.extend(["--pid", "--fork", "--kill-child", "--"]);
    can_start_by(&namespace)?;
    for hosted_inside in [false, true] {
        let dir = TestDir::new()?;
        let here = || dir.peer();
        let inside = || -> Result<Peer, String> {
            let mut peer = Peer::start_by(&namespace);
            peer.use_address(&dir.address)?;
            Ok(peer)
        };
        let (mut host, mut client) = if hosted_inside {
            (inside()?, here())
        } else {
            (here(), inside()?)
        };
        let id = host.make(100)?;
        host.put(0, 5)?;
        client.open(&id)?;
        assert_eq!(client.get(0)?, 5);
        let mut third = inside()?;
        third.open(&id)?;
        third.put(0, 6)?;
        assert_eq!(host.get(0)?, 6);
        // The client takes over.
        host.kill();
        third.drop_newest()?;
        third.open(&id)?;
        drop(third);
        drop(client);
        dir.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn ids_of_one_address_are_unknown_at_another() -> Outcome {
    let (here, there) = (TestDir::new()?, TestDir::new()?);
    let (mut a, mut b) = (here.peer(), there.peer());
    let id = a.make(100)?;
    b.make(100)?;
    assert!(b.try_open(&id).is_err());
    drop((a, b));
    here.assert_nothing_left();
    there.assert_nothing_left();
    Ok(())
}

pub(crate) fn impossible_addresses_are_errors() -> Outcome {
    let dir = TestDir::new()?;
    let directory = dir.address.parent().ok_or("the address has no directory")?;
    let ordinary = directory.join("file");
    fs::write(&ordinary, "text")?;
    let long = directory.join("x".repeat(104));
    let nowhere = directory.join("no/such/directory");
    for path in [&ordinary, &long, &nowhere] {
        let started = ShMemService::start_at(path).expect_err("no socket can be created there");
        let made = Provider::at(path).new_shmem(1).expect_err("the same");
        for error in [started, made] {
            assert!(
                matches!(error, Error::Service { .. } | Error::Os { .. }),
                "{}: {error:?}",
                path.display()
            );
        }
    }
    // The other file has not been removed.
    assert_eq!(fs::read_to_string(&ordinary)?, "text");
    fs::remove_file(&ordinary)?;
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn only_one_serves_at_an_address() -> Outcome {
    let dir = TestDir::new()?;
    let service = ShMemService::start_at(&dir.address)?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    let mut peer = Peer::start();
    let error = peer.serve_at(&dir.address).expect_err("it is taken");
    assert!(
        error.contains("another service is already running"),
        "{error}"
    );
    service.stop();
    peer.serve_at(&dir.address)?;
    assert!(ShMemService::start_at(&dir.address).is_err());
    peer.stop_serving()?;
    ShMemService::start_at(&dir.address)?;
    dir.assert_nothing_left();
    Ok(())
}
