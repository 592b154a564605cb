//! `channel::Ring` between processes.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::channel::Ring;
use shmem_providers::channel::{RingReader, RingWriter};
use shmem_providers::wake::Wait;
use shmem_providers::{Error, ErrorKind, ShMem, ShMemId, ShMemProvider, StdShMemProvider, Typed};

use super::peer::{Answer, Peer};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, repetitions};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const LONG: Duration = Duration::from_secs(50);

/// The index of the word that says whether a reader sleeps, in the segment.
const WAITERS: usize = 48;

fn wait() -> Wait {
    Wait::new().timeout(LONG)
}

/// Returns numbers that are the same in every process.
fn random(number: u32) -> u32 {
    let mixed = number.wrapping_mul(0x9e37_79b9).rotate_left(13) ^ number;
    mixed.wrapping_mul(0x85eb_ca6b) >> 7
}

/// Returns the message of a number: its length and its content depend on the number.
fn message(number: u32) -> Vec<u8> {
    let [fill, ..] = random(number).to_le_bytes();
    let mut message = vec![fill; 8 + random(number) as usize % 200];
    let end = message.len() - 4;
    message[..4].copy_from_slice(&number.to_le_bytes());
    message[end..].copy_from_slice(&number.to_be_bytes());
    message
}

/// Returns the number of a message, all of whose bytes must be there.
fn number(found: &[u8]) -> Result<u32, String> {
    let first = found.first_chunk().ok_or("the message is too short")?;
    let number = u32::from_le_bytes(*first);
    if found == message(number) {
        Ok(number)
    } else {
        Err(format!("message {number} is garbled: {found:?}"))
    }
}

fn create(capacity: usize) -> Result<Ring, Error> {
    Ring::create(&mut StdShMemProvider::new()?, capacity)
}

fn write(writer: &mut RingWriter, from: u32, end: u32) -> Answer {
    for number in from..end {
        if !writer.send(&message(number), wait())? {
            return Err("full".into());
        }
    }
    Ok(String::new())
}

/// Reads messages until `end`. `seen` is the number of messages that some reader has used; the first message
/// may be one that the previous reader has used, but not released.
fn read(reader: &mut RingReader, seen: &AtomicU32, end: u32) -> Answer {
    let mut is_first = true;
    while seen.load(Relaxed) < end {
        let message = reader.peek(wait())?.ok_or("empty")?;
        let found = number(&message.to_vec())?;
        let expected = seen.load(Relaxed);
        if found == expected {
            seen.store(found + 1, Relaxed);
        } else if !(is_first && found + 1 == expected) {
            return Err(format!("message {found} instead of {expected}").into());
        }
        is_first = false;
        message.release()?;
    }
    Ok(String::new())
}

