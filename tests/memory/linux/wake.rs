//! Waiting for other processes.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shmem_providers::wake::{self, Wait};
use shmem_providers::{
    ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider, UnixShMemProvider,
};

use super::peer::{Answer, Commands, Peer};
use testkit::{Outcome, skip};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const LONG: Duration = Duration::from_secs(50);

/// The index of the word in which waiters count themselves.
const WAITERS: usize = 8;

pub(crate) fn processes_wake_each_other() -> Outcome {
    for spins in [0, 1, 1000] {
        let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
        play(&mut segment, spins)?;
        let mut segment = match UnixShMemProvider::new()?.new_shmem(4096) {
            Ok(segment) => segment,
            Err(error) => return skip(error),
        };
        play(&mut segment, spins)?;
    }
    Ok(())
}

fn play(segment: &mut impl ShMem, spins: u32) -> Result<(), Box<dyn std::error::Error>> {
    const ROUNDS: u32 = 2000;
    let mut peer = Peer::start();
    peer.send(&format!("pong {} {ROUNDS}", segment.id()));
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
        peer.start_waiting(&segment.id());
    }
    let words = segment.access().as_atomic_u32()?;
    // Each peer counts itself some time before it waits.
    until(|| words[WAITERS].load(Ordering::Acquire) == 3);
    words[0].store(5, Ordering::Release);
    wake::all(&words[0])?;
    for peer in &mut peers {
        assert_eq!(peer.woken_by()?, 5);
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
    peer.execute("timer 500")?;
    peer.start_waiting(&segment.id());
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
    assert_eq!(peer.woken_by()?, 6);
    Ok(())
}

pub(crate) fn a_killed_waiter_is_not_counted() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let mut peer = Peer::start();
    peer.start_waiting(&segment.id());
    let words = segment.access().as_atomic_u32()?;
    until(|| words[WAITERS].load(Ordering::Acquire) == 1);
    peer.kill();
    words[0].store(1, Ordering::Release);
    assert_eq!(wake::all(&words[0])?, 0);
    Ok(())
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

fn opened(id: &str) -> Result<StdShMem, shmem_providers::Error> {
    StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(id))
}

/// What a peer does: answers each odd number with the next one.
pub(crate) fn pong(id: &str, rounds: u32) -> Answer {
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

/// What a peer does: counts itself, waits while the first word has this value, and returns the new one.
pub(crate) fn wait(id: &str, value: u32) -> Answer {
    let mut segment = opened(id)?;
    let words = segment.access().as_atomic_u32()?;
    words[WAITERS].fetch_add(1, Ordering::Release);
    let found = Wait::new().timeout(LONG).while_equal(&words[0], value)?;
    Ok(found.ok_or("no wake-up has arrived")?.to_string())
}

/// What a peer does: raises a signal, which is caught, every `micros` microseconds.
pub(crate) fn timer(micros: libc::suseconds_t) -> Answer {
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
