//! Addresses that are taken: by dead services, other users, links.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use shmem_providers::{Error, ShMemProvider, ShMemService};

use super::lifetime::TestDir;
use super::peer::{Commands, Provider};
use testkit::peer::{AS_OTHER, Peer, can_start_by};
use testkit::{Outcome, skip};

pub(crate) fn files_of_dead_services_are_replaced() -> Outcome {
    for lock in [false, true] {
        for socket in [false, true] {
            let dir = TestDir::new()?;
            if lock {
                fs::write(dir.address.with_extension("lock"), "not a lock")?;
            }
            if socket {
                // A socket that no process listens on.
                drop(UnixListener::bind(&dir.address)?);
            }
            let mut a = dir.peer();
            let id = a.make(100)?;
            dir.peer().try_open(&id)?;
            drop(a);
            dir.assert_nothing_left();
        }
    }
    Ok(())
}

/// Creates a directory that everybody may change, the worst case.
fn open_dir() -> Result<TestDir, std::io::Error> {
    let dir = TestDir::new()?;
    let directory = dir.address.parent().unwrap_or(Path::new("/"));
    fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    Ok(dir)
}

pub(crate) fn another_user_is_turned_away() -> Outcome {
    can_start_by(AS_OTHER)?;
    for open in [false, true] {
        let dir = if open { open_dir()? } else { TestDir::new()? };
        let mut host = dir.host();
        let mut honest = dir.peer();
        let id = honest.make(100)?;
        let mut other = Peer::start_by(AS_OTHER);
        other.use_address(&dir.address)?;
        if open {
            // The file system would allow the connection.
            fs::set_permissions(&dir.address, Permissions::from_mode(0o777))?;
            let files = host.files()?;
            for _ in 0..20 {
                let status = other.ask(format!("probe {}", dir.address.display()))?;
                assert_eq!(status, "closed");
            }
            assert_eq!(host.files()?, files);
        }
        for request in [format!("open {id}"), "make 100".into()] {
            let error = other.ask(&request).expect_err("another user");
            assert!(error.contains("another user"), "{error}");
        }
        honest.try_open(&id)?;
        drop((other, honest, host));
        dir.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn address_taken_by_another_user_is_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    // The other user has a service there, a dead socket, or a lock.
    for alive in [true, false] {
        let dir = open_dir()?;
        let mut other = Peer::start_by(AS_OTHER);
        other.serve_at(&dir.address)?;
        fs::set_permissions(&dir.address, Permissions::from_mode(0o777))?;
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
        refused(Provider::at(&dir.address).new_shmem(100).err());
        if !alive {
            refused(ShMemService::start_at(&dir.address).err());
            fs::remove_file(&dir.address)?;
            refused(ShMemService::start_at(&dir.address).err());
            fs::remove_file(format!("{}.lock", dir.address.display()))?;
        }
        drop(other);
        dir.assert_nothing_left();
    }
    Ok(())
}

/// The default directory, in states in which another user may have left it.
pub(crate) fn directories_that_are_not_ours_are_refused() -> Outcome {
    let user = rustix::process::geteuid();
    if Path::new(&format!("/run/user/{user}")).exists() {
        return skip("there is a directory in /run/user, which has precedence over TMPDIR");
    }
    let temporary = tempfile::tempdir()?;
    let directory = temporary.path().join(format!("shmem_providers-{user}"));
    let elsewhere = tempfile::tempdir()?;
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o700))?;
    let make = || {
        let mut command = Peer::command();
        command.env_remove(ShMemService::ENV);
        command.env_remove("XDG_RUNTIME_DIR");
        // The second choice.
        command.env_remove("HOME");
        command.env("TMPDIR", temporary.path());
        Peer::started(&mut command).make(100)
    };
    let refused = |with: &str| {
        let error = make().expect_err("it is not ours alone");
        assert!(error.contains(with), "{error}");
    };

    symlink(elsewhere.path(), &directory)?;
    refused("not a directory");
    fs::remove_file(&directory)?;

    File::create(&directory)?;
    refused("not a directory");
    fs::remove_file(&directory)?;

    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, Permissions::from_mode(0o777))?;
    refused("accessible to other users");
    fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
    if user.is_root() {
        chown(&directory, Some(65534), Some(65534))?;
        refused("belongs to another user");
        chown(&directory, Some(0), Some(0))?;
    }
    make()?;
    assert_eq!(fs::read_dir(&directory)?.count(), 0);
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0);
    Ok(())
}
