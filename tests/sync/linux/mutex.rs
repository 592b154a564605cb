//! Presences, mutexes and condition variables, whose owners are killed.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};
use std::{mem, thread};

use rustix::process::{Pid, Signal, kill_process};
#[cfg(not(any(shmem_apple_rules, shmem_freebsd_rules)))]
use shmem_providers::MemfdShMemProvider as Provider;
#[cfg(any(shmem_apple_rules, shmem_freebsd_rules))]
use shmem_providers::StdServedShMemProvider as Provider;
use shmem_providers::sync::{Condvar, LockError, Mutex, MutexGuard, Presence, Slots};
use shmem_providers::wake::Wait;
use shmem_providers::{
    Error, IdKind, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, ServedShMemProvider, ShMem,
    ShMemId, ShMemProvider, SharedLayout, Typed, UnixShMemProvider,
};

use super::peer::{Answer, Peer};
use testkit::peer::can_start_by;
use testkit::{Outcome, if_lacking};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(50);

#[derive(SharedLayout)]
#[repr(C)]
struct Layout {
    slots: Slots<8>,
    /// Two numbers that are equal while nobody has the lock.
    pair: Mutex<[AtomicU64; 2]>,
    changed: Condvar,
}

/// A participant, which lives as long as its process.
#[derive(Clone, Copy)]
struct Participant {
    layout: &'static Typed<Layout>,
    presence: &'static Presence,
}

type Guard = MutexGuard<'static, [AtomicU64; 2]>;

impl Participant {
    fn join(id: &str) -> Result<Self, Error> {
        let layout = open(ShMemId::from_string(id))?;
        Ok(Self {
            presence: Box::leak(Box::new(join(&layout)?)),
            layout: Box::leak(Box::new(layout)),
        })
    }

    fn lock(self) -> Result<Guard, LockError<Guard>> {
        self.layout.pair.lock(self.presence, long())
    }
}

fn long() -> Wait {
    Wait::new().timeout(LONG)
}

/// `true` while [`over_system_v`] runs a test.
static IS_OVER_SYSTEM_V: AtomicBool = AtomicBool::new(false);

/// Runs a test of this file with System V segments in the place of memfds.
pub(super) fn over_system_v(test: fn() -> Outcome) -> Outcome {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_OVER_SYSTEM_V.store(false, Relaxed);
        }
    }
    let _reset = Reset;
    IS_OVER_SYSTEM_V.store(true, Relaxed);
    layout().map(drop).or_else(if_lacking)?;
    test()
}

fn layout() -> Result<Typed<Layout>, Error> {
    if IS_OVER_SYSTEM_V.load(Relaxed) {
        Typed::create(&mut UnixShMemProvider::new()?, |_| {})
    } else {
        Typed::create(&mut Provider::new()?, |_| {})
    }
}

fn open(id: ShMemId) -> Result<Typed<Layout>, Error> {
    match id.kind() {
        IdKind::SystemV { .. } => Typed::open(&mut UnixShMemProvider::new()?, id),
        _ => Typed::open(&mut Provider::new()?, id),
    }
}

fn join(layout: &Typed<Layout>) -> Result<Presence, Error> {
    Presence::join(&layout.clone().into_ref().map(|layout| &layout.slots))
}

/// Starts a second process that joins.
fn joined(layout: &Typed<Layout>) -> Result<Peer, String> {
    let mut peer = Peer::start();
    peer.execute(format!("mutex join {}", layout.id()))?;
    Ok(peer)
}

thread_local! {
    static JOINED: Cell<Option<Participant>> = const { Cell::new(None) };
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let participant = || JOINED.get().ok_or("it has not joined");
    let hold = || {
        mem::forget(participant()?.lock());
        Ok::<_, &str>(())
    };
    Ok(match *words {
        ["create", kind] => {
            IS_OVER_SYSTEM_V.store(kind == "sysv", Relaxed);
            let layout = Box::leak(Box::new(layout()?));
            layout.id().to_string()
        }
        ["join", id] => {
            let participant = Participant::join(id)?;
            JOINED.set(Some(participant));
            format!(
                "{} {}",
                participant.presence.slot(),
                participant.presence.id()
            )
        }
        ["count", times] => count(participant()?, times.parse()?)?.to_string(),
        ["lock"] => match participant()?.lock() {
            Ok(_) => "locked".into(),
            Err(error) => kind(&error).into(),
        },
        ["hold"] => {
            hold()?;
            String::new()
        }
        ["hold-and-fork"] => {
            hold()?;
            fork(|| thread::sleep(LONG)).to_string()
        }
        ["hold-and-start"] => {
            hold()?;
            let mut command = Command::new("sleep");
            let command = command
                .arg(LONG.as_secs().to_string())
                .stdout(Stdio::null());
            command.spawn()?.id().to_string()
        }
        ["fork-and-drop"] => fork_and_drop(participant()?)?,
        ["wait"] => {
            let participant = participant()?;
            let guard = participant.lock().or_else(LockError::recover)?;
            match participant.layout.changed.wait(guard, Wait::new()) {
                Ok((_, notified)) => format!("notified: {notified}"),
                Err(error) => kind(&error).into(),
            }
        }
        _ => return Err(format!("unknown command {words:?}").into()),
    })
}

