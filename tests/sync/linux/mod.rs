//! The tests of this program.
#![allow(unsafe_code)]

mod doorbell;
mod event;
mod latest;
mod mutex;
mod peer;
mod presence;
mod ring;
mod served;
mod sysv;
mod turn;
mod wake;

use std::time::{Duration, Instant};
use std::{fs, thread};

use libtest_mimic::{Arguments, Trial};
use shmem_providers::wake::Wait;
use testkit::peer::{make_public_program, remove_public_program};
use testkit::{Outcome, open_files};

use self::peer::Peer;

/// Longer than any test takes: a wait that ends by this timeout has missed a wake-up.
const WAIT: Wait = Wait::new().timeout(Duration::from_secs(50));

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

#[allow(clippy::too_many_lines, reason = "a list")]
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
        event: [
            an_event_wakes_all_that_wait,
            a_killed_taker_keeps_the_event_from_nobody,
            processes_pass_a_barrier_together,
            a_killed_participant_is_missed_and_replaced,
        ]
        latest: [
            no_reader_of_a_fast_writer_gets_torn_values,
            killed_writers_are_replaced,
            a_writer_killed_in_the_middle_leaves_the_last_value,
            a_reader_killed_in_its_sleep_is_no_burden,
            started_programs_find_it_in_their_environment,
        ]
        mutex: [
            processes_exclude_each_other,
            the_death_of_an_owner_is_noticed_once,
            owners_killed_at_any_time_harm_nobody,
            a_killed_waiter_is_no_burden,
            the_next_process_in_a_slot_is_not_the_dead_one,
            a_child_of_the_owner_does_not_keep_it_alive,
            a_child_does_not_unlock_for_its_parent,
            deaths_in_other_pid_namespaces_are_noticed,
            a_full_table_is_an_error,
            every_segment_will_do,
            threads_of_a_participant_exclude_each_other,
            garbled_words_cause_no_hang,
            waiters_for_a_condition_are_notified,
            waiters_for_a_condition_notice_the_death_of_its_owner,
        ]
        presence: [
            processes_that_join_at_once_get_different_slots,
            segments_of_a_namespace_do_not_disturb_each_other,
            segments_with_the_same_number_in_other_namespaces_are_others,
            the_default_provider_will_do_in_a_process_that_is_not_dumpable,
            without_proc_the_error_tells_what_to_do,
            foreign_locks_end_with_timeouts,
            a_signal_handler_may_fork,
        ]
        served: [
            locks_survive_their_host,
            the_first_can_join_after_the_host_has_died,
            a_host_that_has_the_lock_is_noticed_when_it_dies,
            a_stopped_participant_is_never_taken_for_dead,
            a_participant_that_dies_while_it_is_stopped_is_dead,
            a_child_does_not_keep_its_parent_present,
            hosts_killed_at_any_time_harm_nobody,
            a_segment_with_two_ids_has_no_locks_of_its_second_one,
            segments_without_a_service_name_the_way_that_works,
        ]
        ring: [
            messages_arrive_whole_and_in_order,
            a_killed_writer_is_replaced,
            a_killed_reader_is_replaced,
            a_reader_killed_in_its_sleep_is_no_burden,
            full_and_empty_rings_end_waits_in_time,
            there_are_no_system_calls_unless_the_other_side_sleeps,
            started_programs_find_it_in_their_environment,
        ]
        sysv: [
            processes_exclude_each_other,
            the_death_of_an_owner_is_noticed_once,
            owners_killed_at_any_time_harm_nobody,
            the_next_process_in_a_slot_is_not_the_dead_one,
            a_child_of_the_owner_does_not_keep_it_alive,
            a_child_does_not_unlock_for_its_parent,
            deaths_in_other_pid_namespaces_are_noticed,
            waiters_for_a_condition_are_notified,
        ]
        turn: [
            two_processes_take_turns,
            three_processes_take_turns_in_a_round,
            a_killed_waiter_affects_nobody,
            the_turn_of_a_killed_process_is_passed_on,
            only_sleepers_cost_system_calls,
            a_peer_that_writes_nonsense_prolongs_no_wait,
        ]
        wake: [
            processes_wake_each_other,
            all_waiters_are_woken,
            waits_end_at_their_timeout,
            signals_do_not_end_a_wait,
            a_killed_waiter_is_not_counted,
            any_of_several_words_ends_a_wait,
            a_killed_waiter_for_several_words_is_not_counted,
            waiting_for_several_words_needs_no_system_call,
            waits_for_no_and_for_many_words,
            hand_overs_lose_no_wake_up,
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
        thread::yield_now();
    }
    testkit::skip(format!("{path} does not show whether a process sleeps"))
}
