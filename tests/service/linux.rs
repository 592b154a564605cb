//! The tests of this program.

#[path = "../support/forbid.rs"]
mod forbid;
#[allow(dead_code, reason = "some of it is for the other test programs")]
#[path = "../support/process.rs"]
mod process;
#[allow(dead_code, reason = "some of it is for the other test programs")]
#[path = "../support/mod.rs"]
mod support;
#[macro_use]
#[path = "../support/trials.rs"]
mod trials;

mod attack;
mod election;
mod files;
mod fork;
mod lifetime;
mod meeting;
mod peer;
mod raw;
mod start;
mod threads;

use attack::{crowds, descriptors, exhaustion, frames, slow, stopped, strangers};
use libtest_mimic::Arguments;

#[allow(clippy::too_many_lines, reason = "a list")]
pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = trials! {
        lifetime: [
            ids_outlive_their_creator,
            what_only_a_dead_client_held_is_let_go,
            everything_is_close_on_exec,
            the_service_maps_nothing,
            a_stopped_service_leaves_no_file,
            clients_survive_a_stop,
        ]
        meeting: [
            programs_of_a_user_meet_by_themselves,
            an_address_in_the_environment,
            programs_in_different_pid_namespaces,
            two_addresses_are_two_worlds,
            addresses_that_cannot_be,
            only_one_serves_at_an_address,
        ]
        election: [
            the_host_is_killed_a_hundred_times,
            a_segment_that_only_a_silent_client_holds,
            everybody_is_killed,
            a_host_that_shares_its_descriptors,
        ]
        files: [
            a_swapped_folder,
            a_folder_of_another_user,
            parents_that_others_may_rename,
            a_relative_address_and_another_working_directory,
            an_emptied_folder,
            an_emptied_folder_again_and_again,
            a_removed_folder,
            a_missing_lock_unseats_nobody,
            a_missing_lock_of_a_stopped_host,
            an_old_host_beside_a_new_one,
            a_squatted_folder,
            back_in_the_first_folder,
            another_root_directory,
            another_user_by_now,
            a_user_that_is_not_mapped,
            more_rights_than_the_user,
            nothing_is_left_after_errors,
            what_a_killed_host_has_left,
            what_exit_has_left,
            other_spellings_in_one_process,
            sockets_of_other_programs,
            errors_about_addresses,
            errors_about_permissions,
            a_lock_that_its_own_process_loses,
            a_read_only_folder,
        ]
        fork: [
            a_child_holds_what_its_parent_held,
            a_child_that_was_not_announced,
            a_parent_that_dies_before_its_child_speaks,
            a_service_that_dies_between,
            a_service_that_dies_afterwards,
            a_child_that_never_speaks,
            a_fork_that_never_happens,
            a_fork_that_takes_longer_than_a_second,
            hundreds_of_forks,
            children_of_children,
            counted_providers_while_threads_use_them,
        ]
        threads: [
            many_threads_share_a_provider,
            counted_providers_of_every_kind,
            segments_are_released_once,
            drops_with_a_dead_service,
        ]
        frames: [
            nothing_is_said,
            one_byte_and_then_nothing,
            one_byte_a_second,
            random_bytes,
            lies_about_form,
            lies_about_ids,
        ]
        descriptors: [
            with_every_frame,
            of_what_is_no_memory,
            of_memory_that_can_shrink,
            that_are_never_taken,
            a_segment_of_2_to_the_60_bytes,
        ]
        crowds: [
            a_thousand_connections,
            a_thousand_holders,
            a_million_segments,
            a_thousand_forks,
            no_descriptors_left_in_the_host,
            descriptors_that_are_free_again,
        ]
        exhaustion: [
            one_that_sends_what_takes_long_to_close,
            ten_that_send_what_takes_long_to_close,
            ten_that_put_it_where_nobody_looks_at_it,
            one_that_connects_all_the_time,
            ten_that_connect_all_the_time,
            one_that_takes_what_there_is,
            ten_that_take_what_there_is,
            ten_from_another_pid_namespace,
            ten_that_announce_forks,
            memory_is_freed_by_another_thread,
        ]
        slow: [
            a_service_that_is_silent,
            a_service_that_is_slow,
            a_service_that_says_one_byte_at_a_time,
            a_service_that_sends_what_takes_long_to_close,
            letting_go_does_not_wait,
            many_threads_and_a_host_that_is_stopped,
            a_client_without_room_for_a_descriptor,
        ]
        start: [
            notifications_of_message_queues_stay,
            record_locks_stay,
            a_file_that_does_not_get_closed,
            a_folder_that_does_not_answer,
        ]
        stopped: [
            clients_that_are_stopped,
            clients_that_are_killed_at_any_moment,
            a_host_that_is_stopped,
        ]
        strangers: [
            files_of_dead_services,
            another_user_is_turned_away,
            another_user_takes_the_address_first,
            folders_that_are_not_ours,
        ]
    };
    process::make_public_program();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    process::remove_public_program();
    conclusion.exit();
}