fn kind<G>(error: &LockError<G>) -> &'static str {
    match error {
        LockError::Abandoned(_) => "abandoned",
        LockError::TimedOut => "timed out",
        LockError::Failed(_) => "failed",
    }
}

/// Increments both numbers this often, and repairs them after a death. Returns the number of deaths.
fn count(participant: Participant, times: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let mut deaths = 0;
    for _ in 0..times {
        let guard = participant.lock().or_else(|error| {
            let guard = error.recover()?;
            deaths += 1;
            guard[1].store(guard[0].load(Relaxed), Relaxed);
            Ok::<_, LockError<Guard>>(guard)
        })?;
        let [first, second] = &*guard;
        let value = first.load(Relaxed);
        first.store(value + 1, Relaxed);
        if second.load(Relaxed) != value {
            return Err("another process was here".into());
        }
        second.store(value + 1, Relaxed);
    }
    Ok(deaths)
}

/// Forks, and returns the number of the child, which ends after `work`.
pub(crate) fn fork(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child only sleeps, or this process has a single thread that uses locks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        work();
        // SAFETY: the function has no preconditions.
        unsafe { libc::_exit(0) };
    }
    child
}

/// Checks that a child neither unlocks what its parent has locked, nor takes part in its name.
fn fork_and_drop(participant: Participant) -> Answer {
    let mut guard = Some(participant.lock()?);
    let child = fork(|| {
        drop(guard.take());
        let inherited = participant.layout.pair.try_lock(participant.presence);
        assert!(matches!(
            inherited,
            Err(LockError::Failed(Error::Unsupported { .. }))
        ));
        let own = join(participant.layout).expect("a child can join");
        assert_ne!(own.slot(), participant.presence.slot());
        assert!(own.is_alive(participant.presence.id()).expect("it may ask"));
        let held = participant.layout.pair.try_lock(&own);
        assert!(matches!(held, Err(LockError::TimedOut)));
    });
    let mut status = 0;
    // SAFETY: the pointer is to a local variable of the type that the call writes.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    Ok(status.to_string())
}

pub(crate) fn processes_exclude_each_other() -> Outcome {
    let layout = layout()?;
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(joined(&layout)?);
    }
    for peer in &mut peers {
        peer.send("mutex count 25000");
    }
    for peer in &mut peers {
        assert_eq!(peer.answer_to("mutex count")?, "0");
    }
    let presence = join(&layout)?;
    let pair = layout.pair.try_lock(&presence).expect("nobody has it");
    assert_eq!(
        pair.each_ref().map(|number| number.load(Relaxed)),
        [100_000; 2]
    );
    Ok(())
}

pub(crate) fn the_death_of_an_owner_is_noticed_once() -> Outcome {
    let layout = layout()?;
    let mut owner = joined(&layout)?;
    owner.execute("mutex hold")?;
    let mut waiters = [joined(&layout)?, joined(&layout)?, joined(&layout)?];
    for waiter in &mut waiters {
        waiter.send("mutex lock");
    }
    owner.kill();
    let mut answers = Vec::new();
    for waiter in &mut waiters {
        answers.push(waiter.answer_to("mutex lock")?);
    }
    answers.sort();
    assert_eq!(answers, ["abandoned", "locked", "locked"]);
    Ok(())
}

pub(crate) fn owners_killed_at_any_time_harm_nobody() -> Outcome {
    let layout = layout()?;
    let mut survivor = joined(&layout)?;
    for round in 0..testkit::repetitions(40) {
        let mut peer = joined(&layout)?;
        peer.send(&format!("mutex count {}", u64::MAX));
        let end = Instant::now() + Duration::from_micros(u64::from(round * 7919 % 3000));
        while Instant::now() < end {}
        peer.kill();
        assert!(survivor.ask_for::<u64>("mutex count 100")? <= 1);
    }
    Ok(())
}

