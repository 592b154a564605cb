//! The tests of this program.

mod event;
mod turn;

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use shmem_providers::wake::Wait;
use testkit::Outcome;
use testkit::peer::{self, Peer};

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const WAIT: Wait = Wait::new().timeout(Duration::from_secs(50));

/// The result of a command in the peer.
type Answer = Result<String, Box<dyn Error>>;

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve(execute);
    }
    peer::make_public_program();
    let trials = testkit::trials! {
        event: [
            an_event_wakes_all_that_wait,
            a_killed_taker_keeps_the_event_from_nobody,
            processes_pass_a_barrier_together,
            a_killed_participant_is_missed_and_replaced,
        ]
        turn: [
            two_processes_take_turns,
            three_processes_take_turns_in_a_round,
            a_killed_waiter_affects_nobody,
            the_turn_of_a_killed_process_is_passed_on,
            only_sleepers_cost_system_calls,
            a_peer_that_writes_nonsense_prolongs_no_wait,
        ]
    };
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    peer::remove_public_program();
    conclusion.exit();
}

fn execute(command: &[&str]) -> Answer {
    match *command {
        ["turn", ref words @ ..] => turn::execute(words),
        ["event", ref words @ ..] => event::execute(words),
        _ => Err(format!("unknown command {command:?}").into()),
    }
}

/// Waits until a process sleeps in a call of `futex(2)`.
fn until_it_sleeps(peer: &Peer) -> Outcome {
    let end = Instant::now() + Duration::from_secs(10);
    let path = format!("/proc/{}/wchan", peer.pid());
    while Instant::now() < end {
        // Empty or "0" where the kernel does not tell, or while the process runs.
        let at = fs::read_to_string(&path)?;
        if at.contains("futex") {
            return Ok(());
        }
        std::thread::yield_now();
    }
    testkit::skip(format!("{path} does not show whether a process sleeps"))
}
