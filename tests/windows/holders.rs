//! Hand-over, and how long segments live.

use std::os::windows::io::{AsHandle, AsRawHandle};
use std::thread;
use std::time::Duration;

use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use crate::peer::Peer;
use testkit::Outcome;

const NAME: &str = "SHMEM_TEST_MAP";

pub(crate) fn a_command_hands_over_id_and_size() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(5000)?;
    segment[4999] = 42;
    let mut command = Peer::command();
    segment.hand_over(&mut command, NAME)?;
    let mut peer = Peer::started(&mut command);
    assert_eq!(peer.ask(format!("env {NAME}"))?, "5000");
    assert_eq!(peer.ask("get 4999")?, "42");
    peer.ask("put 0 7")?;
    assert_eq!(segment[0], 7);
    Ok(())
}

/// No handle is inherited, so the id has to do.
pub(crate) fn inherit_hands_over() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(5000)?;
    segment[4999] = 42;
    let mut command = Peer::command();
    segment.inherit(&mut command, NAME)?;
    let mut peer = Peer::started(&mut command);
    assert_eq!(peer.ask(format!("env {NAME}"))?, "5000");
    assert_eq!(peer.ask("get 4999")?, "42");
    Ok(())
}

pub(crate) fn a_handle_holds_the_section() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let segment = provider.shmem_from_bytes(b"a picture")?;
    let id = segment.id();
    let handle = segment.as_handle().try_clone_to_owned()?;
    drop(segment);
    let mut opened = provider.shmem_from_id(id)?;
    assert_eq!(opened[..9], *b"a picture");
    provider.release_shmem(&mut opened);
    assert!(opened.as_handle().as_raw_handle().is_null());
    drop(handle);
    assert_eq!(provider.shmem_from_id(id).err(), Some(Error::Gone { id }));
    Ok(())
}

pub(crate) fn without_a_size_whole_pages_are_attached() -> Outcome {
    let segment = StdShMemProvider::new()?.new_shmem(5000)?;
    let mut peer = Peer::started(Peer::command().env(NAME, segment.id().as_str()));
    assert_eq!(peer.ask(format!("env {NAME}"))?, "8192");
    assert_eq!(peer.ask("get 8191")?, "0");
    Ok(())
}

pub(crate) fn malformed_variables_are_errors() -> Outcome {
    let segment = StdShMemProvider::new()?.new_shmem(5000)?;
    let with = |id: &str, size: &str| {
        let mut command = Peer::command();
        command.env(NAME, id).env(format!("{NAME}_SIZE"), size);
        Peer::started(&mut command).ask(format!("env {NAME}"))
    };
    let id = segment.id();
    assert_eq!(with(id.as_str(), "1"), Ok("1".into()));
    let refused = |id: &str, size: &str, why: &str| {
        let error = with(id, size).expect_err("this must be refused");
        assert!(error.contains(why), "{error}");
    };
    refused(id.as_str(), "8193", "has 8192");
    refused(id.as_str(), "0", "zero bytes");
    refused(
        id.as_str(),
        "-1",
        "SHMEM_TEST_MAP_SIZE\": it is not a number",
    );
    refused("hello", "1", "names no segment");
    refused(&"w".repeat(5000), "1", "more than 19 bytes");
    Ok(())
}

pub(crate) fn handles_are_not_inherited() -> Outcome {
    let nothing = Peer::start().ask("handles")?;
    let mut provider = StdShMemProvider::new()?;
    let mut kept = Vec::new();
    for _ in 0..20 {
        let segment = provider.new_shmem(100)?;
        kept.push(provider.shmem_from_id(segment.id())?);
        kept.push(provider.clone_ref(&segment)?);
        kept.push(segment);
    }
    assert_eq!(Peer::start().ask("handles")?, nothing);
    // A child keeps no segment alive.
    let id = kept[0].id();
    let _child = Peer::start();
    drop(kept);
    assert_eq!(provider.shmem_from_id(id).err(), Some(Error::Gone { id }));
    Ok(())
}

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    let (mut creator, mut holder, mut late) = (Peer::start(), Peer::start(), Peer::start());
    let id = creator.ask("make 100000")?;
    creator.ask("put 99999 3")?;
    assert_eq!(holder.ask(format!("open {id} 100000"))?, "100000");
    creator.kill();
    assert_eq!(holder.ask("get 99999")?, "3");
    assert_eq!(late.ask(format!("open {id} 100000"))?, "100000");
    assert_eq!(late.ask("get 99999")?, "3");
    holder.kill();
    late.ask("put 5 5")?;
    let mut last = Peer::start();
    last.ask(format!("open {id}"))?;
    assert_eq!(last.ask("get 5")?, "5");
    late.kill();
    last.kill();
    assert_gone(&id);
    Ok(())
}

pub(crate) fn id_opens_through_ten_generations_of_holders() -> Outcome {
    let mut holder = Peer::start();
    let id = holder.ask("make 65536")?;
    for byte in 1..10 {
        holder.ask(format!("put {byte} {byte}"))?;
        let mut next = Peer::start();
        next.ask(format!("open {id}"))?;
        holder.kill();
        assert_eq!(next.ask(format!("get {byte}"))?, byte.to_string());
        holder = next;
    }
    assert_eq!(holder.ask("get 1")?, "1");
    holder.ask("drop")?;
    assert_gone(&id);
    Ok(())
}

pub(crate) fn processes_terminated_while_creating_leave_nothing() -> Outcome {
    let mut bystander = Peer::start();
    let id = bystander.ask("make 65536")?;
    for round in 0..20 {
        let mut peer = Peer::start();
        let theirs = peer.ask("make 65536")?;
        peer.send("churn");
        thread::sleep(Duration::from_millis(round));
        peer.kill();
        assert_gone(&theirs);
    }
    bystander.ask("put 65535 1")?;
    assert_eq!(Peer::start().ask(format!("open {id}"))?, "65536");
    Ok(())
}

/// Checks that no segment has this id any more.
#[track_caller]
fn assert_gone(id: &str) {
    let id = ShMemId::from_string(id);
    let opened = StdShMemProvider::default().shmem_from_id(id);
    assert_eq!(opened.err(), Some(Error::Gone { id }));
}