pub(crate) fn a_killed_waiter_is_no_burden() -> Outcome {
    let layout = layout()?;
    let presence = join(&layout)?;
    let mut waiters = [joined(&layout)?, joined(&layout)?];
    let [killed, other] = &mut waiters;
    let guard = layout.pair.try_lock(&presence).expect("nobody has it");
    killed.send("mutex lock");
    other.send("mutex lock");
    thread::sleep(Duration::from_millis(5));
    let [killed, mut other] = waiters;
    killed.kill();
    drop(guard);
    assert_eq!(other.answer_to("mutex lock")?, "locked");
    Ok(())
}

pub(crate) fn the_next_process_in_a_slot_is_not_the_dead_one() -> Outcome {
    let layout = layout()?;
    let presence = join(&layout)?;
    let join_command = format!("mutex join {}", layout.id());
    let mut owner = Peer::start();
    let of_owner = owner.ask(&join_command)?;
    owner.execute("mutex hold")?;
    owner.kill();
    let mut next = Peer::start();
    let of_next = next.ask(&join_command)?;
    let split = |answer: &str| {
        let (slot, id) = answer.split_once(' ').expect("there are two numbers");
        (slot.to_owned(), id.parse::<u32>().expect("it is a number"))
    };
    let ((slot, dead), (same_slot, alive)) = (split(&of_owner), split(&of_next));
    assert_eq!(slot, same_slot);
    assert!(!presence.is_alive(dead)?);
    assert!(presence.is_alive(alive)?);
    assert_eq!(presence.holder(slot.parse()?)?, Some(alive));
    // The one in the slot of the owner gets it as well.
    assert_eq!(next.ask("mutex lock")?, "abandoned");
    let locked = layout.pair.lock(&presence, long());
    assert!(locked.is_ok(), "{locked:?}");
    Ok(())
}

pub(crate) fn a_child_of_the_owner_does_not_keep_it_alive() -> Outcome {
    for command in ["mutex hold-and-fork", "mutex hold-and-start"] {
        let layout = layout()?;
        let presence = join(&layout)?;
        let mut owner = joined(&layout)?;
        let child = owner.ask_for::<i32>(command)?;
        owner.kill();
        let short = Wait::new().timeout(Duration::from_secs(5));
        let locked = layout.pair.lock(&presence, short);
        let child = Pid::from_raw(child).ok_or("no child")?;
        // It is still running.
        kill_process(child, Signal::KILL)?;
        assert!(
            matches!(locked, Err(LockError::Abandoned(_))),
            "{command}: {locked:?}"
        );
    }
    Ok(())
}

pub(crate) fn a_child_does_not_unlock_for_its_parent() -> Outcome {
    let layout = layout()?;
    let mut peer = joined(&layout)?;
    assert_eq!(peer.ask("mutex fork-and-drop")?, "0");
    // The parent has unlocked.
    assert_eq!(peer.ask("mutex lock")?, "locked");
    Ok(())
}

pub(crate) fn deaths_in_other_pid_namespaces_are_noticed() -> Outcome {
    const ROOT: &[&str] = &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const OTHER: &[&str] = &[
        "unshare",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ];
    let wrapper = if rustix::process::geteuid().is_root() {
        ROOT
    } else {
        OTHER
    };
    can_start_by(wrapper)?;
    let mut inner = Peer::start_by(wrapper);
    let kind = if IS_OVER_SYSTEM_V.load(Relaxed) {
        "sysv"
    } else {
        "memfd"
    };
    let id = inner.ask(format!("mutex create {kind}"))?;
    inner.execute(format!("mutex join {id}"))?;
    let layout = open(ShMemId::from_string(&id))?;
    let presence = join(&layout)?;
    inner.execute("mutex hold")?;
    let locked = layout.pair.try_lock(&presence);
    assert!(matches!(locked, Err(LockError::TimedOut)), "{locked:?}");
    inner.kill();
    let locked = layout.pair.lock(&presence, long());
    assert!(matches!(locked, Err(LockError::Abandoned(_))), "{locked:?}");
    Ok(())
}

pub(crate) fn a_full_table_is_an_error() -> Outcome {
    let shared = Provider::new()?.new_shmem(4096)?.share();
    let slots = shared.view::<Slots<2>>(64)?;
    let first = Presence::join(&slots)?;
    let second = Presence::join(&slots)?;
    let full = Presence::join(&slots).expect_err("there are two slots");
    assert_eq!(full, Error::NoSlot { slots: 2 });
    // Another table in the same segment has slots of its own.
    let other = Presence::join(&shared.view::<Slots<2>>(128)?)?;
    assert_eq!(other.slot(), 0);
    let id = first.id();
    assert!(second.is_alive(id)?);
    drop(first);
    assert!(!second.is_alive(id)?);
    assert_eq!(Presence::join(&slots)?.slot(), 0);
    Ok(())
}

