//! What the environment says about an inherited descriptor: forged, outdated, used before, missing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use shmem_providers::{ShMem, ShMemProvider, StdShMem};

use super::descriptors::WITH_FD;
use super::inherit::{FD_NAME, NAME, command_by, segment, value};
use super::peer::{ALL, Commands, Peer, can_start_by, error_when_gone, here, provider};
use testkit::{Outcome, says_not_found};

/// Starts a peer to which the segment is handed over, with this description of a descriptor.
fn started_with(
    segment: &StdShMem,
    command: &mut Command,
    text: impl AsRef<OsStr>,
) -> Outcome<Peer> {
    segment.hand_over(command, NAME)?;
    command.env(FD_NAME, text);
    Ok(Peer::started(command))
}

pub(crate) fn forged_numbers_are_left_alone() -> Outcome {
    for mechanism in here(WITH_FD) {
        let (ours, other) = (segment(mechanism)?, segment(mechanism)?);
        let mut command = Peer::command();
        ours.inherit(&mut command, NAME)?;
        let genuine = value(&command, FD_NAME).ok_or("no variable")?;
        let [number, device, inode, id] = genuine.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("{genuine:?}").into());
        };
        let object = format!("{device}:{inode}:{id}");
        let mut texts = vec![
            String::new(),
            "hello".to_owned(),
            number.to_owned(),
            format!("{number}:{device}:{inode}"),
            format!("{number}:{device}:x:{id}"),
            format!(" {genuine}"),
            format!("{genuine}:"),
            format!("99999999999999999999:{object}"),
            format!("{number}:99999999999999999999:{inode}:{id}"),
        ];
        for number in [
            "-1",
            "-100",
            "0",
            "1",
            "2",
            "1000000",
            "2147483647",
            "2147483648",
        ] {
            texts.push(format!("{number}:{object}"));
        }
        for text in texts {
            let mut peer = started_with(&ours, &mut Peer::command(), &text)?;
            assert_eq!(peer.open_from_env(NAME)?, 5000, "{text:?}");
            assert_eq!(peer.ask("fd count")?, "1 0", "{text:?}");
            for stream in 0..3 {
                let is_open = peer.ask(format!("fd is-open {stream}"))?;
                assert_eq!(is_open, "true", "{text:?}");
            }
        }
        let mut peer = started_with(&ours, &mut Peer::command(), OsStr::from_bytes(b"3:\xff"))?;
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        // The number of another segment, which the peer inherits under another name. What is said about
        // the object is true of our segment, or, except for the id, of the other.
        let mut command = Peer::command();
        other.inherit(&mut command, "SHMEM_TEST_OTHER")?;
        let of_other = value(&command, "SHMEM_TEST_OTHER_FD").ok_or("no variable")?;
        let (number, its_object) = of_other.split_once(':').ok_or("no number")?;
        let with_our_id = its_object.replace(other.id().as_str(), id);
        for object in [&object, &with_our_id] {
            let text = format!("{number}:{object}");
            let mut peer = started_with(&ours, &mut command, &text)?;
            assert_eq!(peer.open_from_env(NAME)?, 5000, "{text}");
            peer.put(0, 9)?;
            assert_eq!((ours[0], other[0]), (9, 0), "{text}");
            assert_eq!(peer.ask("fd count")?, "2 1", "{text}");
            assert_eq!(peer.ask(format!("fd is-open {number}"))?, "true");
            peer.put(0, 0)?;
        }
    }
    Ok(())
}

/// Before and after that, the number may be one that the program has chosen itself.
pub(crate) fn a_number_is_taken_over_at_the_first_call_or_never() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        let genuine = value(&command, FD_NAME).ok_or("no variable")?;
        let (number, object) = genuine.split_once(':').ok_or("no number")?;
        let forged = format!("77:{object}");
        let expected = |peer: &mut Peer, count| -> Outcome {
            assert_eq!(peer.open_from_env(NAME)?, 5000);
            assert_eq!(peer.ask("fd count")?, count, "{mechanism}");
            Ok(())
        };
        // The number is not open at the first call.
        let mut peer = started_with(&segment, &mut Peer::command(), &forged)?;
        expected(&mut peer, "1 0")?;
        peer.execute("inherit occupy 77 inherited")?;
        expected(&mut peer, "3 1")?;
        assert_eq!(peer.ask("fd is-open 77")?, "true");

        // The first call has taken it over.
        let mut peer = Peer::started(&mut command);
        expected(&mut peer, "1 0")?;
        peer.execute(format!("inherit occupy {number} inherited"))?;
        expected(&mut peer, "3 1")?;
        assert_eq!(peer.ask(format!("fd is-open {number}"))?, "true");

        // The program has opened it, so that it is close-on-exec, or it is another object.
        for (what, count) in [("own", "3 0"), ("foreign", "2 0")] {
            let mut peer = started_with(&segment, &mut Peer::command(), &forged)?;
            peer.open(&segment.id())?;
            peer.execute(format!("inherit occupy 77 {what}"))?;
            expected(&mut peer, count)?;
            assert_eq!(peer.get(4999)?, 42);
            assert_eq!(peer.ask("fd is-open 77")?, "true");
        }
    }
    Ok(())
}

