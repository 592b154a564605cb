//! `/proc` that is missing, hides processes, or shows other process numbers.

use super::limits::peer_in;
use super::peer::{ALL, Commands, Peer, can_start_by, here};
use testkit::{Outcome, says_not_found, skip};

pub(crate) fn system_v_is_used_without_proc() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut peer = peer_in("-m", "mount -t tmpfs tmpfs /proc")?;
    // Others could not open a memfd.
    let id = peer.make("default", 100)?;
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(Peer::start().open(&id)?, 100);
    if here(ALL).contains(&"memfd") {
        let error = peer.make("memfd", 100).expect_err("there is no /proc");
        assert!(
            error.contains("no other process could open a memfd"),
            "{error}"
        );
        let of_other = Peer::start().make("memfd", 100)?;
        let error = peer.open(&of_other).expect_err("there is no /proc");
        assert!(error.contains("/proc is not mounted"), "{error}");
    }
    Ok(())
}

pub(crate) fn segments_open_where_proc_hides_processes() -> Outcome {
    let shell = "mount -t proc -o hidepid=2 proc /proc
        set -- setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"";
    let start = || peer_in("-m", shell);
    if !rustix::process::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let (mut a, mut b) = (start()?, start()?);
    let id = a.make("default", 100)?;
    if here(ALL).contains(&"memfd") {
        assert!(id.starts_with('m'), "{id}");
    }
    a.put(0, 1)?;
    b.open(&id)?;
    a.kill();
    let Ok(mut c) = start() else {
        return skip("no third namespace");
    };
    c.open(&id)?;
    assert_eq!(c.get(0)?, 1);
    // Processes of others are hidden as if they did not exist.
    if here(ALL).contains(&"memfd") {
        let mut other = Peer::start();
        let of_root = other.make("memfd", 100)?;
        let error = c.open(&of_root).expect_err("another user");
        assert!(says_not_found(&error), "{error}");
        assert!(error.contains("hidepid"), "{error}");
    }
    Ok(())
}

/// The kernel hides the descriptors of undumpable processes, such as set-user-ID programs, from other
/// processes of the user.
pub(crate) fn system_v_is_used_in_undumpable_processes() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut peer = Peer::start();
    peer.execute("undumpable")?;
    let id = peer.make("default", 100)?;
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(Peer::start().open(&id)?, 100);
    Ok(())
}

/// A creator in an inner pid namespace has another number outside, and is found there.
pub(crate) fn segment_of_an_inner_pid_namespace_opens_outside() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let root = rustix::process::geteuid().is_root();
    let wrapper: &[&str] = if root {
        &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    } else {
        &[
            "unshare",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ]
    };
    can_start_by(wrapper)?;
    let mut inner = Peer::start_by(wrapper);
    let id = inner.make("memfd", 100)?;
    inner.put(0, 1)?;
    let mut outer = Peer::start();
    assert_eq!(outer.open(&id)?, 100);
    assert_eq!(outer.get(0)?, 1);
    // Processes outside do not exist for the inner one.
    let of_outer = outer.make("memfd", 100)?;
    let error = inner
        .open(&of_outer)
        .expect_err("its creator is not visible");
    assert!(says_not_found(&error), "{error}");
    assert!(error.contains("outside of this pid namespace"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    Ok(())
}
