//! Other users: processes of a real second user, 65534, who owns nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{fs, process};

use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::peer::{
    ALL, Commands, LASTING, Peer, assert_nothing_left, can_start_by, here, provider,
};
use testkit::peer::AS_OTHER;
use testkit::{Outcome, skip};

/// Returns a wrapper that runs a command in namespaces of its own, after some lines of shell. Users other
/// than root need a user namespace as well, if they may have one.
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
        let error = other.open(&id).expect_err("another user");
        assert!(error.contains("another user"), "{mechanism}: {error}");
        let error = other.open_part(&id, 100).expect_err("another user");
        assert!(error.contains("another user"), "{mechanism}: {error}");
        assert!(segment.iter().all(|&byte| byte == 7));
    }
    Ok(())
}

/// They are refused even if the kernel allows it: root can open everything.
pub(crate) fn what_another_user_made_is_refused() -> Outcome {
    can_start_by(AS_OTHER)?;
    for mechanism in here(ALL) {
        let mut other = Peer::start_by(AS_OTHER);
        let id = other.make(mechanism, 100)?;
        let error = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(&id));
        let error = error.expect_err("another user has created it");
        assert_eq!(
            error,
            Error::OtherUser { owner: Some(65534) },
            "{mechanism}"
        );
        other.drop_newest()?;
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
    let directory = tempfile::tempdir()?;
    let ours = directory.path().join("ours");
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
    // A process is undumpable if its user may not read the program, which this user may.
    assert_eq!(
        fs::metadata(super::peer::public_program())?
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    for mechanism in here(LASTING) {
        let (mut a, mut b) = (Peer::start_by(AS_OTHER), Peer::start_by(AS_OTHER));
        let id = a.make(mechanism, 100)?;
        if mechanism != "sysv" && here(ALL).contains(&"memfd") {
            assert!(id.starts_with('m'), "{id}");
        }
        a.put(0, 1)?;
        b.open(&id)?;
        let a = a.kill();
        let mut c = Peer::start_by(AS_OTHER);
        c.open(&id)?;
        assert_eq!(c.get(0)?, 1);
        assert_nothing_left(&[a, b.kill(), c.kill()], &[&id]);
    }
    Ok(())
}
