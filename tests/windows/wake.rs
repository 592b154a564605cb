//! Waiting for words of sections.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::wake::{self, Wait};
use shmem_providers::{ShMem, ShMemOptions, ShMemProvider, StdShMem, StdShMemProvider};

use crate::peer::Peer;
use testkit::{Outcome, open_files};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const LONG: Duration = Duration::from_secs(50);

/// What a peer does: answers each odd number in a word with the next one.
pub(crate) fn pong(
    segment: &mut StdShMem,
    index: usize,
    rounds: u32,
) -> Result<String, Box<dyn Error>> {
    let word = &segment.access().as_atomic_u32()?[index];
    let wait = Wait::new().spins(0).timeout(LONG);
    for round in 0..rounds {
        wait.while_equal(word, 2 * round)?
            .ok_or("no wake-up has arrived")?;
        word.store(2 * round + 2, Ordering::Release);
        wake::one(word)?;
    }
    Ok(String::new())
}

pub(crate) fn processes_wake_each_other() -> Outcome {
    const ROUNDS: u32 = 300;
    assert!(wake::is_native());
    let reserved = ShMemOptions::new().reserve(1 << 20);
    let mut provider = StdShMemProvider::new()?;
    let ordinary = provider.new_shmem(4096)?;
    let (growable, _) = provider.new_shmem_with(4096, reserved)?;
    for mut segment in [ordinary, growable] {
        let mut peer = Peer::start();
        peer.ask(format!("open {}", segment.id()))?;
        peer.send(&format!("pong 5 {ROUNDS}"));
        let word = &segment.access().as_atomic_u32()?[5];
        // It sleeps, is woken, and sleeps again, because the word has not changed.
        until(|| wake::one(word) == Ok(true));
        let wait = Wait::new().spins(0).timeout(LONG);
        for round in 0..ROUNDS {
            word.store(2 * round + 1, Ordering::Release);
            wake::one(word)?;
            assert_eq!(wait.while_equal(word, 2 * round + 1)?, Some(2 * round + 2));
        }
        peer.answer_to("pong")?;
    }
    Ok(())
}

pub(crate) fn a_timeout_passes() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let word = &segment.access().as_atomic_u32()?[0];
    let before = open_files();
    for millis in [0, 1, 20, 250] {
        let wait = Wait::new().timeout(Duration::from_millis(millis));
        assert_eq!(wait.while_equal(word, 0)?, None);
        assert_eq!(wait.while_equal(word, 1)?, Some(0));
        assert_eq!(wake::any(&[(word, 0)], wait)?, None);
    }
    assert_eq!(wake::all(word)?, 0);
    // Other tests of this process may have opened some, but no wait keeps one.
    let after = open_files();
    assert!(after < before + 100, "{before} {after}");
    Ok(())
}

pub(crate) fn a_terminated_sleeper_leaves_nothing() -> Outcome {
    let mut segment = StdShMemProvider::new()?.new_shmem(4096)?;
    let id = segment.id();
    let words = segment.access().as_atomic_u32()?;
    let word = &words[0];
    for _ in 0..3 {
        let mut peer = Peer::start();
        peer.ask(format!("open {id}"))?;
        peer.send("pong 0 1");
        until(|| wake::one(word) == Ok(true));
        peer.kill();
        // The handles of a terminated process are closed before it counts as ended.
        assert_eq!(wake::all(word)?, 0);
    }
    let mut peer = Peer::start();
    peer.ask(format!("open {id}"))?;
    peer.send("pong 0 1");
    until(|| wake::one(word) == Ok(true));
    assert_eq!(wake::all(&words[1])?, 0);
    word.store(1, Ordering::Release);
    wake::one(word)?;
    peer.answer_to("pong")?;
    assert_eq!(word.load(Ordering::Acquire), 2);
    Ok(())
}

/// More than have a semaphore, by two views of the section, and for a word that is in none.
pub(crate) fn all_sleepers_see_the_change() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let mut segment = provider.new_shmem(4096)?;
    let mut second = provider.shmem_from_id(segment.id())?;
    let word = &segment.access().as_atomic_u32()?[3];
    let same = &second.access().as_atomic_u32()?[3];
    let on_the_heap = Box::new(AtomicU32::new(0));
    let wait = Wait::new().spins(0).timeout(LONG);
    thread::scope(|scope| {
        let sleepers: Vec<_> = [word, same, &on_the_heap]
            .repeat(5)
            .into_iter()
            .map(|word| scope.spawn(move || wait.while_equal(word, 0)))
            .collect();
        until(|| wake::all(word).is_ok_and(|woken| woken >= 4));
        assert_eq!(wake::all(&on_the_heap), Ok(0));
        on_the_heap.store(1, Ordering::Release);
        word.store(1, Ordering::Release);
        wake::all(word)?;
        for sleeper in sleepers {
            assert_eq!(sleeper.join().expect("it does not panic")?, Some(1));
        }
        Ok::<_, shmem_providers::Error>(())
    })?;
    assert_eq!(wake::all(word)?, 0);
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
