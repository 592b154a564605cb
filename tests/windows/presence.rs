//! Presences and mutexes, whose owners are terminated.

use std::error::Error;
use std::mem;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use shmem_providers::sync::{Condvar, LockError, Mutex, MutexGuard, Presence, Slots};
use shmem_providers::wake::Wait;
use shmem_providers::{ShMemId, ShMemProvider, SharedLayout, StdShMemProvider, Typed};

use crate::peer::Peer;
use testkit::{Outcome, open_files};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(50);

#[derive(SharedLayout)]
#[repr(C)]
struct Layout {
    slots: Slots<4>,
    /// Two numbers that are equal while nobody has the lock.
    pair: Mutex<[AtomicU64; 2]>,
    changed: Condvar,
}

/// What a peer has joined.
#[derive(Default)]
pub(crate) struct Participant(Option<(Typed<Layout>, Presence)>);

impl Participant {
    /// Executes a command.
    pub(crate) fn execute(&mut self, command: &[&str]) -> Result<String, Box<dyn Error>> {
        let joined = || self.0.as_ref().ok_or("it has not joined");
        match *command {
            ["join", id] => {
                let id = ShMemId::from_string(id);
                let layout = Typed::open(&mut StdShMemProvider::new()?, id)?;
                let presence = join(&layout)?;
                let answer = format!("{} {}", presence.slot(), presence.id());
                self.0 = Some((layout, presence));
                return Ok(answer);
            }
            ["leave"] => self.0 = None,
            ["half"] => {
                let (layout, presence) = joined()?;
                let guard = lock(layout, presence)?;
                guard[0].fetch_add(1, Relaxed);
                mem::forget(guard);
            }
            ["add", rounds] => {
                let (layout, presence) = joined()?;
                add(layout, presence, rounds.parse()?)?;
                layout.changed.notify_all()?;
            }
            _ => return Err(format!("unknown command {command:?}").into()),
        }
        Ok(String::new())
    }
}

fn layout() -> Result<Typed<Layout>, shmem_providers::Error> {
    Typed::create(&mut StdShMemProvider::new()?, |_| {})
}

fn join(layout: &Typed<Layout>) -> Result<Presence, shmem_providers::Error> {
    Presence::join(&layout.clone().into_ref().map(|layout| &layout.slots))
}

fn lock<'a>(
    layout: &'a Typed<Layout>,
    presence: &'a Presence,
) -> Result<MutexGuard<'a, [AtomicU64; 2]>, String> {
    let wait = Wait::new().timeout(LONG);
    layout
        .pair
        .lock(presence, wait)
        .map_err(|error| match error {
            LockError::Abandoned(_) => "abandoned".into(),
            LockError::TimedOut => "timed out".into(),
            LockError::Failed(error) => error.to_string(),
        })
}

/// Increments both numbers by separate reads and writes, which would lose some without a lock.
fn add(layout: &Typed<Layout>, presence: &Presence, rounds: u64) -> Result<(), String> {
    for _ in 0..rounds {
        let pair = lock(layout, presence)?;
        for number in &*pair {
            number.store(number.load(Relaxed) + 1, Relaxed);
        }
    }
    Ok(())
}

/// Starts a second process that joins. Returns its slot and its id, too.
fn joined(layout: &Typed<Layout>) -> Outcome<(Peer, usize, u32)> {
    let mut peer = Peer::start();
    let answer = peer.ask(format!("presence join {}", layout.id()))?;
    let (slot, id) = answer.split_once(' ').ok_or("two numbers")?;
    Ok((peer, slot.parse()?, id.parse()?))
}

pub(crate) fn a_participant_is_alive_until_it_is_terminated() -> Outcome {
    let layout = layout()?;
    let me = join(&layout)?;
    assert!(me.is_alive(me.id())?);
    let (mut left, slot, id) = joined(&layout)?;
    assert_ne!(slot, me.slot());
    assert!(me.is_alive(id)?);
    assert_eq!(me.holder(slot)?, Some(id));
    left.ask("presence leave")?;
    assert!(!me.is_alive(id)?);
    let (peer, _, id) = joined(&layout)?;
    assert!(me.is_alive(id)?);
    peer.kill();
    // The handles of a terminated process are closed before it counts as ended.
    assert!(!me.is_alive(id)?);
    assert_eq!(me.holder(slot)?, None);
    // Neither is there anybody in a slot that nobody has taken, or that does not exist.
    assert!(!me.is_alive(0)?);
    assert!(!me.is_alive(id + 1)?);
    assert!(!me.is_alive(u32::MAX)?);
    Ok(())
}

