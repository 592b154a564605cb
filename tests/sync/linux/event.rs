//! Events and barriers.

use std::time::Duration;

use shmem_providers::sync::{Barrier, BarrierOutcome, Event};
use shmem_providers::wake::Wait;
use shmem_providers::{ShMemId, ShMemProvider, SharedLayout, StdShMemProvider, Typed};
use testkit::Outcome;
use testkit::peer::Peer;

use super::peer::Answer;
use super::{WAIT, until_it_sleeps};

#[derive(SharedLayout)]
#[repr(C)]
struct Words {
    event: Event,
    barrier: Barrier,
}

/// Short enough to end in a test, when nothing else can end the wait.
const SOON: Wait = Wait::new().timeout(Duration::from_millis(20));

fn created() -> Outcome<Typed<Words>> {
    Ok(Typed::create(&mut StdShMemProvider::new()?, |_| ())?)
}

/// Starts a process that executes this command, and waits until it sleeps.
fn sleeper(command: &str, words: &Typed<Words>) -> Outcome<Peer> {
    let mut peer = Peer::start();
    peer.send(&format!("event {command} {}", words.id()));
    until_it_sleeps(&peer)?;
    Ok(peer)
}

pub(crate) fn an_event_wakes_all_that_wait() -> Outcome {
    let words = created()?;
    let mut peers = [sleeper("wait", &words)?, sleeper("wait", &words)?];
    assert!(!words.event.wait(SOON)?);
    words.event.set()?;
    for peer in &mut peers {
        assert_eq!(peer.answer_to("wait")?, "true");
    }
    assert!(words.event.is_set() && words.event.reset() && !words.event.reset());
    Ok(())
}

pub(crate) fn a_killed_taker_keeps_the_event_from_nobody() -> Outcome {
    let words = created()?;
    let killed = sleeper("take", &words)?;
    let mut other = sleeper("take", &words)?;
    killed.kill();
    words.event.set()?;
    assert_eq!(other.answer_to("take")?, "true");
    assert!(!words.event.is_set());
    Ok(())
}

pub(crate) fn processes_pass_a_barrier_together() -> Outcome {
    let words = created()?;
    let mut peers = [sleeper("arrive", &words)?, sleeper("arrive", &words)?];
    assert_eq!(words.barrier.wait(3, WAIT)?, BarrierOutcome::Leader);
    for peer in &mut peers {
        assert_eq!(peer.answer_to("arrive")?, "Passed");
    }
    Ok(())
}

pub(crate) fn a_killed_participant_is_missed_and_replaced() -> Outcome {
    let words = created()?;
    // Whoever withdraws does not count any more.
    assert_eq!(words.barrier.wait(2, SOON)?, BarrierOutcome::TimedOut);
    assert_eq!(words.barrier.wait(2, SOON)?, BarrierOutcome::TimedOut);
    // One that is killed while it waits does, until the barrier is reset.
    sleeper("arrive", &words)?.kill();
    let mut other = sleeper("arrive", &words)?;
    words.barrier.reset()?;
    assert_eq!(other.answer_to("arrive")?, "Reset");
    let mut peers = [sleeper("arrive", &words)?, sleeper("arrive", &words)?];
    assert_eq!(words.barrier.wait(3, WAIT)?, BarrierOutcome::Leader);
    for peer in &mut peers {
        assert_eq!(peer.answer_to("arrive")?, "Passed");
    }
    Ok(())
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let [command, id] = *words else {
        return Err(format!("unknown command {words:?}").into());
    };
    let words = Typed::<Words>::open(&mut StdShMemProvider::new()?, ShMemId::from_string(id))?;
    match command {
        "wait" => Ok(words.event.wait(WAIT)?.to_string()),
        "take" => Ok(words.event.take(WAIT)?.to_string()),
        "arrive" => Ok(format!("{:?}", words.barrier.wait(3, WAIT)?)),
        _ => Err(format!("unknown command {command}").into()),
    }
}
