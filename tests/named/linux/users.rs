//! Other users, and directories in which names cannot be registered.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use rustix::process::geteuid;
use shmem_providers::ErrorKind;
use shmem_providers::error::NamedError;
use testkit::peer::{AS_OTHER, Peer, can_start_by};
use testkit::{Outcome, skip};

use super::peer::{SIZE, initialise};
use super::{Names, reason};

const OTHER: u32 = 65534;

/// What the message of a directory that cannot be used contains.
const CURE: &str = "set SHMEM_NAMES, for all programs that share names";

fn as_root() -> Outcome {
    if geteuid().is_root() {
        return can_start_by(AS_OTHER);
    }
    skip("needs root, to start programs of another user")
}

pub(crate) fn other_users_get_nothing() -> Outcome {
    as_root()?;
    let here = Names::new()?;
    let held = here.options().open_or_create("a", SIZE, initialise)?;
    let mut other = Peer::start_by(AS_OTHER);
    here.lead(&mut other);
    for command in ["open a", "make a /dev/null", "list", "remove a"] {
        let text = other.ask(command).expect_err("the directory is not theirs");
        let path = here.path().display().to_string();
        assert!(
            text.contains(&path) && text.contains(CURE),
            "{command}: {text}"
        );
        assert!(text.contains("another user (uid 0)"), "{command}: {text}");
    }
    assert_eq!(here.list(), ["a"]);
    drop(held);
    here.assert_empty();
    Ok(())
}

pub(crate) fn directories_of_other_users_are_refused() -> Outcome {
    as_root()?;
    // The other user was faster, and has put an entry there.
    let parent = tempfile::tempdir()?;
    fs::set_permissions(parent.path(), Permissions::from_mode(0o1777))?;
    let squatted = parent.path().join("names");
    let mut other = Peer::start_by(AS_OTHER);
    other.execute(format!("dir {}", squatted.display()))?;
    other.execute("make a /dev/null")?;
    let options = shmem_providers::NamedOptions::new().directory(&squatted);
    for refused in [
        options.open("a").err(),
        options.open_or_create("a", SIZE, initialise).err(),
        options.list().err(),
        options.remove("a").err(),
    ] {
        let error = refused.ok_or("the directory is another user's")?;
        assert_eq!(error.kind(), ErrorKind::NameDirectory);
        let text = error.to_string();
        assert!(
            text.contains("another user (uid 65534)") && text.contains(CURE),
            "{text}"
        );
    }
    other.execute("drop a")?;
    // An entry of another user in a directory of this one.
    let here = Names::new()?;
    let file = entry_of("a")?;
    fs::write(here.path().join(&file), b"x")?;
    chown(here.path().join(&file), Some(OTHER), Some(OTHER))?;
    let refused = reason(here.options().open_or_create("a", SIZE, initialise));
    assert!(
        matches!(refused, NamedError::NotAnEntry { .. }),
        "{refused}"
    );
    assert_eq!(here.files(), [file]);
    Ok(())
}

/// Returns the file of the entry of a name.
pub(crate) fn entry_of(name: &str) -> Outcome<String> {
    let here = Names::new()?;
    let _held = here.options().open_or_create(name, SIZE, initialise)?;
    Ok(here.files().remove(0))
}

pub(crate) fn directories_open_to_others_are_refused() -> Outcome {
    let here = Names::new()?;
    for mode in [0o777, 0o720, 0o770, 0o1777] {
        fs::set_permissions(here.path(), Permissions::from_mode(mode))?;
        let error = here.options().open_or_create("a", SIZE, initialise).err();
        let text = error.ok_or("others have access")?.to_string();
        assert!(text.contains("chmod 700") && text.contains(CURE), "{text}");
    }
    fs::set_permissions(here.path(), Permissions::from_mode(0o700))?;
    // A path that others can redirect, a link, a file, and a path that does not exist.
    let parent = tempfile::tempdir()?;
    let path = parent.path().join("names");
    let refused = || reason(shmem_providers::NamedOptions::new().directory(&path).list());
    fs::set_permissions(parent.path(), Permissions::from_mode(0o777))?;
    assert!(
        refused().to_string().contains("can rename"),
        "{}",
        refused()
    );
    fs::set_permissions(parent.path(), Permissions::from_mode(0o700))?;
    symlink(here.path(), &path)?;
    assert!(
        refused().to_string().contains("not a directory"),
        "{}",
        refused()
    );
    fs::remove_file(&path)?;
    fs::write(&path, b"")?;
    assert!(
        refused().to_string().contains("not a directory"),
        "{}",
        refused()
    );
    fs::remove_file(&path)?;
    let deep = shmem_providers::NamedOptions::new().directory(path.join("deeper"));
    assert!(reason(deep.list()).to_string().contains("No such file"));
    // A directory that is only missing is created.
    let options = shmem_providers::NamedOptions::new().directory(&path);
    drop(options.open_or_create("a", SIZE, initialise)?);
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o700);
    here.assert_empty();
    Ok(())
}

