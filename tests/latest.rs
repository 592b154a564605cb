//! `channel::Latest` in one process: everything here is safe code. `tests/sync/` has the second processes.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use shmem_providers::channel::{Latest, LatestReader};
use shmem_providers::error::TypeMismatch;
use shmem_providers::wake::Wait;
use shmem_providers::{Error, ErrorKind, NopShMem, NopShMemProvider, ShMem, ShMemProvider, Shared};

const NOW: Wait = Wait::new().spins(1).timeout(Duration::ZERO);

fn latest(max_len: usize, slots: usize) -> (Latest, Shared<NopShMem>) {
    let mut segment = NopShMemProvider
        .new_shmem(Latest::size(max_len, slots))
        .unwrap();
    // Whatever was there before.
    segment.fill(0xff);
    Latest::initialise(&mut segment, max_len, slots).unwrap();
    let shared = segment.share();
    (Latest::in_segment(&shared).unwrap(), shared)
}

fn words(shared: &Shared<NopShMem>) -> &[AtomicU32] {
    shared.access().as_atomic_u32().unwrap()
}

#[test]
fn slots_are_a_power_of_two_and_values_are_aligned() {
    for (asked, slots) in [(0, 2), (2, 2), (3, 4), (4, 4), (65_537, 65_536)] {
        let created = Latest::create_with_slots(&mut NopShMemProvider, 1, asked).unwrap();
        assert_eq!(created.slots(), slots);
        assert_eq!(created.description().size, 192 + slots * 128);
        assert_eq!(created.description().size, Latest::size(1, asked));
    }
    let created = Latest::create(&mut NopShMemProvider, 65).unwrap();
    assert_eq!((created.slots(), created.max_len()), (Latest::SLOTS, 65));
    assert_eq!(created.description().size, 192 + 4 * (64 + 128));
    for max_len in [(u32::MAX as usize).saturating_add(1), usize::MAX] {
        assert_eq!(Latest::size(max_len, 2), usize::MAX);
        let error = Latest::create(&mut NopShMemProvider, max_len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSize);
    }
    let short = Latest::initialise(&mut [0; 500], 64, 4).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::OutOfBounds);
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    let (latest, _) = latest(10, 2);
    let mut writer = latest.writer();
    assert_eq!(writer.publish(&[1; 10]), Ok(1));
    assert_eq!(
        writer.publish(&[2; 11]),
        Err(Error::OutOfBounds {
            offset: 0,
            len: 11,
            size: 10
        })
    );
    assert!(writer.write(usize::MAX, |_| ()).is_err());
    let mut value = Vec::new();
    assert_eq!(latest.reader().read(&mut value).unwrap().unwrap().len, 10);
    assert_eq!(value, [1; 10]);
}

#[test]
fn a_writer_that_panics_publishes_nothing() {
    let (latest, _) = latest(10, 2);
    latest.writer().publish(b"whole").unwrap();
    let mut writer = latest.writer();
    let panicked = thread::spawn(move || {
        writer.write(10, |access| {
            access.fill(9);
            panic!("on purpose");
        })
    });
    assert!(panicked.join().is_err());
    let (mut reader, mut value) = (latest.reader(), Vec::new());
    assert_eq!(reader.read(&mut value).unwrap().unwrap().sequence, 1);
    assert_eq!(value, b"whole");
    assert_eq!(latest.writer().publish(b"next"), Ok(2));
    assert_eq!(reader.read(&mut value).unwrap().unwrap().sequence, 2);
    assert_eq!(value, b"next");
}

#[test]
fn a_lapped_reader_reads_again() {
    let (latest, _) = latest(8, 2);
    latest.writer().publish(&[1; 8]).unwrap();
    let mut laps = 3;
    let read = latest.reader().read_with(|access| {
        let before = access.load_u8(0, Relaxed).unwrap();
        if laps > 0 {
            laps -= 1;
            latest.writer().publish(&[20; 8]).unwrap();
            latest.writer().publish(&[before + 1; 8]).unwrap();
        }
        (before, access.load_u8(7, Relaxed).unwrap())
    });
    let (bytes, seen) = read.unwrap().unwrap();
    assert_eq!((bytes, seen.sequence), ((4, 4), 7));
    // With more slots, one more value does no harm.
    let always = latest.reader().read_with(|_| {
        latest.writer().publish(&[1]).unwrap();
        latest.writer().publish(&[1]).unwrap();
    });
    assert_eq!(always.unwrap_err().kind(), ErrorKind::Lapped);
    let once = latest.reader().read_with(|access| {
        latest.writer().publish(&[1]).unwrap();
        access.len()
    });
    assert_eq!(once.unwrap().unwrap().0, 1);
}