pub(crate) fn every_segment_will_do() -> Outcome {
    fn check(
        provider: Result<impl ShMemProvider<ShMem: Send + Sync + 'static>, Error>,
    ) -> Result<(), Error> {
        let layout = Typed::create(&mut provider?, |_| {})?;
        let (one, other) = (join(&layout)?, join(&layout)?);
        assert!(one.is_alive(other.id())?);
        let id = one.id();
        mem::forget(layout.pair.try_lock(&one));
        drop(one);
        assert!(!other.is_alive(id)?);
        let locked = layout.pair.try_lock(&other);
        assert!(matches!(locked, Err(LockError::Abandoned(_))), "{locked:?}");
        Ok(())
    }
    check(ServedShMemProvider::<MemfdBackend>::new())?;
    if cfg!(any(shmem_apple_rules, shmem_freebsd_rules)) {
        return Ok(());
    }
    check(MemfdShMemProvider::new())?;
    check(MmapShMemProvider::new())?;
    check(UnixShMemProvider::new()).or_else(if_lacking)
}

pub(crate) fn threads_of_a_participant_exclude_each_other() -> Outcome {
    let layout = layout()?;
    let presence = join(&layout)?;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let pair = layout.pair.lock(&presence, long()).expect("nobody dies");
                    pair[0].store(pair[0].load(Relaxed) + 1, Relaxed);
                }
            });
        }
    });
    let pair = layout.pair.try_lock(&presence).expect("nobody has it");
    assert_eq!(pair[0].load(Relaxed), 3000);
    // The same thread once more.
    let again = layout
        .pair
        .lock(&presence, Wait::new().timeout(Duration::from_millis(30)));
    assert!(matches!(again, Err(LockError::TimedOut)), "{again:?}");
    Ok(())
}

pub(crate) fn garbled_words_cause_no_hang() -> Outcome {
    let shared = Provider::new()?.new_shmem(4096)?.share();
    let presence = Presence::join(&shared.view::<Slots<4>>(64)?)?;
    let mutex = shared.view::<Mutex<AtomicU64>>(0)?;
    let words = shared.access().as_atomic_u32()?;
    let short = Wait::new().timeout(Duration::from_millis(1));
    for word in [
        1,
        1 << 10,
        5,
        u32::MAX,
        1 << 31,
        presence.id(),
        presence.id() | 1 << 31,
    ] {
        words[0].store(word, Relaxed);
        match mutex.lock(&presence, short) {
            Err(LockError::TimedOut) => assert_eq!(word & !(1 << 31), presence.id()),
            Err(LockError::Abandoned(_)) => {}
            other => panic!("{word:#x}: {other:?}"),
        }
        words[16].store(word, Relaxed);
        let _ = presence.holder(0)?;
    }
    Ok(())
}

pub(crate) fn waiters_for_a_condition_are_notified() -> Outcome {
    let layout = layout()?;
    let presence = join(&layout)?;
    let mut waiters = [joined(&layout)?, joined(&layout)?];
    for waiter in &mut waiters {
        waiter.send("mutex wait");
    }
    for waiter in &mut waiters {
        let end = Instant::now() + LONG;
        let answer = loop {
            assert!(Instant::now() < end, "no notification has arrived");
            drop(layout.pair.lock(&presence, long()).expect("nobody dies"));
            layout.changed.notify_all()?;
            if let Some(answer) = waiter.answered() {
                break answer;
            }
        };
        assert_eq!(answer, "ok notified: true");
    }
    let guard = layout.pair.lock(&presence, long()).expect("nobody dies");
    let wait = Wait::new().timeout(Duration::from_millis(30));
    let (_guard, notified) = layout.changed.wait(guard, wait).expect("nobody dies");
    assert!(!notified);
    Ok(())
}

pub(crate) fn waiters_for_a_condition_notice_the_death_of_its_owner() -> Outcome {
    let layout = layout()?;
    let mut waiter = joined(&layout)?;
    waiter.send("mutex wait");
    let segment = Provider::new()?.shmem_from_id(layout.id())?.share();
    let words = segment.access().as_atomic_u32()?;
    // The second word of the condition variable, behind the header of the segment.
    let waiters = &words[(64 + mem::offset_of!(Layout, changed)) / 4 + 1];
    let end = Instant::now() + LONG;
    while waiters.load(Relaxed) == 0 {
        assert!(Instant::now() < end, "the peer does not wait");
        thread::yield_now();
    }
    let mut owner = joined(&layout)?;
    owner.execute("mutex hold")?;
    owner.kill();
    assert_eq!(waiter.answer_to("mutex wait")?, "abandoned");
    Ok(())
}
