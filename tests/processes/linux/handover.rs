//! Hand-over by the environment.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use shmem_providers::{Error, ShMem, ShMemProvider, StdShMemProvider};

use super::peer::{ALL, Commands, Peer, here, provider};
use testkit::Outcome;

const NAME: &str = "SHMEM_TEST_MAP";

pub(crate) fn a_command_hands_over_id_and_size() -> Outcome {
    for mechanism in here(ALL) {
        let mut segment = provider(mechanism)?.new_shmem(5000)?;
        segment[4999] = 42;
        let mut command = Peer::command();
        segment.hand_over(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        assert_eq!(peer.get(4999)?, 42);
        peer.put(0, 7)?;
        assert_eq!(segment[0], 7);
    }
    Ok(())
}

pub(crate) fn whole_segment_is_attached_without_a_size() -> Outcome {
    let segment = StdShMemProvider::new()?.new_shmem(5000)?;
    let mut peer = Peer::started(Peer::command().env(NAME, segment.id().as_str()));
    assert_eq!(peer.open_from_env(NAME)?, 5000);
    Ok(())
}

pub(crate) fn write_to_env_is_read_back() -> Outcome {
    let mut peer = Peer::start();
    peer.make("default", 100)?;
    peer.put(1, 1)?;
    peer.ask(format!("write-env {NAME}"))?;
    assert_eq!(peer.open_from_env(NAME)?, 100);
    assert_eq!(peer.get(1)?, 1);
    let error = peer
        .ask("write-env A=B")
        .expect_err("no variable may have that name");
    assert!(error.contains("A=B"), "{error}");
    Ok(())
}

pub(crate) fn malformed_variables_are_errors() -> Outcome {
    let segment = StdShMemProvider::new()?.new_shmem(100)?;
    let id = segment.id();
    let with = |id: &[u8], size: &[u8]| {
        let mut command = Peer::command();
        command.env(NAME, OsStr::from_bytes(id));
        command.env(format!("{NAME}_SIZE"), OsStr::from_bytes(size));
        Peer::started(&mut command).open_from_env(NAME)
    };
    let id = id.as_str().as_bytes();
    assert_eq!(with(id, b"100"), Ok(100));
    assert_eq!(with(id, b"1"), Ok(1));
    let refused = |id: &[u8], size: &[u8], why: &str| {
        let error = with(id, size).expect_err("this must be refused");
        assert!(error.contains(why), "{error}");
    };
    refused(
        id,
        b"101",
        "SHMEM_TEST_MAP_SIZE\": 101 bytes were asked for, but the segment has 100",
    );
    refused(
        id,
        b"0",
        "SHMEM_TEST_MAP_SIZE\": a segment cannot have zero bytes",
    );
    for size in [
        &b""[..],
        b"-1",
        b"1.5",
        b"0x10",
        b" 1",
        b"99999999999999999999999",
    ] {
        refused(id, size, "SHMEM_TEST_MAP_SIZE\": it is not a number");
    }
    refused(id, b"\xff", "SHMEM_TEST_MAP_SIZE\": it is not UTF-8");
    refused(b"\xff\xfe", b"1", "SHMEM_TEST_MAP\": it is not UTF-8");
    for (id, why) in [
        (&b""[..], "it is empty"),
        (b"hello", "an id starts with"),
        (&[b'm'; 5000], "more than 19 bytes"),
        (b"/shmem-NoSuchNameNo", "no POSIX segment"),
    ] {
        refused(id, b"1", why);
        refused(id, b"1", "SHMEM_TEST_MAP\": ");
    }
    let error = Peer::start()
        .open_from_env("SHMEM_TEST_UNSET")
        .expect_err("it is not set");
    assert!(
        error.contains("SHMEM_TEST_UNSET\": it is not set: start"),
        "{error}"
    );
    Ok(())
}

pub(crate) fn invalid_variable_names_are_errors() -> Outcome {
    let segment = StdShMemProvider::new()?.new_shmem(100)?;
    for name in ["", "A=B", "=", "nul\0inside"] {
        let error = segment.hand_over(&mut Command::new("true"), name);
        assert!(
            matches!(error, Err(Error::Environment { .. })),
            "{name:?}: {error:?}"
        );
        let error = StdShMemProvider::new()?.existing_from_env(name);
        assert!(
            matches!(error, Err(Error::Environment { .. })),
            "{name:?}: {error:?}"
        );
        // SAFETY: the names are refused before the environment is changed.
        let error = unsafe { segment.write_to_env(name) };
        assert!(
            matches!(error, Err(Error::Environment { .. })),
            "{name:?}: {error:?}"
        );
    }
    Ok(())
}

pub(crate) fn descriptors_are_not_inherited() -> Outcome {
    let nothing = Peer::start().files()?;
    let mut kept = Vec::new();
    for mechanism in here(ALL) {
        let mut provider = provider(mechanism)?;
        let segment = provider.new_shmem(100)?;
        kept.push(provider.shmem_from_id(segment.id())?);
        kept.push(provider.clone_ref(&segment)?);
        kept.push(segment);
    }
    assert_eq!(Peer::start().files()?, nothing);
    Ok(())
}
