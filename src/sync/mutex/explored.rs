//! The protocol of the mutex under every schedule of two threads (`loom`) and random ones of three (`shuttle`).
#![allow(clippy::unwrap_used)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::protocol::{Liveness, Outcome, Protocol};
use crate::error::Result;
use crate::sync::word::Word;
use crate::sync::word::explored::{LoomWord, ShuttleWord};

struct State<W> {
    lock: Protocol<W>,
    /// Who is dead: a bit for each id.
    dead: W,
    /// Changed under the lock, by a load and a store.
    value: W,
}

impl<W: Word> Liveness for State<W> {
    fn is_alive(&self, id: u32) -> Result<bool> {
        Ok(self.dead.load(Acquire) & 1 << id == 0)
    }
}

impl<W: Word> State<W> {
    fn new(new: impl Fn(u32) -> W) -> Arc<Self> {
        Arc::new(Self {
            lock: Protocol::new(new(0)),
            dead: new(0),
            value: new(0),
        })
    }

    fn lock(&self, me: u32) -> Outcome {
        let outcome = self.lock.lock(me, self, 0, None).unwrap();
        self.value.store(self.value.load(Relaxed) + 1, Relaxed);
        outcome
    }

    fn increment(&self, me: u32) {
        assert_eq!(self.lock(me), Outcome::Locked);
        self.lock.unlock(me).unwrap();
    }

    /// Dies with the lock. The wake-ups stand for the ends of the slices of time of the one that waits.
    fn die(&self, me: u32) {
        self.lock(me);
        self.dead.fetch_or(1 << me, Release);
        while self.value.load(Relaxed) < 2 {
            self.lock.wake_to_ask().unwrap();
            W::pause();
        }
    }
}

/// No increment is lost, and no sleeper is left asleep.
fn exclude<W: Word + Send + Sync + 'static>(
    new: impl Fn(u32) -> W,
    threads: u32,
    spawn: impl Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>,
) {
    let state = State::new(new);
    let others: alloc::vec::Vec<_> = (1..threads)
        .map(|me| {
            let state = Arc::clone(&state);
            // Threads 2 and 3 share a participant.
            spawn(Box::new(move || state.increment(me.min(2) + 1)))
        })
        .collect();
    state.increment(1);
    for join in others {
        join();
    }
    assert_eq!(state.value.load(Relaxed), threads);
}

/// The death of the owner is noticed once, by the next one, who sees what the owner wrote.
fn succeed<W: Word + Send + Sync + 'static>(
    new: impl Fn(u32) -> W,
    spawn: impl Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>,
) {
    let state = State::new(new);
    let dying = Arc::clone(&state);
    let join = spawn(Box::new(move || dying.die(2)));
    let first = state.lock(1);
    state.lock.unlock(1).unwrap();
    join();
    let second = state.lock(1);
    assert_eq!(
        [first, second]
            .iter()
            .filter(|&&outcome| outcome == Outcome::Abandoned)
            .count(),
        1
    );
    assert_eq!(state.value.load(Relaxed), 3);
}

fn in_loom(body: Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()> {
    let thread = loom::thread::spawn(body);
    Box::new(|| thread.join().unwrap())
}

fn in_shuttle(body: Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()> {
    let thread = shuttle::thread::spawn(body);
    Box::new(|| thread.join().unwrap())
}

#[test]
fn two_participants_exclude_each_other_in_any_schedule() {
    loom::model(|| exclude(LoomWord::new, 2, in_loom));
}

#[test]
fn a_death_is_noticed_once_in_any_schedule() {
    loom::model(|| succeed(LoomWord::new, in_loom));
}

#[test]
fn participants_exclude_each_other_in_random_schedules() {
    shuttle::check_random(|| exclude(ShuttleWord::new, 4, in_shuttle), 2000);
}

#[test]
fn a_death_is_noticed_once_in_random_schedules() {
    shuttle::check_random(|| succeed(ShuttleWord::new, in_shuttle), 2000);
}
