//! The protocol under every schedule and under random ones, and what happens without some of its steps.
#![allow(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are for the library, and `cfg(all(test, …))` is not seen as a test"
)]

use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::vec::Vec;

use super::{Lost, Protocol, Slot, join, split};
use crate::sync::event_count::EventCount;
use crate::sync::word::Word;
use crate::sync::word::explored::{LoomWord, ShuttleWord};

/// A step that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The reader does not look at the slot again.
    Check,
    /// The reader looks again, but perhaps before it has copied.
    ReadersFence,
    /// The slot may be marked as being written after it is written.
    WritersFence,
    /// The number is published before the value.
    Order,
}

/// Two slots with values of two words.
struct Segment<W> {
    newest: W,
    waiters: EventCount<W>,
    slots: [Slot<W>; 2],
    values: [[W; 2]; 2],
}

impl<W: Word> Segment<W> {
    /// The newest value has the number `low`, and all of its words are that.
    fn new(new: impl Fn(u32) -> W, low: u32, high: u32) -> Self {
        let slot = |low: u32| Slot {
            state: new(low),
            high: new(high),
            len: new(2),
        };
        let before = low.wrapping_sub(1);
        let lows = if low % 2 == 0 {
            [low, before]
        } else {
            [before, low]
        };
        Self {
            newest: new(low),
            waiters: EventCount::new(new(0)),
            slots: lows.map(slot),
            values: lows.map(|low| [new(low), new(low)]),
        }
    }

    fn protocol(&self) -> Protocol<'_, W, Slot<W>> {
        Protocol::new(&self.newest, &self.slots)
    }

    fn publish(&self, without: Without) {
        let protocol = self.protocol();
        let claim = if without == Without::WritersFence {
            let sequence = protocol.published().wrapping_add(1);
            let (high, low) = split(sequence);
            let (index, slot) = protocol.slot(low).unwrap();
            slot.state.store(!low, Release);
            slot.high.store(high, Relaxed);
            super::Claim {
                slot,
                index,
                sequence,
            }
        } else {
            protocol.begin().unwrap()
        };
        if without == Without::Order {
            protocol.publish(&claim, 2);
        }
        let (_, low) = split(claim.sequence);
        for word in &self.values[claim.index] {
            word.store(low, Relaxed);
        }
        if without != Without::Order {
            protocol.publish(&claim, 2);
        }
        self.waiters.wake().unwrap();
    }

    /// Reads once. The value has to be whole.
    fn read(&self, without: Without) -> Result<u64, Lost> {
        let protocol = self.protocol();
        let found = protocol.find()?;
        let words = self.values[found.claim.index].each_ref();
        let words = words.map(|word| word.load(Relaxed));
        let sequence = found.claim.sequence;
        let (high, low) = split(sequence);
        let slot = found.claim.slot;
        match without {
            Without::Check => {}
            Without::ReadersFence => {
                if slot.state.load(Relaxed) != low || slot.high.load(Relaxed) != high {
                    return Err(Lost::Lapped);
                }
            }
            _ => protocol.check(&found.claim)?,
        }
        assert_eq!(words, [low; 2], "the value of number {sequence} is torn");
        assert_eq!(found.len, 2);
        Ok(sequence)
    }
}

/// A writer publishes `published` values, and a reader reads `reads` times meanwhile. The numbers start before an
/// overflow of the low word, or well before it.
fn one_writer<W: Word + Send + Sync + 'static>(
    new: impl Fn(u32) -> W,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>),
    (start, published, reads): (u64, usize, usize),
    without: Without,
) {
    let (high, low) = split(start);
    let segment = Arc::new(Segment::new(new, low, high));
    let writer = segment.clone();
    spawn(Box::new(move || {
        for _ in 0..published {
            writer.publish(without);
        }
    }));
    let mut last = start;
    for _ in 0..reads {
        match segment.read(without) {
            Ok(sequence) => {
                assert!(last <= sequence, "{sequence} after {last}");
                last = sequence;
            }
            Err(reason) => assert_eq!(reason, Lost::Lapped),
        }
    }
}

