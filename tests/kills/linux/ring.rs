//! Rings. In each state the other side sleeps, or is about to.

use shmem_providers::channel::Ring;
use shmem_providers::{ShMemProvider, StdShMemProvider};
use testkit::Outcome;
use testkit::stepper::{At, sweep};

use super::{Bystander, SLEEP};

pub(crate) fn a_message_of_a_killed_writer_is_whole_or_not_there() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let ring = Ring::create(&mut StdShMemProvider::new()?, 256)?;
            ring.writer()?.send(b"first", SLEEP)?;
            let reader = ring.clone();
            let asleep = Bystander::start(move || {
                let (mut reader, mut message, mut all) = (reader.reader()?, Vec::new(), Vec::new());
                while all.last().map(Vec::as_slice) != Some(&b"third"[..]) {
                    if !reader.recv(&mut message, SLEEP)? {
                        return Ok(false);
                    }
                    all.push(message.clone());
                }
                let all: Vec<_> = all.iter().map(Vec::as_slice).collect();
                Ok(all == [&b"first"[..], b"third"] || all == [&b"first"[..], b"second", b"third"])
            })?;
            Ok((ring, asleep))
        },
        |(ring, _), doomed| {
            let mut writer = ring.writer()?;
            doomed.during(|| writer.send(b"second", SLEEP))?;
            Ok(())
        },
        |(ring, asleep)| {
            ring.writer()?.send(b"third", SLEEP)?;
            assert!(asleep.has_succeeded()?, "the reader has got something else");
            Ok("whole")
        },
    )?;
    assert_eq!(report.phases(), ["whole"]);
    Ok(())
}

pub(crate) fn what_a_killed_writer_has_committed_is_read_once() -> Outcome {
    let report = sweep(
        At::Instructions,
        || Ok(Ring::create(&mut StdShMemProvider::new()?, 256)?),
        |ring, doomed| {
            let mut writer = ring.writer()?;
            doomed.during(|| writer.send(b"second", SLEEP))?;
            Ok(())
        },
        |ring| {
            let (mut reader, mut message) = (ring.reader()?, Vec::new());
            let found = match reader.try_recv(&mut message)? {
                false => "old",
                true if message == b"second" => "new",
                true => return Err(format!("{message:?}").into()),
            };
            ring.writer()?.send(b"third", SLEEP)?;
            assert!(reader.try_recv(&mut message)? && message == b"third");
            assert!(!reader.try_recv(&mut message)?);
            Ok(found)
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}

pub(crate) fn a_killed_reader_has_released_a_message_or_the_next_gets_it() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let ring = Ring::create(&mut StdShMemProvider::new()?, 256)?;
            let mut writer = ring.writer()?;
            let mut sent = 0_u8;
            while writer.try_send(&[sent; 60])? {
                sent += 1;
            }
            drop(writer);
            assert!(sent >= 2, "the ring has too few messages");
            let full = ring.clone();
            let asleep = Bystander::start(move || full.writer()?.send(&[sent; 60], SLEEP))?;
            Ok((ring, sent, asleep))
        },
        |(ring, ..), doomed| {
            let mut reader = ring.reader()?;
            doomed.during(|| match reader.peek(SLEEP)? {
                Some(message) => message.release(),
                None => Ok(()),
            })?;
            Ok(())
        },
        |(ring, sent, asleep)| {
            let (mut reader, mut message) = (ring.reader()?, Vec::new());
            let mut received = Vec::new();
            while received.last() != Some(&sent) {
                assert!(reader.recv(&mut message, SLEEP)?, "{received:?}, then none");
                assert!(message == [message[0]; 60]);
                received.push(message[0]);
            }
            assert!(asleep.has_succeeded()?, "the writer was not woken");
            let from = received[0];
            assert_eq!(received, (from..=sent).collect::<Vec<_>>());
            Ok(["kept", "released"][usize::from(from)])
        },
    )?;
    assert_eq!(report.phases(), ["kept", "released"]);
    Ok(())
}
