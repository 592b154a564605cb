//! Waiting for other processes.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shmem_providers::wake::{self, Wait};
use shmem_providers::{
    Error, ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider, UnixShMemProvider,
};

use super::peer::{Answer, Peer};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, skip};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const LONG: Duration = Duration::from_secs(50);

/// The index of the word in which waiters count themselves.
const WAITERS: usize = 8;

/// The index of a second word.
const OTHER: usize = 32;

pub(crate) fn processes_wake_each_other() -> Outcome {
    for spins in [0, 1, 1000] {
        let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
        play(&mut segment, spins)?;
        let mut segment = match UnixShMemProvider::new()?.new_shmem(4096) {
            Ok(segment) => segment,
            Err(error) => return skip(error),
        };
        if opened(segment.id().as_str()).is_err() {
            // Only the default of Linux opens every kind of id.
            return Ok(());
        }
        play(&mut segment, spins)?;
    }
    Ok(())
}

fn play(segment: &mut impl ShMem, spins: u32) -> Result<(), Box<dyn std::error::Error>> {
    const ROUNDS: u32 = 2000;
    let mut peer = Peer::start();
    peer.send(&format!("wake pong {} {ROUNDS}", segment.id()));
    let word = &segment.access().as_atomic_u32()?[0];
    let wait = Wait::new().spins(spins).timeout(LONG);
    for round in 0..ROUNDS {
        word.store(2 * round + 1, Ordering::Release);
        wake::one(word)?;
        assert_eq!(wait.while_equal(word, 2 * round + 1)?, Some(2 * round + 2));
    }
    Ok(())
}

pub(crate) fn all_waiters_are_woken() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let mut peers: Vec<_> = (0..3).map(|_| Peer::start()).collect();
    for peer in &mut peers {
        peer.send(&format!("wake wait {} 0", segment.id()));
    }
    let words = segment.access().as_atomic_u32()?;
    // Each peer counts itself some time before it waits.
    until(|| words[WAITERS].load(Ordering::Acquire) == 3);
    words[0].store(5, Ordering::Release);
    wake::all(&words[0])?;
    for peer in &mut peers {
        assert_eq!(peer.answer_to("wake")?, "5");
    }
    assert_eq!(wake::all(&words[0])?, 0);
    assert!(!wake::one(&words[0])?);
    Ok(())
}

pub(crate) fn waits_end_at_their_timeout() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let word = &segment.access().as_atomic_u32()?[0];
    for millis in [0, 1, 20] {
        let wait = Wait::new().timeout(Duration::from_millis(millis));
        assert_eq!(wait.while_equal(word, 0)?, None);
        assert_eq!(wait.while_equal(word, 1)?, Some(0));
    }
    // A timeout beyond the clock never ends, and a value that has changed needs no wait.
    let wait = Wait::new().spins(0).timeout(Duration::MAX);
    assert_eq!(wait.while_equal(word, 1)?, Some(0));
    Ok(())
}

pub(crate) fn signals_do_not_end_a_wait() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let mut peer = Peer::start();
    peer.execute("wake timer 500")?;
    peer.send(&format!("wake wait {} 0", segment.id()));
    let words = segment.access().as_atomic_u32()?;
    until(|| words[WAITERS].load(Ordering::Acquire) == 1);
    // The time of a hundred signals.
    assert_eq!(
        Wait::new()
            .timeout(Duration::from_millis(50))
            .while_equal(&words[0], 0)?,
        None
    );
    words[0].store(6, Ordering::Release);
    wake::one(&words[0])?;
    assert_eq!(peer.answer_to("wake")?, "6");
    Ok(())
}

pub(crate) fn a_killed_waiter_is_not_counted() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let mut peer = Peer::start();
    peer.send(&format!("wake wait {} 0", segment.id()));
    let words = segment.access().as_atomic_u32()?;
    until(|| words[WAITERS].load(Ordering::Acquire) == 1);
    peer.kill();
    words[0].store(1, Ordering::Release);
    assert_eq!(wake::all(&words[0])?, 0);
    Ok(())
}

