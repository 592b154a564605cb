//! Other users, with a real second user: 65534, which has nothing anywhere.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{fs, process};

use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::peer::{ALL, LASTING, Peer, assert_nothing_left, can_start_by, here, provider};
use testkit::{Outcome, skip};

/// Runs a command as the other user.
pub(crate) const AS_OTHER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

/// Runs a command in namespaces of its own, after some lines of shell. Root needs no user namespace
/// for it; others do, where they may have one.
pub(crate) fn namespaces(which: &str, shell: &str) -> Vec<String> {
    let root = if rustix::process::geteuid().is_root() {
        ""
    } else {
        "--map-root-user"
    };
    let words = ["unshare", root, which, "sh", "-c"];
    let mut wrapper: Vec<_> = words
        .iter()
        .filter(|word| !word.is_empty())
        .map(ToString::to_string)
        .collect();
    wrapper.push(format!("set -e; {shell}\nexec \"$@\""));
    wrapper.push("sh".into());
    wrapper
}

pub(crate) fn another_user_gets_nothing() -> Outcome {
    can_start_by(AS_OTHER)?;
    for mechanism in here(ALL) {
        let mut segment = provider(mechanism)?.new_shmem(100)?;
        segment.fill(7);
        let id = segment.id();
        let mut other = Peer::start_by(AS_OTHER);
        let error = other.ask(format!("open {id}")).expect_err("another user");
        assert!(error.contains("another user"), "{mechanism}: {error}");
        let error = other
            .ask(format!("open {id} 100"))
            .expect_err("another user");
        assert!(error.contains("another user"), "{mechanism}: {error}");
        assert!(segment.iter().all(|&byte| byte == 7));
    }
    Ok(())
}

/// Even where we could: root can open everything.
pub(crate) fn what_another_user_made_is_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    for mechanism in here(ALL) {
        let mut other = Peer::start_by(AS_OTHER);
        let id = other.ask(format!("make {mechanism} 100"))?;
        let error = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id));
        let error = error.expect_err("another user made it");
        assert_eq!(
            error,
            Error::OtherUser { owner: Some(65534) },
            "{mechanism}"
        );
        other.ask("drop")?;
        assert_nothing_left(&[other.kill()], &[&id]);
    }
    Ok(())
}

pub(crate) fn name_taken_by_another_user_is_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    if !here(ALL).contains(&"posix") {
        return skip("no POSIX shared memory here");
    }
    let id = ShMemId::from_string(&format!("/taken-{}", process::id()));
    let path = format!("/dev/shm{id}");
    let folder = tempfile::tempdir()?;
    let ours = folder.path().join("ours");
    fs::write(&ours, [1; 4096])?;
    let link = format!("ln -s '{}' '{path}'", ours.display());
    let file = format!("head -c 4096 /dev/zero >'{path}'; chmod 666 '{path}'");
    for shell in [link, file] {
        let mut command = Command::new(AS_OTHER[0]);
        command.args(&AS_OTHER[1..]).args(["sh", "-c", &shell]);
        assert!(command.status()?.success(), "{shell}");
        let opened = StdShMemProvider::new()?.shmem_from_id(id);
        let made = shmem_providers::MmapShMemProvider::new()?.new_shmem_with_id(1, id.as_str());
        fs::remove_file(&path)?;
        assert!(
            matches!(opened, Err(Error::OtherUser { .. } | Error::Foreign { .. })),
            "{shell}: {opened:?}"
        );
        assert_eq!(
            made.map(|_| ()).map_err(|e| e.raw_os_error()),
            Err(Some(libc::EEXIST))
        );
    }
    assert_eq!(fs::read(&ours)?, [1; 4096]);
    Ok(())
}

pub(crate) fn unprivileged_processes_of_one_user_share_segments() -> Outcome {
    can_start_by(AS_OTHER)?;
    // A program that others may read but that is not ours alone is dumpable; ours is such.
    assert_eq!(
        fs::metadata(super::peer::public_program())?
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    for mechanism in here(LASTING) {
        let (mut a, mut b) = (Peer::start_by(AS_OTHER), Peer::start_by(AS_OTHER));
        let id = a.ask(format!("make {mechanism} 100"))?;
        if mechanism != "sysv" && here(ALL).contains(&"memfd") {
            assert!(id.starts_with('m'), "{id}");
        }
        a.ask("put 0 1")?;
        b.ask(format!("open {id}"))?;
        let a = a.kill();
        let mut c = Peer::start_by(AS_OTHER);
        c.ask(format!("open {id}"))?;
        assert_eq!(c.ask("get 0")?, "1");
        assert_nothing_left(&[a, b.kill(), c.kill()], &[&id]);
    }
    Ok(())
}
