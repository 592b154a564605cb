//! Schedules of a listener and of the process that rings.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release, SeqCst};

use proptest::prelude::*;

use super::{ARMED, Address, DoorbellId, Slot};
use crate::error::Error;
use crate::sync::word::Word;
use crate::sync::word::explored::{LoomWord, ShuttleWord};

const ID: DoorbellId = DoorbellId {
    process: 7,
    number: 5,
    inode: 1 << 40 | 3,
};

struct Model<W> {
    slot: Slot<W>,
    /// What the listener waits for.
    condition: W,
    /// 1 if the pipe contains a byte. It is written, read, and waited for by the kernel's rules.
    pipe: W,
}

fn slot<W: Word>(new: impl Fn(u32) -> W) -> Slot<W> {
    Slot {
        armed: new(0),
        address: Address([0; DoorbellId::WORDS].map(new)),
    }
}

impl<W: Word> Model<W> {
    /// The other side: changes the condition, then rings.
    fn change(&self) {
        self.condition.fetch_add(1, Release);
        let rung = self.slot.ring_by(|address| {
            assert_eq!(address.read(), Some(ID), "armed before it was published");
            self.pipe.store(1, SeqCst);
            self.pipe.wake(1).map(|()| true)
        });
        rung.unwrap();
    }

    /// The loop of the listener, until the condition has changed this often.
    fn listen(&self, changes: u32) {
        loop {
            self.slot.arm(Some(ID));
            if self.condition.load(Acquire) == changes {
                return;
            }
            while self.pipe.load(SeqCst) == 0 {
                self.pipe.sleep_while(0, None).unwrap();
            }
            self.pipe.store(0, SeqCst);
        }
    }
}

/// The listener must see the changes: a lost ring is a deadlock.
fn listener_and_peers<W: Word + Send + Sync + 'static>(
    new: impl Fn(u32) -> W + Copy,
    peers: u32,
    spawn: impl Fn(Box<dyn FnOnce() + Send>),
) {
    let model = Arc::new(Model {
        slot: slot(new),
        condition: new(0),
        pipe: new(0),
    });
    for _ in 0..peers {
        let model = model.clone();
        spawn(Box::new(move || model.change()));
    }
    model.listen(peers);
}

#[test]
fn no_ring_is_lost_in_any_schedule() {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        listener_and_peers(LoomWord::new, 1, |body| {
            loom::thread::spawn(body);
        });
    });
}

#[test]
fn no_ring_is_lost_in_random_schedules() {
    let body = || {
        listener_and_peers(ShuttleWord::new, 3, |body| {
            shuttle::thread::spawn(body);
        });
    };
    shuttle::check_random(body, 2000);
}

#[test]
fn nobody_is_called_unless_the_slot_is_armed() {
    let slot = slot(AtomicU32::new);
    let unarmed = |_: &Address<_>| -> Result<bool, Error> { panic!("nobody listens") };
    assert_eq!(slot.ring_by(unarmed), Ok(false));
    slot.arm(Some(ID));
    assert_eq!(
        slot.ring_by(|address| Ok(address.read() == Some(ID))),
        Ok(true)
    );
    assert_eq!(slot.ring_by(unarmed), Ok(false));
}

#[test]
fn a_ring_that_failed_is_tried_again() {
    let slot = slot(AtomicU32::new);
    slot.arm(None);
    assert_eq!(
        slot.ring_by(|_| Err(Error::InvalidSize { size: 0 })),
        Err(Error::InvalidSize { size: 0 })
    );
    assert_eq!(slot.ring_by(|_| Ok(true)), Ok(true));
}

proptest! {
    #[test]
    fn changed_words_are_no_id(words in any::<[u32; 5]>(), at in 0..5_usize, flip in 1..u32::MAX, armed: u32) {
        // Words that nobody has published.
        if let Some(id) = DoorbellId::from_words(words) {
            prop_assert_eq!(id.to_words(), words);
        }
        // A single word of an id that has changed.
        let slot = slot(AtomicU32::new);
        slot.arm(Some(ID));
        slot.address.0[at].fetch_xor(flip, SeqCst);
        prop_assert_eq!(slot.address.read(), None);
        // Arming again repairs it.
        slot.arm(Some(ID));
        prop_assert_eq!(slot.address.read(), Some(ID));
        // Whatever the other word is.
        slot.armed.store(armed, SeqCst);
        prop_assert_eq!(slot.ring_by(|_| Ok(true)), Ok(armed & ARMED != 0));
    }

    #[test]
    fn ids_are_the_same_as_text_and_as_words(process in 1..u32::MAX, number: u32, inode: u64) {
        let id = DoorbellId::new(process, number, inode).unwrap();
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(DoorbellId::from_words(id.to_words()), Some(id));
    }

    #[test]
    fn other_texts_are_no_ids(text in "(bell-)?[0-9.+-]{0,30}") {
        if let Ok(id) = text.parse::<DoorbellId>() {
            prop_assert!(id.to_string().len() <= text.len());
        }
    }
}

#[test]
fn zero_words_are_no_id() {
    assert_eq!(DoorbellId::from_words([0; DoorbellId::WORDS]), None);
    assert!("bell-0.1.2".parse::<DoorbellId>().is_err());
    assert!("bell-1.1.2.3".parse::<DoorbellId>().is_err());
}