pub(crate) fn read_only_directories_are_errors_that_name_them() -> Outcome {
    let root = geteuid().is_root();
    let directory = tempfile::tempdir()?;
    let path = directory.path().display().to_string();
    let script = format!("mount -t tmpfs -o ro,mode=700 none '{path}' && exec \"$@\"");
    let mut wrapper = vec!["unshare"];
    wrapper.extend((!root).then_some("--map-root-user"));
    wrapper.extend(["--mount", "sh", "-c", &script, "sh"]);
    can_start_by(&wrapper)?;
    let mut peer = Peer::start_by(&wrapper);
    peer.execute(format!("dir {path}"))?;
    let text = peer
        .ask("make a /dev/null")
        .expect_err("nothing can be created");
    assert!(text.contains(&path) && text.contains(CURE), "{text}");
    assert!(text.contains("Read-only"), "{text}");
    // What exists can be read: nothing.
    assert_eq!(peer.ask("list"), Ok(String::new()));
    assert!(
        peer.ask("open a")
            .is_err_and(|text| text.contains("no process"))
    );
    let text = peer
        .ask(format!("dir {path}/new"))
        .and_then(|_| peer.ask("list"));
    let text = text.expect_err("it cannot be created");
    assert!(text.contains("mkdir") && text.contains(CURE), "{text}");
    Ok(())
}

pub(crate) fn a_full_directory_is_an_error() -> Outcome {
    let root = geteuid().is_root();
    let directory = tempfile::tempdir()?;
    let path = directory.path().display().to_string();
    // Room for the directory and a single file, so that there is a lock, but no entry.
    for (inodes, fill) in [
        ("nr_inodes=2", "true"),
        ("size=4k", "head -c 4096 /dev/zero > full"),
    ] {
        let script = format!(
            "mount -t tmpfs -o {inodes},mode=700 none '{path}' && cd '{path}' && {fill} && cd / && \
             exec \"$@\""
        );
        let mut wrapper = vec!["unshare"];
        wrapper.extend((!root).then_some("--map-root-user"));
        wrapper.extend(["--mount", "sh", "-c", &script, "sh"]);
        can_start_by(&wrapper)?;
        let mut peer = Peer::start_by(&wrapper);
        peer.execute(format!("dir {path}"))?;
        for _ in 0..2 {
            let text = peer.ask("make a /dev/null").expect_err("there is no room");
            assert!(
                text.contains("No space left") && text.contains(&path),
                "{text}"
            );
        }
        assert_eq!(peer.ask("list"), Ok(String::new()));
    }
    Ok(())
}

pub(crate) fn the_environment_chooses_the_directory() -> Outcome {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("names");
    let mut command = Peer::command();
    command.env("SHMEM_NAMES", &directory);
    let mut peer = Peer::started(&mut command);
    peer.execute("public")?;
    // It was created, and nothing is left in it.
    assert_eq!(fs::read_dir(&directory)?.count(), 0);
    command.env("SHMEM_NAMES", "/proc/1/x");
    let text = Peer::started(&mut command)
        .ask("public")
        .expect_err("it is no place for files");
    assert!(
        text.contains("from SHMEM_NAMES") && text.contains(CURE),
        "{text}"
    );
    // Without it, the directory of this crate in the runtime directory of the session.
    command
        .env_remove("SHMEM_NAMES")
        .env("XDG_RUNTIME_DIR", &directory);
    Peer::started(&mut command).execute("public")?;
    assert_eq!(fs::read_dir(directory.join("shmem_providers"))?.count(), 0);
    Ok(())
}
