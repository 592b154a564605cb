//! `/proc` that is missing, hides processes, or shows other numbers.

use super::limits::peer_in;
use super::peer::{ALL, Peer, can_start_by, here};
use testkit::{Outcome, says_not_found, skip};

pub(crate) fn system_v_is_used_without_proc() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut peer = peer_in("-m", "mount -t tmpfs tmpfs /proc")?;
    // A memfd could not be opened by others.
    let id = peer.ask("make default 100")?;
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(Peer::start().ask(format!("open {id}"))?, "100");
    if here(ALL).contains(&"memfd") {
        let error = peer.ask("make memfd 100").expect_err("there is no /proc");
        assert!(
            error.contains("no other process could open a memfd"),
            "{error}"
        );
        let of_other = Peer::start().ask("make memfd 100")?;
        let error = peer
            .ask(format!("open {of_other}"))
            .expect_err("there is no /proc");
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
    let id = a.ask("make default 100")?;
    if here(ALL).contains(&"memfd") {
        assert!(id.starts_with('m'), "{id}");
    }
    a.ask("put 0 1")?;
    b.ask(format!("open {id}"))?;
    a.kill();
    let Ok(mut c) = start() else {
        return skip("no third namespace");
    };
    c.ask(format!("open {id}"))?;
    assert_eq!(c.ask("get 0")?, "1");
    // What others have is hidden as if it was not there.
    if here(ALL).contains(&"memfd") {
        let mut other = Peer::start();
        let of_root = other.ask("make memfd 100")?;
        let error = c.ask(format!("open {of_root}")).expect_err("another user");
        assert!(says_not_found(&error), "{error}");
        assert!(error.contains("hidepid"), "{error}");
    }
    Ok(())
}

/// Programs with more privileges than their user close their descriptors to him.
pub(crate) fn system_v_is_used_in_undumpable_processes() -> Outcome {
    if !here(ALL).contains(&"sysv") {
        return skip("no System V shared memory here");
    }
    let mut peer = Peer::start();
    peer.ask("undumpable")?;
    let id = peer.ask("make default 100")?;
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(Peer::start().ask(format!("open {id}"))?, "100");
    Ok(())
}

/// What a process in an inner pid namespace makes is found from outside, where it has another
/// number.
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
    let id = inner.ask("make memfd 100")?;
    inner.ask("put 0 1")?;
    let mut outer = Peer::start();
    assert_eq!(outer.ask(format!("open {id}"))?, "100");
    assert_eq!(outer.ask("get 0")?, "1");
    // The other way round, the processes outside do not exist for the inner one.
    let of_outer = outer.ask("make memfd 100")?;
    let error = inner
        .ask(format!("open {of_outer}"))
        .expect_err("it cannot be seen");
    assert!(says_not_found(&error), "{error}");
    assert!(error.contains("outside of this pid namespace"), "{error}");
    assert!(error.contains("StdServedShMemProvider"), "{error}");
    Ok(())
}