#[test]
fn records_have_the_length_of_their_type() {
    let (latest, _) = latest(12, 2);
    assert!(latest.reader().read_record::<u32>().unwrap().is_none());
    latest.writer().publish_record(&[1_u32, 2, 3]).unwrap();
    let mut reader = latest.reader();
    assert_eq!(reader.read_record::<u64>(), Err(Error::InvalidValue));
    let (record, seen) = reader.read_record::<[u32; 3]>().unwrap().unwrap();
    assert_eq!((record, seen.len), ([1, 2, 3], 12));
    assert_eq!(reader.next_record::<[u32; 3]>(NOW), Ok(None));
}

#[test]
fn other_segments_are_refused() {
    let other = NopShMemProvider.new_shmem(4096).unwrap().share();
    let found = Latest::in_segment(&other).unwrap_err();
    let mismatch = TypeMismatch::NotTyped;
    let id = other.id();
    assert_eq!(found, Error::WrongType { id, mismatch });
    let small = NopShMemProvider.new_shmem(60).unwrap().share();
    assert!(Latest::in_segment(&small).is_err());

    let (_, shared) = latest(100, 4);
    let words = words(&shared);
    let error = |word: usize, value| {
        let before = words[word].swap(value, Relaxed);
        let error = Latest::in_segment(&shared).unwrap_err().kind();
        words[word].store(before, Relaxed);
        error
    };
    assert_eq!(error(1, 2), ErrorKind::WrongType);
    assert_eq!(error(2, 129), ErrorKind::Corrupt);
    assert_eq!(error(2, u32::MAX), ErrorKind::Corrupt);
    for slots in [0, 1, 3, 5, 8, 1 << 16, 1 << 17, u32::MAX] {
        assert_eq!(error(3, slots), ErrorKind::Corrupt);
    }
    Latest::in_segment(&shared).unwrap();
}

#[test]
fn an_overwritten_word_is_an_error() {
    let (latest, shared) = latest(8, 2);
    latest.writer().publish(&[5; 8]).unwrap();
    let mut reader = latest.reader();
    let mut value = Vec::new();
    // The newest number; state and length in the slot of number 1.
    for (word, found) in [(16, 3), (16, u32::MAX), (64, 3), (66, 9), (66, u32::MAX)] {
        let before = words(&shared)[word].swap(found, Relaxed);
        let error = reader.read(&mut value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "word {word}");
        assert!(value.len() <= 8);
        words(&shared)[word].store(before, Relaxed);
    }
    assert_eq!(reader.read(&mut value).unwrap().unwrap().sequence, 1);
}

#[test]
fn numbers_have_64_bits() {
    let (latest, shared) = latest(8, 2);
    // As after 2^32 - 2 values.
    let low = u32::MAX - 1;
    for (word, value) in [(16, low), (48, low), (64, low - 1)] {
        words(&shared)[word].store(value, Relaxed);
    }
    let mut reader = latest.reader();
    let mut value = Vec::new();
    for number in 0..4_u64 {
        let published = latest.writer().publish(&number.to_ne_bytes()).unwrap();
        assert_eq!(published, u64::from(u32::MAX) + number);
        let seen = reader.next(&mut value, NOW).unwrap().unwrap();
        assert_eq!(seen.sequence, published);
        // It has not read the value that was the newest at first.
        assert_eq!(seen.missed, u64::from(number == 0));
        assert_eq!(reader.next(&mut value, NOW), Ok(None));
    }
}