pub(crate) fn any_of_several_words_ends_a_wait() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let mut segments = [provider.new_shmem(4096)?, provider.new_shmem(4096)?];
    let ids = segments.each_ref().map(ShMem::id);
    let [first, second] = segments.each_mut().map(ShMem::access);
    let (first, second) = (first.as_atomic_u32()?, second.as_atomic_u32()?);
    for round in 0..4 {
        let word = [&first[0], &second[0]][round % 2];
        let mut peer = Peer::start();
        peer.send(&format!("wake any {} {}", ids[0], ids[1]));
        until(|| first[WAITERS].load(Ordering::Acquire) == 1);
        if round >= 2 && wake::is_native() && !is_refused() {
            // It sleeps, is woken, and sleeps again, because no word has changed.
            until(|| wake::one(word) == Ok(true));
        }
        word.store(3, Ordering::Release);
        wake::one(word)?;
        assert_eq!(peer.answer_to("wake")?, (round % 2).to_string());
        word.store(0, Ordering::Relaxed);
        first[WAITERS].store(0, Ordering::Relaxed);
    }
    Ok(())
}

pub(crate) fn a_killed_waiter_for_several_words_is_not_counted() -> Outcome {
    if is_refused() {
        return skip("this kernel cannot wait for several words (futex_waitv)");
    }
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let id = segment.id();
    let words = segment.access().as_atomic_u32()?;
    let mut peer = Peer::start();
    peer.send(&format!("wake any {id} {id}"));
    until(|| words[WAITERS].load(Ordering::Acquire) == 1);
    if wake::is_native() {
        until(|| wake::one(&words[0]) == Ok(true));
    }
    peer.kill();
    words[0].store(1, Ordering::Release);
    assert_eq!(wake::all(&words[0])?, 0);
    // The next one is not disturbed.
    words[0].store(0, Ordering::Release);
    let mut peer = Peer::start();
    peer.send(&format!("wake any {id} {id}"));
    until(|| words[WAITERS].load(Ordering::Acquire) == 2);
    words[0].store(1, Ordering::Release);
    wake::one(&words[0])?;
    // The word was mapped twice. It can change between two looks at it.
    let changed = peer.answer_to("wake")?;
    assert!(["0", "1"].contains(&&*changed), "{changed}");
    Ok(())
}

pub(crate) fn waiting_for_several_words_needs_no_system_call() -> Outcome {
    for errno in ["ENOSYS", "EPERM"] {
        let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
        let id = segment.id();
        let words = segment.access().as_atomic_u32()?;
        let mut peer = Peer::start();
        forbid_in(&mut peer, errno, "futex_waitv")?;
        peer.send(&format!("wake any {id} {id}"));
        until(|| words[WAITERS].load(Ordering::Acquire) == 1);
        // Long enough for the longest pause.
        assert_eq!(peer.answered(), None);
        words[0].store(1, Ordering::Release);
        wake::one(&words[0])?;
        let changed = peer.answer_to("wake")?;
        assert!(["0", "1"].contains(&&*changed), "{changed}");
    }
    Ok(())
}