/// A reader sleeps until the last value is published, and never reads a value twice.
fn a_sleeper<W: Word + Send + Sync + 'static>(
    new: impl Fn(u32) -> W,
    spawn: impl Fn(Box<dyn FnOnce() + Send>),
    readers: usize,
) {
    let segment = Arc::new(Segment::new(new, 0, 0));
    let read = |segment: Arc<Segment<W>>| {
        let mut last = 0;
        while last < 3 {
            let (_, low) = split(last);
            let Segment {
                newest, waiters, ..
            } = &*segment;
            waiters.wait_while(newest, low, 0, None).unwrap();
            if let Ok(sequence) = segment.read(Without::Nothing) {
                assert!(last < sequence);
                last = sequence;
            }
        }
    };
    for _ in 1..readers {
        let segment = segment.clone();
        spawn(Box::new(move || read(segment)));
    }
    let writer = segment.clone();
    spawn(Box::new(move || {
        for _ in 0..3 {
            writer.publish(Without::Nothing);
        }
    }));
    read(segment);
}

/// Returns the number of schedules.
fn every_schedule(
    load: (u64, usize, usize),
    without: Without,
    preemptions: Option<usize>,
) -> usize {
    let schedules = Arc::new(AtomicUsize::new(0));
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        one_writer(LoomWord::new, spawn_in_loom, load, without);
    });
    schedules.load(Relaxed)
}

fn spawn_in_loom(body: Box<dyn FnOnce() + Send>) {
    loom::thread::spawn(body);
}

fn spawn_in_shuttle(body: Box<dyn FnOnce() + Send>) {
    shuttle::thread::spawn(body);
}

#[test]
fn values_are_whole_in_any_schedule() {
    let overflow = join(0, u32::MAX);
    for (load, preemptions) in [((1, 2, 1), 3), ((overflow, 2, 1), 3), ((1, 3, 1), 2)] {
        let schedules = every_schedule(load, Without::Nothing, Some(preemptions));
        assert!(schedules > 500, "only {schedules} schedules");
    }
}

#[test]
fn values_are_whole_in_random_schedules() {
    for start in [1, join(0, u32::MAX - 1)] {
        let body = move || {
            let load = (start, 5, 5);
            one_writer(ShuttleWord::new, spawn_in_shuttle, load, Without::Nothing);
        };
        shuttle::check_random(body, 1600);
    }
    shuttle::check_random(|| a_sleeper(ShuttleWord::new, spawn_in_shuttle, 3), 2000);
}

#[test]
fn every_step_is_needed() {
    for without in [
        Without::Check,
        Without::ReadersFence,
        Without::WritersFence,
        Without::Order,
    ] {
        let found = catch_unwind(AssertUnwindSafe(|| {
            every_schedule((1, 2, 1), without, Some(3));
        }));
        let message = found.expect_err("a value must be torn");
        let message = message.downcast_ref::<std::string::String>();
        assert!(
            message.is_some_and(|text| text.contains("is torn")),
            "{without:?}: {message:?}"
        );
    }
}

#[test]
fn a_dead_writers_slot_is_used_again() {
    let segment = Segment::new(core::sync::atomic::AtomicU32::new, 7, 1);
    let protocol = segment.protocol();
    let sequences: Vec<_> = (0..3).map(|_| protocol.begin().unwrap().sequence).collect();
    assert_eq!(sequences, [join(1, 8); 3]);
    assert_eq!(protocol.published(), join(1, 7));
    assert_eq!(segment.read(Without::Nothing), Ok(join(1, 7)));
    segment.publish(Without::Nothing);
    assert_eq!(segment.read(Without::Nothing), Ok(join(1, 8)));
}

#[test]
fn a_value_2_to_the_32_later_is_another_one() {
    let segment = Segment::new(core::sync::atomic::AtomicU32::new, 7, 1);
    let protocol = segment.protocol();
    let found = protocol.find().unwrap();
    protocol.check(&found.claim).unwrap();
    segment.slots[1].high.store(2, Release);
    assert!(protocol.check(&found.claim).is_err());
    assert_eq!(segment.slots[1].state.load(Acquire), 7);
}