#[test]
fn sleeping_threads_are_woken() {
    const VALUES: u64 = 500;
    let latest = Latest::create(&mut NopShMemProvider, 8).unwrap();
    let follow = |mut reader: LatestReader| {
        move || {
            let wait = Wait::new().spins(0).timeout(Duration::from_secs(50));
            let (mut sequence, mut accounted) = (0, 0);
            while sequence < VALUES {
                let (value, seen) = reader.next_record::<u64>(wait).unwrap().unwrap();
                assert_eq!(value, seen.sequence);
                assert!(sequence < seen.sequence);
                sequence = seen.sequence;
                accounted += 1 + seen.missed;
            }
            assert_eq!(accounted, VALUES);
        }
    };
    let readers: Vec<_> = (0..3)
        .map(|_| thread::spawn(follow(latest.reader())))
        .collect();
    let mut writer = latest.writer();
    for number in 1..=VALUES {
        assert_eq!(writer.publish_record(&number), Ok(number));
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

/// What happens to a channel.
#[derive(Clone, Debug)]
enum Event {
    Publish(usize, Vec<u8>),
    Abandon(usize),
    Read(usize),
    Next(usize),
    NewReader(usize),
}

fn event(max_len: usize) -> impl Strategy<Value = Event> {
    let value = proptest::collection::vec(any::<u8>(), 0..=max_len + 3);
    prop_oneof![
        4 => (0..2_usize, value).prop_map(|(writer, value)| Event::Publish(writer, value)),
        1 => (0..2_usize).prop_map(Event::Abandon),
        3 => (0..3_usize).prop_map(Event::Read),
        3 => (0..3_usize).prop_map(Event::Next),
        1 => (0..3_usize).prop_map(Event::NewReader),
    ]
}

proptest! {
    /// Two writers that take turns and three readers see what a plain list of values predicts.
    #[test]
    fn it_is_a_list_of_which_the_last_value_is_read(
        slots in 0..9_usize,
        events in proptest::collection::vec(event(100), 0..80),
    ) {
        let (latest, _) = latest(100, slots);
        let mut list: Vec<Vec<u8>> = Vec::new();
        let mut writers = [latest.writer(), latest.writer()];
        let mut readers = [(); 3].map(|()| (latest.reader(), 0));
        let mut value = Vec::new();
        for event in events {
            let (reader, only_new) = match event {
                Event::Publish(writer, value) => {
                    let published = writers[writer].publish(&value);
                    prop_assert_eq!(published.is_ok(), value.len() <= 100);
                    if let Ok(sequence) = published {
                        list.push(value);
                        prop_assert_eq!(sequence, list.len() as u64);
                    }
                    continue;
                }
                Event::Abandon(writer) => {
                    // As if it was killed: the slot is marked, and garbled in part.
                    let writer = &mut writers[writer];
                    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        writer.write(60, |access| {
                            access.fill(0xee);
                            std::panic::resume_unwind(Box::new(()));
                        })
                    }));
                    prop_assert!(unwound.is_err());
                    continue;
                }
                Event::NewReader(reader) => {
                    readers[reader] = (latest.reader(), list.len().saturating_sub(1));
                    continue;
                }
                Event::Read(reader) => (reader, false),
                Event::Next(reader) => (reader, true),
            };
            let (reader, last) = &mut readers[reader];
            let seen = if only_new {
                reader.next(&mut value, NOW)
            } else {
                reader.read(&mut value)
            };
            let is_there = if only_new { list.len() > *last } else { !list.is_empty() };
            let seen = seen.unwrap();
            prop_assert_eq!(seen.is_some(), is_there);
            if let Some(seen) = seen {
                prop_assert_eq!(seen.sequence, list.len() as u64);
                prop_assert_eq!(seen.missed, list.len().saturating_sub(*last + 1) as u64);
                prop_assert_eq!(Some(&value), list.last());
                prop_assert_eq!(seen.len, value.len());
                *last = list.len();
            }
        }
    }

    /// A peer overwrites any words, before and while the segment is used: there are errors and garbled values, but no
    /// panic, nothing longer than the maximum, and no wait without end.
    #[test]
    fn a_hostile_peer_garbles_and_nothing_else(
        slots in 0..5_usize,
        writes in proptest::collection::vec(
            (0..100_usize, prop_oneof![Just(0), Just(u32::MAX), 0..9_u32, any::<u32>()]),
            1..60,
        ),
    ) {
        let (latest, shared) = latest(70, slots);
        let (mut writer, mut reader) = (latest.writer(), latest.reader());
        let (mut value, mut calls) = (Vec::new(), 0_usize);
        for &(word, number) in &writes {
            let words = words(&shared);
            words[word % words.len()].store(number, Relaxed);
            if let Ok(other) = Latest::in_segment(&shared) {
                prop_assert!(Latest::size(other.max_len(), other.slots()) <= shared.len());
                let _ = other.reader().read(&mut value);
                let _ = other.writer().publish(&value);
            }
            prop_assert!(writer.publish(&[7; 70]).is_ok());
            for seen in [reader.read(&mut value), reader.next(&mut value, NOW)] {
                if let Ok(Some(seen)) = seen {
                    prop_assert_eq!(seen.len, value.len());
                }
            }
            let _ = reader.read_with(|access| {
                let (word, number) = writes[calls % writes.len()];
                words[word % words.len()].store(number, Relaxed);
                calls += 1;
                assert!(access.len() <= 70);
            });
        }
    }
}

#[test]
fn a_peer_that_never_stops_stops_nobody() {
    let (latest, shared) = latest(64, 2);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (words, mut random) = (words(&shared), 1_u32);
            while !ends.load(Relaxed) {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let word = [16, 17, 32, 33, 34, 48, 49, 50][(random >> 29) as usize];
                words[word].store(random >> (random % 32), Relaxed);
            }
        });
        let (mut writer, mut reader) = (latest.writer(), latest.reader());
        let mut value = Vec::new();
        for _ in 0..300 {
            writer.publish(&[1; 64]).unwrap();
            let _ = reader.read(&mut value);
            let _ = reader.next(&mut value, NOW);
            assert!(value.len() <= 64);
        }
        ends.store(true, Relaxed);
    });
}