pub(crate) fn the_slot_of_a_terminated_process_has_a_new_id() -> Outcome {
    let layout = layout()?;
    let me = join(&layout)?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (peer, slot, id) = joined(&layout)?;
        assert_eq!(slot, 1);
        assert!(!ids.contains(&id));
        ids.push(id);
        for &id in &ids {
            assert_eq!(me.is_alive(id)?, ids.last() == Some(&id));
        }
        peer.kill();
    }
    // All slots are taken, until one of them is left.
    let (second, third) = (join(&layout)?, join(&layout)?);
    let (peer, _, _) = joined(&layout)?;
    let full = Some(shmem_providers::Error::NoSlot { slots: 4 });
    assert_eq!(join(&layout).err(), full);
    peer.kill();
    let fourth = join(&layout)?;
    assert_eq!(join(&layout).err(), full);
    // Tables in other segments are independent.
    let other = join(&self::layout()?)?;
    assert_eq!(other.slot(), 0);
    drop((second, third, fourth));
    Ok(())
}

pub(crate) fn a_mutex_is_abandoned_by_a_terminated_owner() -> Outcome {
    let layout = layout()?;
    let me = join(&layout)?;
    for round in 1..=3 {
        let (mut peer, _, _) = joined(&layout)?;
        peer.ask("presence half")?;
        assert!(matches!(
            layout
                .pair
                .lock(&me, Wait::new().timeout(Duration::from_millis(50))),
            Err(LockError::TimedOut)
        ));
        peer.kill();
        match layout.pair.lock(&me, Wait::new().timeout(LONG)) {
            Err(LockError::Abandoned(pair)) => {
                assert_eq!(pair[0].load(Relaxed), round);
                assert_eq!(pair[1].swap(round, Relaxed), round - 1);
            }
            other => panic!("{:?}", other.map(drop).map_err(|_| "another error")),
        }
        drop(lock(&layout, &me)?);
    }
    Ok(())
}

pub(crate) fn processes_exclude_each_other() -> Outcome {
    const ROUNDS: u64 = 2000;
    let layout = layout()?;
    let me = join(&layout)?;
    let (mut first, _, _) = joined(&layout)?;
    let (mut second, _, _) = joined(&layout)?;
    for peer in [&mut first, &mut second] {
        peer.send(&format!("presence add {ROUNDS}"));
    }
    add(&layout, &me, ROUNDS)?;
    first.answer_to("add")?;
    second.answer_to("add")?;
    let pair = lock(&layout, &me)?;
    assert!(pair.iter().all(|number| number.load(Relaxed) == 3 * ROUNDS));
    Ok(())
}

pub(crate) fn a_wait_ends_when_the_owner_notifies_or_is_terminated() -> Outcome {
    let layout = layout()?;
    let me = join(&layout)?;
    let (mut peer, _, _) = joined(&layout)?;
    let mut pair = lock(&layout, &me)?;
    peer.send("presence add 1");
    while pair[0].load(Relaxed) == 0 {
        let Ok((guard, _)) = layout.changed.wait(pair, Wait::new().timeout(LONG)) else {
            panic!("the owner was not terminated");
        };
        pair = guard;
    }
    peer.answer_to("add")?;
    // It can lock once the wait has begun, and is terminated while it holds the lock.
    peer.send("presence half");
    thread::scope(|scope| {
        let terminator = scope.spawn(move || {
            let answer = peer.answer_to("half");
            peer.kill();
            answer
        });
        // Without a timeout.
        let waited = layout.changed.wait(pair, Wait::new());
        assert!(matches!(waited, Err(LockError::Abandoned(_))));
        terminator.join().expect("it does not panic")
    })?;
    Ok(())
}

pub(crate) fn children_do_not_keep_a_participant_alive() -> Outcome {
    let layout = layout()?;
    let me = join(&layout)?;
    let other = join(&layout)?;
    let id = other.id();
    let _child = Peer::start();
    drop(other);
    assert!(!me.is_alive(id)?);
    // Neither joining nor asking keeps a handle.
    let before = open_files();
    for _ in 0..200 {
        assert!(!me.is_alive(id)?);
        assert!(me.is_alive(join(&layout)?.id())?);
    }
    // Other tests of this process may have opened some.
    let after = open_files();
    assert!(after < before + 100, "{before} {after}");
    Ok(())
}