pub(crate) fn waits_for_no_and_for_many_words() -> Outcome {
    let wait = Wait::new().timeout(Duration::from_millis(2));
    assert_eq!(wake::any(&[], wait)?, None);
    let endless = wake::any(&[], Wait::new());
    assert!(matches!(endless, Err(Error::Unsupported { .. })));

    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let words = segment.access().as_atomic_u32()?;
    for count in [1, 2, 128, 129, 1000] {
        let mut all: Vec<_> = words[..count].iter().map(|word| (word, 0)).collect();
        assert_eq!(wake::any(&all, wait)?, None);
        // The first of those that differ.
        all[count - 1].1 = 1;
        assert_eq!(wake::any(&all, wait)?, Some(count - 1));
        all[count / 2].1 = 1;
        assert_eq!(wake::any(&all, wait.spins(0))?, Some(count / 2));
        // One that changes while it is waited for.
        for (_, value) in &mut all {
            *value = 0;
        }
        std::thread::scope(|scope| {
            let (word, _) = all[count - 1];
            let waiter = scope.spawn(|| wake::any(&all, Wait::new().timeout(LONG)));
            word.store(9, Ordering::Release);
            wake::one(word)?;
            assert_eq!(waiter.join().expect("it does not panic")?, Some(count - 1));
            word.store(0, Ordering::Release);
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

/// A process that misses a single one waits until the timeout.
pub(crate) fn hand_overs_lose_no_wake_up() -> Outcome {
    // Of 100 000 hand-overs, half wake by `any`. Polling is slower.
    let rounds = if wake::is_native() { 25_000 } else { 500 };
    for (command, spins) in [("pong", 0), ("pong-any", 0)] {
        let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
        let mut peer = Peer::start();
        peer.send(&format!("wake {command} {} {rounds}", segment.id()));
        let words = segment.access().as_atomic_u32()?;
        let wait = Wait::new().spins(spins).timeout(LONG);
        for round in 0..rounds {
            let (asked, answered) = (2 * round + 1, 2 * round + 2);
            // To `pong-any`, every other question is asked with another word.
            let other = command == "pong-any" && round % 2 == 1;
            let word = &words[if other { OTHER } else { 0 }];
            if other {
                words[0].store(asked, Ordering::Relaxed);
            }
            word.store(asked, Ordering::Release);
            wake::one(word)?;
            let mut found = words[0].load(Ordering::Acquire);
            while found == asked {
                found = wait
                    .while_equal(&words[0], asked)?
                    .ok_or("a wake-up was lost")?;
            }
            assert_eq!(found, answered);
        }
        peer.answer_to("wake")?;
    }
    Ok(())
}

/// Returns `true` if `any` polls although the system wakes processes: on kernels before 5.16.
fn is_refused() -> bool {
    // SAFETY: without words the call fails, with another error than ENOSYS where it exists.
    unsafe { libc::syscall(libc::SYS_futex_waitv, 0, 0, 0, 0, 0) };
    wake::is_native() && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

/// Waits until another process has established a condition.
#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "the condition has not become true");
        std::thread::yield_now();
    }
}

fn opened(id: &str) -> Result<StdShMem, Error> {
    StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(id))
}

/// What a peer does.
pub(crate) fn execute(command: &[&str]) -> Answer {
    match *command {
        ["pong", id, rounds] => pong(id, rounds.parse()?),
        ["pong-any", id, rounds] => pong_any(id, rounds.parse()?),
        ["any", id, other] => wait_for_any(id, other),
        ["wait", id, value] => wait(id, value.parse()?),
        ["timer", micros] => timer(micros.parse()?),
        _ => Err(format!("unknown command {command:?}").into()),
    }
}

/// Answers each odd number with the next one.
fn pong(id: &str, rounds: u32) -> Answer {
    let mut segment = opened(id)?;
    let word = &segment.access().as_atomic_u32()?[0];
    let wait = Wait::new().timeout(LONG);
    for round in 0..rounds {
        while word.load(Ordering::Acquire) == 2 * round {
            wait.while_equal(word, 2 * round)?
                .ok_or("no wake-up has arrived")?;
        }
        word.store(2 * round + 2, Ordering::Release);
        wake::one(word)?;
    }
    Ok(String::new())
}

/// As [`pong`], but every other question comes from another word than the answer goes to.
fn pong_any(id: &str, rounds: u32) -> Answer {
    let mut segment = opened(id)?;
    let words = segment.access().as_atomic_u32()?;
    let wait = Wait::new().spins(0).timeout(LONG);
    let mut last_other = 0;
    for round in 0..rounds {
        let asked = 2 * round + 1;
        if round % 2 == 1 {
            // The first word changes before, and nothing wakes those that wait for it.
            let all = [(&words[OTHER], last_other)];
            wake::any(&all, wait)?.ok_or("a wake-up was lost")?;
            last_other = asked;
        } else {
            let all = [(&words[OTHER], last_other), (&words[0], 2 * round)];
            let changed = wake::any(&all, wait)?.ok_or("a wake-up was lost")?;
            assert_eq!(changed, 1);
        }
        words[0].store(asked + 1, Ordering::Release);
        wake::one(&words[0])?;
    }
    Ok(String::new())
}

/// Counts itself, and waits while the first words of two segments are 0.
fn wait_for_any(id: &str, other: &str) -> Answer {
    let mut segments = [opened(id)?, opened(other)?];
    let [first, second] = segments.each_mut().map(ShMem::access);
    let (first, second) = (first.as_atomic_u32()?, second.as_atomic_u32()?);
    first[WAITERS].fetch_add(1, Ordering::Release);
    let wait = Wait::new().timeout(LONG);
    let changed = wake::any(&[(&first[0], 0), (&second[0], 0)], wait)?;
    Ok(changed.ok_or("no wake-up has arrived")?.to_string())
}

/// Counts itself, waits while the first word has this value, and returns the new one.
fn wait(id: &str, value: u32) -> Answer {
    let mut segment = opened(id)?;
    let words = segment.access().as_atomic_u32()?;
    words[WAITERS].fetch_add(1, Ordering::Release);
    let found = Wait::new().timeout(LONG).while_equal(&words[0], value)?;
    Ok(found.ok_or("no wake-up has arrived")?.to_string())
}

/// Raises a signal, which is caught, every `micros` microseconds.
fn timer(micros: libc::suseconds_t) -> Answer {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, which is safe at any time.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: micros,
    };
    let every = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the first pointer is to a valid value, and the second may be null.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const every, std::ptr::null_mut()) } {
        0 => Ok(String::new()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