/// What an earlier segment of the same name has left in the environment is not used.
pub(crate) fn a_later_hand_over_replaces_it() -> Outcome {
    for mechanism in here(WITH_FD) {
        let (first, second) = (segment(mechanism)?, provider(mechanism)?.new_shmem(100)?);
        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        second.hand_over(&mut command, NAME)?;
        assert_eq!(value(&command, FD_NAME), None);
        assert_eq!(Peer::started(&mut command).open_from_env(NAME)?, 100);

        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        peer.make(mechanism, 100)?;
        assert_ne!(peer.ask(format!("inherit variable {FD_NAME}"))?, "");
        peer.execute(format!("write-env {NAME}"))?;
        assert_eq!(peer.ask(format!("inherit variable {FD_NAME}"))?, "");
        assert_eq!(peer.open_from_env(NAME)?, 100);

        // By a program that only knows the first two variables.
        let mut command = Peer::command();
        first.inherit(&mut command, NAME)?;
        command.env(NAME, second.id().as_str());
        command.env(format!("{NAME}_SIZE"), "100");
        assert_eq!(Peer::started(&mut command).open_from_env(NAME)?, 100);
    }
    Ok(())
}

pub(crate) fn the_second_call_uses_the_id() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        let mut command = Peer::command();
        segment.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        for count in 1..4 {
            assert_eq!(peer.open_from_env(NAME)?, 5000);
            assert_eq!(peer.ask("fd count")?, format!("{count} 0"), "{mechanism}");
        }
        // Also if the program lets others inherit what it has attached to.
        peer.execute("inherit allow")?;
        assert_eq!(peer.open_from_env(NAME)?, 5000);
        assert_eq!(peer.ask("fd count")?, "4 3", "{mechanism}");
    }
    // Without the parent, a memfd is found in the process itself.
    if here(ALL).contains(&"memfd") {
        let mut command = Peer::command();
        segment("memfd")?.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        drop(command);
        peer.open_from_env(NAME)?;
        peer.open_from_env(NAME)?;
        assert_eq!(peer.get(4999)?, 42);
    }
    Ok(())
}

pub(crate) fn threads_attach_at_the_same_time() -> Outcome {
    for mechanism in here(WITH_FD) {
        let segment = segment(mechanism)?;
        for _ in 0..10 {
            let mut command = Peer::command();
            segment.inherit(&mut command, NAME)?;
            let mut peer = Peer::started(&mut command);
            assert_eq!(peer.ask(format!("inherit threads {NAME}"))?, "8");
            assert_eq!(peer.ask("fd count")?, "8 0", "{mechanism}");
        }
    }
    Ok(())
}

pub(crate) fn the_error_names_both_reasons() -> Outcome {
    // A program on the way closes the descriptor.
    let script = "fd=${SHMEM_TEST_INHERITED_FD%%:*}; eval \"exec $fd>&-\"; exec \"$@\"";
    // The shell of Debian has descriptors of one digit only.
    let wrapper = ["bash", "-c", script, "bash"];
    can_start_by(&["bash", "-c", "exec \"$@\"", "bash"])?;
    for mechanism in here(WITH_FD) {
        let mut command = command_by(&wrapper);
        let segment = segment(mechanism)?;
        let id = segment.id();
        segment.inherit(&mut command, NAME)?;
        let mut peer = Peer::started(&mut command);
        drop((segment, command));
        error_when_gone(|| Peer::start().open(&id));
        let error = peer.open_from_env(NAME).expect_err("nobody holds it");
        assert!(error.contains(": no "), "{error}");
        let reason = "SHMEM_TEST_INHERITED_FD\": the descriptor is not open";
        assert!(error.contains(reason), "{error}");
    }
    Ok(())
}

pub(crate) fn a_segment_that_was_dropped_too_early_is_an_error_that_says_so() -> Outcome {
    for mechanism in here(&["memfd", "sysv", "posix"]) {
        let mut command = Peer::command();
        // A temporary.
        provider(mechanism)?
            .new_shmem(64)?
            .hand_over(&mut command, NAME)?;
        let error = error_when_gone(|| Peer::started(&mut command).open_from_env(NAME));
        assert!(says_not_found(&error), "{error}");
        let cure = "the process that handed it over no longer holds it, so keep the segment until the \
                    child has attached";
        // It comes before the details.
        assert!(error.find(cure).is_some_and(|at| at < 100), "{error}");
    }
    Ok(())
}
