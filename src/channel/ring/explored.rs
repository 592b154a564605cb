//! The cursors of a ring under every schedule of two threads (loom), and under random ones (shuttle).
//!
//! The ring has two slots of one unit. Their bytes are cells that report every access that is not ordered
//! after the other side's last one.
#![allow(unsafe_code)]
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

use std::boxed::Box;
use std::sync::Arc;

use super::cursor::{Cursor, Cursors, End, UNIT};
use crate::sync::wake::Wait;
use crate::sync::word::Word;
use crate::sync::word::explored::{LoomWord, ShuttleWord};

/// Two slots.
const CAPACITY: u32 = 2 * UNIT;
/// Just before the positions wrap.
const START: u32 = 0_u32.wrapping_sub(UNIT);

/// A slot that only one side uses at a time.
trait Slot: Send + Sync + 'static {
    fn set(&self, value: u32);
    fn get(&self) -> u32;
}

/// A cell that loom watches.
struct LoomSlot(loom::cell::UnsafeCell<u32>);

// SAFETY: loom reports accesses of two threads at once.
unsafe impl Sync for LoomSlot {}

impl Slot for LoomSlot {
    fn set(&self, value: u32) {
        // SAFETY: loom reports accesses of two threads at once.
        self.0.with_mut(|slot| unsafe { *slot = value });
    }

    fn get(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|slot| unsafe { *slot })
    }
}

/// Shuttle finds accesses at the same time by a lock that is already taken.
impl Slot for shuttle::sync::Mutex<u32> {
    fn set(&self, value: u32) {
        let mut slot = self.try_lock().expect("the reader uses the slot");
        shuttle::thread::yield_now();
        *slot = value;
    }

    fn get(&self) -> u32 {
        let slot = self.try_lock().expect("the writer uses the slot");
        shuttle::thread::yield_now();
        *slot
    }
}

fn slot(position: u32) -> usize {
    usize::try_from(position / UNIT % 2).unwrap()
}

/// One thread sends numbers, the other one receives them. Both sleep while they cannot go on. The writer is
/// replaced before each message if `replaced`, as if the previous one had been killed.
fn ring<W, S>(
    messages: u32,
    replaced: bool,
    word: fn(u32) -> W,
    cell: fn(u32) -> S,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>),
) where
    W: Word<Deadline: PartialOrd> + Send + Sync + 'static,
    S: Slot,
{
    let wait = Some(Wait::new().spins(0));
    let cursors = Cursors {
        written: End::new(word, START),
        read: End::new(word, START),
    };
    let shared = Arc::new((cursors, [cell(0), cell(0)]));
    let theirs = shared.clone();
    spawn(Box::new(move || {
        let (cursors, slots) = &*theirs;
        let mut writer = Cursor::writer(cursors, CAPACITY).unwrap();
        for number in 1..=messages {
            assert!(writer.reach(&cursors.read, UNIT, wait).unwrap());
            slots[slot(writer.position())].set(number);
            writer.advance(&cursors.written, UNIT).unwrap();
            if replaced {
                writer = Cursor::writer(cursors, CAPACITY).unwrap();
            }
        }
    }));
    let (cursors, slots) = &*shared;
    let mut reader = Cursor::reader(cursors, CAPACITY).unwrap();
    for number in 1..=messages {
        assert!(reader.reach(&cursors.written, UNIT, wait).unwrap());
        assert_eq!(slots[slot(reader.position())].get(), number);
        reader.advance(&cursors.read, UNIT).unwrap();
    }
    assert!(!reader.reach(&cursors.written, UNIT, None).unwrap());
}

fn every_schedule(messages: u32, replaced: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        ring(
            messages,
            replaced,
            LoomWord::new,
            |value| LoomSlot(loom::cell::UnsafeCell::new(value)),
            |body| {
                loom::thread::spawn(body);
            },
        );
    });
}

#[test]
fn each_byte_has_one_user_in_every_schedule() {
    every_schedule(3, false);
}

#[test]
fn a_new_writer_continues_in_every_schedule() {
    every_schedule(2, true);
}

#[test]
fn each_byte_has_one_user_in_random_schedules() {
    let body = || {
        ring(
            6,
            true,
            ShuttleWord::new,
            shuttle::sync::Mutex::new,
            |body| {
                shuttle::thread::spawn(body);
            },
        );
    };
    shuttle::check_random(body, 5000);
}
