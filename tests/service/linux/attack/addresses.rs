//! Who was there before: dead services, other users, links.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use shmem_providers::{Error, ShMemProvider, ShMemService};

use super::lifetime::Place;
use super::peer::Provider;
use testkit::peer::{Peer, can_start_by};
use testkit::{Outcome, skip};

/// Runs a command as another user, who has nothing anywhere.
const AS_OTHER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

pub(crate) fn files_of_dead_services_are_replaced() -> Outcome {
    for lock in [false, true] {
        for socket in [false, true] {
            let place = Place::new()?;
            if lock {
                fs::write(place.address.with_extension("lock"), "not a lock")?;
            }
            if socket {
                // Nobody listens any more.
                drop(UnixListener::bind(&place.address)?);
            }
            let mut a = place.peer();
            let id = a.ask("make 100")?;
            place.peer().ask(format!("try {id}"))?;
            drop(a);
            place.assert_nothing_left();
        }
    }
    Ok(())
}

/// The folder is open to everybody, the worst there is.
fn open_place() -> Result<Place, std::io::Error> {
    let place = Place::new()?;
    let folder = place.address.parent().unwrap_or(Path::new("/"));
    fs::set_permissions(folder, Permissions::from_mode(0o777))?;
    Ok(place)
}

pub(crate) fn another_user_is_turned_away() -> Outcome {
    can_start_by(AS_OTHER)?;
    for open in [false, true] {
        let place = if open { open_place()? } else { Place::new()? };
        let mut host = place.host();
        let mut honest = place.peer();
        let id = honest.ask("make 100")?;
        let mut other = Peer::start_by(AS_OTHER);
        other.ask(format!("at {}", place.address.display()))?;
        if open {
            // Even where the file system would let it in.
            fs::set_permissions(&place.address, Permissions::from_mode(0o777))?;
            let files = host.ask("files")?;
            for _ in 0..20 {
                let received = other.ask(format!("knock {}", place.address.display()))?;
                assert_eq!(received, "let go");
            }
            assert_eq!(host.ask("files")?, files);
        }
        for request in [format!("open {id}"), "make 100".into()] {
            let error = other.ask(&request).expect_err("another user");
            assert!(error.contains("another user"), "{error}");
        }
        honest.ask(format!("try {id}"))?;
        drop((other, honest, host));
        place.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn address_taken_by_another_user_is_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    // It serves there; it has died there; it has left a lock there.
    for alive in [true, false] {
        let place = open_place()?;
        let mut other = Peer::start_by(AS_OTHER);
        other.ask(format!("host {}", place.address.display()))?;
        fs::set_permissions(&place.address, Permissions::from_mode(0o777))?;
        let other = if alive {
            Some(other)
        } else {
            other.kill();
            None
        };
        let refused = |error: Option<Error>| {
            let text = error.expect("it is another user's").to_string();
            assert!(text.contains("another user (uid 65534)"), "{text}");
        };
        refused(Provider::at(&place.address).new_shmem(100).err());
        if !alive {
            refused(ShMemService::start_at(&place.address).err());
            fs::remove_file(&place.address)?;
            refused(ShMemService::start_at(&place.address).err());
            fs::remove_file(format!("{}.lock", place.address.display()))?;
        }
        drop(other);
        place.assert_nothing_left();
    }
    Ok(())
}

/// The folder where all programs of the user meet, as somebody else has left it.
pub(crate) fn directories_that_are_not_ours_are_refused() -> Outcome {
    let user = rustix::process::geteuid();
    if Path::new(&format!("/run/user/{user}")).exists() {
        return skip("there is a folder in /run/user, which comes before that of temporary files");
    }
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path().join(format!("shmem_providers-{user}"));
    let elsewhere = tempfile::tempdir()?;
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o700))?;
    let ask = || {
        let mut command = Peer::command();
        command.env_remove(ShMemService::ENV);
        command.env_remove("XDG_RUNTIME_DIR");
        // The second place.
        command.env_remove("HOME");
        command.env("TMPDIR", temporary.path());
        Peer::started(&mut command).ask("make 100")
    };
    let refused = |with: &str| {
        let error = ask().expect_err("it is not ours alone");
        assert!(error.contains(with), "{error}");
    };

    symlink(elsewhere.path(), &folder)?;
    refused("something else");
    fs::remove_file(&folder)?;

    File::create(&folder)?;
    refused("something else");
    fs::remove_file(&folder)?;

    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
    refused("open to other users");
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    if user.is_root() {
        chown(&folder, Some(65534), Some(65534))?;
        refused("belongs to another user");
        chown(&folder, Some(0), Some(0))?;
    }
    ask()?;
    assert_eq!(fs::read_dir(&folder)?.count(), 0);
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0);
    Ok(())
}
