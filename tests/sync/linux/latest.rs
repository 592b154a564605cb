//! `channel::Latest` between processes.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Acquire;
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::channel::{Latest, LatestReader, Seen};
use shmem_providers::wake::Wait;
use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use super::peer::{Answer, Peer};
use testkit::{Outcome, repetitions};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const LONG: Duration = Duration::from_secs(50);

const MAX_LEN: usize = 1 << 20;
/// The lengths of values, one after the other.
const LENGTHS: [usize; 8] = [64, 4096, 64, 1000, 64 << 10, 64, 4096, MAX_LEN];
/// The length of the last value.
const END: usize = 8;

/// The index of the word that says who waits, in the segment.
const WAITERS: usize = 32;

/// Returns the bytes of a value: a pattern that depends on its number everywhere.
fn pattern(sequence: u64, len: usize) -> Vec<u8> {
    let word = |at: u64| (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at).to_ne_bytes();
    let mut bytes = (0..8)
        .flat_map(word)
        .collect::<Vec<_>>()
        .repeat(len / 64 + 1);
    bytes.truncate(len);
    bytes
}

#[track_caller]
fn assert_whole(value: &[u8], seen: Seen) {
    assert_eq!(value.len(), seen.len);
    // Not by `assert_eq`, which would print a megabyte.
    assert!(
        value == pattern(seen.sequence, seen.len),
        "the value of number {} is torn",
        seen.sequence
    );
}

fn wait() -> Wait {
    Wait::new().timeout(LONG)
}

pub(crate) fn no_reader_of_a_fast_writer_gets_torn_values() -> Outcome {
    for (published, max_len) in [(100_000, 64), (2_000, MAX_LEN)] {
        let published = u64::from(repetitions(published));
        let latest = Latest::create(&mut StdShMemProvider::new()?, max_len)?;
        let id = latest.id();
        let mut readers: Vec<_> = (0..4).map(|_| Peer::start()).collect();
        for reader in &mut readers {
            reader.execute(format!("latest open {id}"))?;
        }
        for reader in &mut readers {
            reader.send("latest follow");
        }
        let mut writer = Peer::start();
        let last: u64 = writer.ask_for(format!("latest publish {id} {published}"))?;
        assert_eq!(last, published);
        for reader in &mut readers {
            let accounted: u64 = reader.answer_to("latest follow")?.parse()?;
            assert_eq!(accounted, published);
        }
    }
    Ok(())
}

pub(crate) fn killed_writers_are_replaced() -> Outcome {
    let latest = Latest::create(&mut StdShMemProvider::new()?, MAX_LEN)?;
    let id = latest.id();
    let mut readers: Vec<_> = (0..2).map(|_| Peer::start()).collect();
    for reader in &mut readers {
        reader.execute(format!("latest open {id}"))?;
        reader.send("latest follow");
    }
    let (mut reader, mut value) = (latest.reader(), Vec::new());
    let mut last = 0;
    let mut random = u64::from(std::process::id());
    for _ in 0..repetitions(200) {
        let mut writer = Peer::start();
        writer.send(&format!("latest publish {id} {}", u64::MAX));
        // It has taken over.
        let seen = reader.next(&mut value, wait())?.ok_or("no value")?;
        assert!(last < seen.sequence, "{seen:?} after {last}");
        assert_whole(&value, seen);
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let end = Instant::now() + Duration::from_nanos(random >> 43);
        while Instant::now() < end {}
        writer.kill();
        let seen = reader.read(&mut value)?.ok_or("no value")?;
        assert_whole(&value, seen);
        last = seen.sequence;
    }
    let last = latest.writer().publish(&pattern(last + 1, END))?;
    for reader in &mut readers {
        let accounted: u64 = reader.answer_to("latest follow")?.parse()?;
        assert_eq!(accounted, last);
    }
    Ok(())
}

pub(crate) fn a_writer_killed_in_the_middle_leaves_the_last_value() -> Outcome {
    let latest = Latest::create_with_slots(&mut StdShMemProvider::new()?, MAX_LEN, 2)?;
    let (mut reader, mut value) = (latest.reader(), Vec::new());
    for sequence in 1..10 {
        let mut writer = Peer::start();
        writer.send(&format!("latest stop-in-the-middle {}", latest.id()));
        // It has garbled the slot of the next value, and is stopped there.
        until(|| is_stopped(&writer));
        let seen = reader.read(&mut value);
        writer.kill();
        if let Some(seen) = seen? {
            assert_eq!(seen.sequence, sequence - 1);
            assert_whole(&value, seen);
        } else {
            assert_eq!(sequence, 1);
        }
        let published = latest.writer().publish(&pattern(sequence, 5000))?;
        assert_eq!(published, sequence);
        let seen = reader.next(&mut value, wait())?.ok_or("no value")?;
        assert_whole(&value, seen);
        assert_eq!(seen.missed, 0);
    }
    Ok(())
}