/// The commands of the second process.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let mut provider = StdShMemProvider::new()?;
    let mut open = |id: &str| Ring::open(&mut provider, ShMemId::from_string(id));
    match *words {
        ["write", id, from, end] => write(&mut open(id)?.writer()?, from.parse()?, end.parse()?),
        ["read", id, seen, end] => {
            let mut reader = open(id)?.reader()?;
            let seen = Typed::open(&mut provider, ShMemId::from_string(seen))?;
            read(&mut reader, &seen, end.parse()?)
        }
        ["sleep", id] => {
            let mut reader = open(id)?.reader()?;
            let found = reader.peek(wait().spins(0))?.ok_or("empty")?.to_vec();
            Ok(number(&found)?.to_string())
        }
        ["quietly", id] => {
            let ring = open(id)?;
            let mut writer = ring.writer()?;
            let mut reader = ring.reader()?;
            let mut found = Vec::new();
            for number in 0..1000 {
                assert!(writer.send(&message(number), wait())?);
                assert!(reader.recv(&mut found, wait())?);
                assert_eq!(found, message(number));
            }
            Ok(String::new())
        }
        ["loudly", id] => {
            let mut writer = open(id)?.writer()?;
            Ok(match writer.try_send(&message(0)) {
                Ok(is_sent) => is_sent.to_string(),
                Err(error) => error.kind().to_string(),
            })
        }
        ["env", name] => {
            let ring = Ring::existing_from_env(&mut provider, name)?;
            let mut found = Vec::new();
            assert!(ring.reader()?.recv(&mut found, wait())?);
            Ok(number(&found)?.to_string())
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}

pub(crate) fn messages_arrive_whole_and_in_order() -> Outcome {
    for (capacity, count) in [(512, 20_000), (64 << 10, 80_000)] {
        let count = repetitions(count);
        let ring = create(capacity)?;
        let mut reader = ring.reader()?;
        let mut peer = Peer::start();
        peer.send(&format!("ring write {} 0 {count}", ring.id()));
        let mut found = Vec::new();
        for expected in 0..count {
            assert!(reader.recv(&mut found, wait())?, "empty at {expected}");
            assert_eq!(number(&found)?, expected);
        }
        assert!(!reader.try_recv(&mut found)?);
        peer.answer_to("write")?;
    }
    Ok(())
}

pub(crate) fn a_killed_writer_is_replaced() -> Outcome {
    let ring = create(1024)?;
    let mut reader = ring.reader()?;
    let mut found = Vec::new();
    let mut next = 0;
    for round in 0..repetitions(40) {
        let mut peer = Peer::start();
        peer.send(&format!("ring write {} {next} {}", ring.id(), u32::MAX));
        for _ in 0..=random(round) % 1000 {
            assert!(reader.recv(&mut found, wait())?, "empty at {next}");
            assert_eq!(number(&found)?, next);
            next += 1;
        }
        peer.kill();
        while reader.try_recv(&mut found)? {
            assert_eq!(number(&found)?, next);
            next += 1;
        }
    }
    // A writer and a reader in this process go on as well.
    let mut writer = ring.writer()?;
    assert!(writer.try_send(&message(next))?);
    assert!(reader.try_recv(&mut found)?);
    assert_eq!(number(&found)?, next);
    Ok(())
}

pub(crate) fn a_killed_reader_is_replaced() -> Outcome {
    let ring = create(1024)?;
    let seen = Typed::<AtomicU32>::create(&mut StdShMemProvider::new()?, |_| {})?;
    let end = repetitions(20_000);
    let start = || {
        let mut peer = Peer::start();
        peer.send(&format!("ring read {} {} {end}", ring.id(), seen.id()));
        peer
    };
    let mut writer = ring.writer()?;
    let mut peer = start();
    let mut kill_at = 300;
    for number in 0..end {
        if number == kill_at {
            assert_eq!(peer.answered(), None);
            peer.kill();
            peer = start();
            kill_at += 1 + random(number) % 1000;
        }
        assert!(writer.send(&message(number), wait())?, "full at {number}");
    }
    peer.answer_to("read")?;
    assert_eq!(seen.load(Relaxed), end);
    assert!(ring.reader()?.try_peek()?.is_none());
    Ok(())
}

pub(crate) fn a_reader_killed_in_its_sleep_is_no_burden() -> Outcome {
    let ring = create(1024)?;
    let mut sleeper = Peer::start();
    sleeper.send(&format!("ring sleep {}", ring.id()));
    sleeper.kill();
    let mut writer = ring.writer()?;
    assert!(writer.try_send(&message(7))?);
    // It takes no message, so all readers see the first one.
    for _ in 0..2 {
        let mut sleeper = Peer::start();
        assert_eq!(sleeper.ask(format!("ring sleep {}", ring.id()))?, "7");
    }
    Ok(())
}

pub(crate) fn full_and_empty_rings_end_waits_in_time() -> Outcome {
    let short = Wait::new().timeout(Duration::from_millis(20));
    let ring = create(1024)?;
    let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
    let mut found = vec![9];
    let start = Instant::now();
    assert!(!reader.recv(&mut found, short)?);
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert_eq!(found, [9], "nothing was received");
    assert_eq!(reader.recv_into(&mut found, short)?, None);
    assert!(reader.drain(short)?.is_none());

    while writer.try_send(&[1; 100])? {}
    let start = Instant::now();
    assert!(!writer.send(&[2; 100], short)?);
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(writer.reserve(100, short)?.is_none());
    let many = [&[2_u8; 100][..]; 3];
    assert_eq!(writer.send_batch(many, short)?, 0);
    Ok(())
}

pub(crate) fn there_are_no_system_calls_unless_the_other_side_sleeps() -> Outcome {
    let ring = create(1 << 20)?;
    let mut peer = Peer::start();
    forbid_in(&mut peer, "EPERM", "futex")?;
    peer.execute(format!("ring quietly {}", ring.id()))?;

    let ring = create(1024)?;
    let mut peer = Peer::start();
    forbid_in(&mut peer, "EPERM", "futex")?;
    let mut sleeper = Peer::start();
    sleeper.send(&format!("ring sleep {}", ring.id()));
    let segment = StdShMemProvider::new()?.shmem_from_id(ring.id())?.share();
    let announcements = segment.view::<AtomicU32>(4 * WAITERS)?;
    let end = Instant::now() + LONG;
    while announcements.load(Relaxed) & 1 == 0 {
        assert!(Instant::now() < end, "nobody has announced itself");
        thread::yield_now();
    }
    let refused = peer.ask(format!("ring loudly {}", ring.id()))?;
    assert_eq!(refused, ErrorKind::PermissionDenied.name());
    // The next writer wakes those whom the previous one did not.
    drop(ring.writer()?);
    assert_eq!(sleeper.answer_to("sleep")?, "0");
    Ok(())
}

pub(crate) fn started_programs_find_it_in_their_environment() -> Outcome {
    let ring = create(1024)?;
    let mut writer = ring.writer()?;
    for is_inherited in [false, true] {
        let mut command = Peer::command();
        if is_inherited {
            ring.inherit(&mut command, "RING")?;
        } else {
            ring.hand_over(&mut command, "RING")?;
        }
        let mut peer = Peer::started(&mut command);
        assert!(writer.try_send(&message(5))?);
        assert_eq!(peer.ask("ring env RING")?, "5");
    }
    Ok(())
}
