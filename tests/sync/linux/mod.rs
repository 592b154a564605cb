//! The tests of this program.
#![allow(unsafe_code)]

mod doorbell;
mod peer;

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use testkit::peer::{make_public_program, remove_public_program};
use testkit::{Outcome, open_files};

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    make_public_program();
    let mut arguments = Arguments::from_args();
    // Descriptors are counted before and after each test.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials());
    remove_public_program();
    conclusion.exit();
}

fn trials() -> Vec<Trial> {
    macro_rules! watched_trials {
        ($($module:ident: [$($test:ident),* $(,)?])*) => {
            vec![$($(testkit::trial(
                concat!(stringify!($module), "::", stringify!($test)),
                || watched($module::$test),
            ),)*)*]
        };
    }
    watched_trials! {
        doorbell: [
            another_process_rings_by_id,
            an_unarmed_slot_makes_no_system_call,
            no_ring_is_lost_between_processes,
            a_killed_owner_is_noticed_without_a_signal,
            signals_of_the_program_are_left_alone,
            a_forked_child_keeps_the_pipe,
            recycled_numbers_are_not_found,
            only_doorbells_are_written_to,
            another_users_doorbell_is_refused,
            fifos_with_a_path_are_not_opened,
            a_full_pipe_blocks_nobody,
            damaged_slots_harm_nobody,
            a_passed_descriptor_rings,
            what_is_no_write_end_is_refused,
            the_newest_doorbell_of_a_slot_is_rung,
        ]
    }
}

/// Runs a test, and compares what is open before and after.
fn watched(test: impl FnOnce() -> Outcome) -> Outcome {
    let before = open_files();
    test()?;
    // The thread that reads the answers of a peer closes its end some time after the peer has ended.
    let end = Instant::now() + Duration::from_secs(60);
    while open_files() != before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_files(), before, "left open");
    Ok(())
}