pub(crate) fn a_reader_killed_in_its_sleep_is_no_burden() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let latest = Latest::create(&mut provider, 64)?;
    let segment = provider.shmem_from_id(latest.id())?.share();
    let waiters = &segment.access().as_atomic_u32()?[WAITERS];
    let mut peers: Vec<_> = (0..3).map(|_| Peer::start()).collect();
    for peer in &mut peers {
        peer.execute(format!("latest open {}", latest.id()))?;
    }
    let killed = peers.pop().ok_or("no peer")?;
    let mut killed = Some(killed);
    for sequence in 1..20 {
        for peer in peers.iter_mut().chain(&mut killed) {
            peer.send("latest next");
        }
        until(|| waiters.load(Acquire) & 1 != 0);
        if let Some(peer) = killed.take() {
            peer.kill();
        }
        let published = latest.writer().publish(&pattern(sequence, 64))?;
        assert_eq!(published, sequence);
        for peer in &mut peers {
            assert_eq!(peer.answer_to("latest next")?, sequence.to_string());
        }
    }
    // One that has looked again after it announced itself is still announced. Nobody is afterwards.
    latest.writer().publish(&[])?;
    assert_eq!(waiters.load(Acquire) & 1, 0);
    Ok(())
}

pub(crate) fn started_programs_find_it_in_their_environment() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let latest = Latest::create(&mut provider, 64)?;
    latest.writer().publish(&pattern(1, 64))?;
    let mut handed_over = Peer::command();
    latest.hand_over(&mut handed_over, "LATEST")?;
    let mut inherited = Peer::command();
    latest.inherit(&mut inherited, "LATEST")?;
    for command in [&mut handed_over, &mut inherited] {
        let mut peer = Peer::started(command);
        peer.execute("latest open-env LATEST")?;
        assert_eq!(peer.ask("latest next")?, "1");
    }
    Ok(())
}

/// Waits until another process has established a condition.
#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "the condition has not become true");
        thread::yield_now();
    }
}

fn is_stopped(peer: &Peer) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", peer.pid()));
    stat.is_ok_and(|stat| stat.contains(") T "))
}

thread_local! {
    static READER: RefCell<Option<LatestReader>> = const { RefCell::new(None) };
}

/// What a peer does.
pub(crate) fn execute(command: &[&str]) -> Answer {
    let mut provider = StdShMemProvider::new()?;
    let mut open = |id: &str| Latest::open(&mut provider, ShMemId::from_string(id));
    match *command {
        ["open", id] => {
            keep(&open(id)?);
            Ok(String::new())
        }
        ["open-env", name] => {
            let mut provider = StdShMemProvider::new()?;
            keep(&Latest::existing_from_env(&mut provider, name)?);
            Ok(String::new())
        }
        ["follow"] => with_reader(follow),
        ["next"] => with_reader(|reader| {
            let mut value = Vec::new();
            let wait = wait().spins(0);
            let seen = reader.next(&mut value, wait)?.ok_or("no wake-up")?;
            assert_whole(&value, seen);
            Ok(seen.sequence.to_string())
        }),
        ["publish", id, last] => publish(&open(id)?, last.parse()?),
        ["stop-in-the-middle", id] => {
            open(id)?.writer().write(MAX_LEN, |access| {
                access.fill(0xee);
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                )
            })??;
            Ok(String::new())
        }
        _ => Err(format!("unknown command {command:?}").into()),
    }
}

fn keep(latest: &Latest) {
    READER.set(Some(latest.reader()));
}

fn with_reader(run: impl FnOnce(&mut LatestReader) -> Answer) -> Answer {
    READER.with_borrow_mut(|reader| run(reader.as_mut().ok_or("nothing is open")?))
}

/// Reads until the last value, and returns the number of values that were seen or missed.
fn follow(reader: &mut LatestReader) -> Answer {
    let (mut value, mut last, mut accounted) = (Vec::new(), 0, 0);
    loop {
        let seen = match reader.next(&mut value, wait()) {
            // The writer has run whenever this process was interrupted.
            Err(Error::Lapped { .. }) => continue,
            seen => seen?.ok_or("no wake-up has arrived")?,
        };
        assert!(last < seen.sequence, "{seen:?} after {last}");
        assert_whole(&value, seen);
        last = seen.sequence;
        accounted += 1 + seen.missed;
        if seen.len == END {
            return Ok(accounted.to_string());
        }
    }
}

/// Publishes values as fast as possible until one has the number `last`, and returns that.
fn publish(latest: &Latest, last: u64) -> Answer {
    let mut newest = latest.reader();
    let newest = newest
        .read_with(|_| ())?
        .map_or(0, |((), seen)| seen.sequence);
    let lengths = LENGTHS.map(|len| len.min(latest.max_len()));
    let mut writer = latest.writer();
    for (sequence, len) in (newest + 1..=last).zip(lengths.into_iter().cycle()) {
        let len = if sequence == last { END } else { len };
        assert_eq!(writer.publish(&pattern(sequence, len))?, sequence);
    }
    Ok(last.to_string())
}
