//! Who meets whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use shmem_providers::{Error, ShMemProvider, ShMemService};

use super::lifetime::Place;
use super::peer::Provider;
use testkit::Outcome;
use testkit::peer::{Peer, can_start_by};

/// A peer with this in its environment, and neither an address nor a folder of the session otherwise.
fn peer_with(name: &str, value: &std::ffi::OsStr) -> Peer {
    let mut command: Command = Peer::command();
    command
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove(ShMemService::ENV);
    Peer::started(command.env(name, value))
}

pub(crate) fn programs_of_a_user_share_the_default_address() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    for variable in ["XDG_RUNTIME_DIR", "TMPDIR"] {
        let (mut a, mut b) = (
            peer_with(variable, folder.path().as_os_str()),
            peer_with(variable, folder.path().as_os_str()),
        );
        let address = a.ask("address")?;
        assert_eq!(b.ask("address")?, address);
        if !address.starts_with(&*folder.path().to_string_lossy()) {
            // There is a folder in /run/user, which comes before that of temporary files.
            assert_eq!(variable, "TMPDIR");
            continue;
        }
        let own = std::path::Path::new(&address).parent().ok_or("a folder")?;
        assert_eq!(fs::metadata(own)?.permissions().mode() & 0o777, 0o700);
        let id = a.ask("make 100")?;
        b.ask(format!("open {id}"))?;
        drop((a, b));
        assert_eq!(fs::read_dir(own)?.count(), 0);
    }
    Ok(())
}

pub(crate) fn address_in_the_environment_is_used() -> Outcome {
    let place = Place::new()?;
    let service = ShMemService::start_at(&place.address)?;
    let (mut a, mut b) = (
        peer_with(ShMemService::ENV, service.address().as_os_str()),
        peer_with(ShMemService::ENV, service.address().as_os_str()),
    );
    let id = a.ask("make 100")?;
    b.ask(format!("open {id}"))?;
    Provider::at(&place.address).shmem_from_id(shmem_providers::ShMemId::from_string(&id))?;
    drop((a, b));
    service.stop();
    place.assert_nothing_left();
    Ok(())
}

/// The kernel tells neither the number of the other's process, only its user.
pub(crate) fn programs_in_different_pid_namespaces_share_segments() -> Outcome {
    let root = rustix::process::geteuid().is_root();
    let mut namespace = vec!["unshare"];
    if !root {
        namespace.push("--map-current-user");
    }
    namespace.extend(["--pid", "--fork", "--kill-child", "--"]);
    can_start_by(&namespace)?;
    for hosted_inside in [false, true] {
        let place = Place::new()?;
        let here = || place.peer();
        let inside = || -> Result<Peer, String> {
            let mut peer = Peer::start_by(&namespace);
            peer.ask(format!("at {}", place.address.display()))?;
            Ok(peer)
        };
        let (mut host, mut client) = if hosted_inside {
            (inside()?, here())
        } else {
            (here(), inside()?)
        };
        let id = host.ask("make 100")?;
        host.ask("put 0 5")?;
        client.ask(format!("open {id}"))?;
        assert_eq!(client.ask("get 0")?, "5");
        let mut third = inside()?;
        third.ask(format!("open {id}"))?;
        third.ask("put 0 6")?;
        assert_eq!(host.ask("get 0")?, "6");
        // The client takes over.
        host.kill();
        third.ask("drop")?;
        third.ask(format!("open {id}"))?;
        drop(third);
        drop(client);
        place.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn ids_of_one_address_are_unknown_at_another() -> Outcome {
    let (here, there) = (Place::new()?, Place::new()?);
    let (mut a, mut b) = (here.peer(), there.peer());
    let id = a.ask("make 100")?;
    b.ask("make 100")?;
    assert!(b.ask(format!("try {id}")).is_err());
    drop((a, b));
    here.assert_nothing_left();
    there.assert_nothing_left();
    Ok(())
}

pub(crate) fn impossible_addresses_are_errors() -> Outcome {
    let place = Place::new()?;
    let folder = place.address.parent().ok_or("a folder")?;
    let ordinary = folder.join("file");
    fs::write(&ordinary, "text")?;
    let long = folder.join("x".repeat(104));
    let nowhere = folder.join("no/such/folder");
    for path in [&ordinary, &long, &nowhere] {
        let started = ShMemService::start_at(path).expect_err("it is no place for a socket");
        let made = Provider::at(path).new_shmem(1).expect_err("the same");
        for error in [started, made] {
            assert!(
                matches!(error, Error::Service { .. } | Error::Os { .. }),
                "{}: {error:?}",
                path.display()
            );
        }
    }
    // What is not ours to remove is still there.
    assert_eq!(fs::read_to_string(&ordinary)?, "text");
    fs::remove_file(&ordinary)?;
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn only_one_serves_at_an_address() -> Outcome {
    let place = Place::new()?;
    let service = ShMemService::start_at(&place.address)?;
    assert!(ShMemService::start_at(&place.address).is_err());
    let mut peer = Peer::start();
    let host = format!("host {}", place.address.display());
    let error = peer.ask(&host).expect_err("it is taken");
    assert!(
        error.contains("another service is there already"),
        "{error}"
    );
    service.stop();
    peer.ask(&host)?;
    assert!(ShMemService::start_at(&place.address).is_err());
    peer.ask("unhost")?;
    ShMemService::start_at(&place.address)?;
    place.assert_nothing_left();
    Ok(())
}
