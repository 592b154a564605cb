//! The tests of this program.

mod attack;
mod directories;
mod discovery;
mod election;
mod files;
mod fork;
mod lifetime;
mod lock;
mod peer;
mod raw;
mod single_writer;
mod start;
mod threads;

use attack::{addresses, crowds, descriptors, exhaustion, frames, locks, slow, stopped};
use libtest_mimic::Arguments;

#[allow(clippy::too_many_lines, reason = "a list")]
pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = testkit::trials! {
        lifetime: [
            ids_outlive_their_creator,
            segments_of_dead_clients_are_released,
            everything_is_close_on_exec,
            the_service_maps_nothing,
            a_stopped_service_leaves_no_file,
            clients_survive_a_stop,
        ]
        discovery: [
            programs_of_a_user_share_the_default_address,
            address_in_the_environment_is_used,
            programs_in_different_pid_namespaces_share_segments,
            ids_of_one_address_are_unknown_at_another,
            impossible_addresses_are_errors,
            only_one_serves_at_an_address,
        ]
        election: [
            clients_survive_a_hundred_killed_hosts,
            segment_of_an_idle_client_survives_its_host,
            nothing_is_left_after_all_are_killed,
            inherited_sockets_of_a_dead_host_block_nobody,
        ]
        files: [
            files_in_a_swapped_directory_are_left_alone,
            host_recreates_its_removed_files,
            clients_survive_repeated_removal_of_the_files,
            clients_survive_removal_of_the_directory,
            nothing_is_left_after_errors,
            files_of_a_killed_host_are_removed,
            files_left_by_exit_are_removed,
            sockets_of_other_programs_are_left_alone,
        ]
        lock: [
            host_without_a_lock_is_not_replaced,
            stopped_host_without_a_lock_is_not_replaced,
            segments_move_from_an_old_host_to_a_new_one,
            other_spellings_of_the_address_keep_the_lock,
            host_takes_its_lost_lock_again,
        ]
        directories: [
            directory_of_another_user_is_refused,
            parents_that_others_may_rename_are_refused,
            relative_address_does_not_follow_the_working_directory,
            home_is_used_if_the_directory_is_squatted,
            first_directory_is_used_again_once_it_is_usable,
            host_serves_its_old_address_after_chroot,
            host_that_changes_its_user_is_replaced,
            unmapped_user_is_refused,
            variables_are_ignored_in_setuid_programs,
            address_errors_name_path_source_and_cure,
            permission_errors_name_path_and_cause,
            read_only_directory_is_an_error_that_names_it,
        ]
        fork: [
            a_child_holds_what_its_parent_held,
            unannounced_child_registers_what_it_inherited,
            child_keeps_segments_if_its_parent_dies_first,
            child_keeps_segments_after_host_dies_during_fork,
            idle_child_keeps_segments_after_host_dies,
            silent_child_leaks_no_descriptors,
            announced_fork_that_never_happens_expires,
            slow_fork_keeps_other_threads_out,
            hundreds_of_forks_leak_no_descriptors,
            generations_of_children_leak_no_descriptors,
            shared_providers_fork_while_threads_use_them,
        ]
        threads: [
            many_threads_share_a_provider,
            shared_providers_work_over_every_mechanism,
            segments_are_released_once,
            segments_drop_without_a_service,
        ]
        single_writer: [
            a_single_writer_is_refused_where_descriptors_can_be_reopened,
            no_descriptor_of_a_single_writer_permits_writing,
            the_writer_writes_and_has_no_other_mapping,
            a_new_host_hands_out_no_more_than_the_old_one,
            a_writer_can_give_up_its_permission,
        ]
        frames: [
            silent_connections_are_closed,
            incomplete_frames_end_the_connection,
            slow_frames_end_the_connection,
            random_bytes_harm_nobody,
            malformed_frames_end_the_connection,
            ids_of_others_cannot_be_taken_or_released,
        ]
        locks: [
            bytes_of_segments_that_are_not_held_cannot_be_locked,
            locks_of_others_cannot_be_released,
            segments_of_an_earlier_service_are_not_free,
        ]
        descriptors: [
            unexpected_descriptors_end_the_connection,
            descriptors_of_other_objects_are_refused,
            memory_that_can_shrink_is_refused,
            unread_replies_are_bounded,
            segment_of_2_to_the_60_bytes_is_refused,
        ]
        crowds: [
            a_thousand_connections_block_nobody,
            a_thousand_holders_block_nobody,
            segments_of_a_client_are_bounded,
            announced_forks_are_bounded,
            host_without_descriptors_still_hands_out_segments,
            host_with_descriptors_again_accepts_segments,
        ]
        exhaustion: [
            one_sender_of_slow_descriptors_blocks_nobody,
            ten_senders_of_slow_descriptors_block_nobody,
            slow_descriptors_in_the_backlog_block_nobody,
            one_constant_connector_blocks_nobody,
            ten_constant_connectors_block_nobody,
            one_hoarder_blocks_nobody,
            ten_hoarders_block_nobody,
            ten_hoarders_of_another_pid_namespace_block_nobody,
            announced_forks_use_little_memory,
            memory_is_freed_by_another_thread,
        ]
        slow: [
            silent_service_blocks_no_client,
            slow_service_blocks_no_client,
            service_that_sends_single_bytes_blocks_no_client,
            service_that_sends_slow_descriptors_blocks_no_client,
            release_does_not_wait,
            deadlines_of_threads_do_not_add_up,
            client_without_descriptors_gets_an_error_that_names_the_limit,
        ]
        start: [
            notifications_of_message_queues_stay,
            record_locks_stay,
            start_does_not_wait_for_a_silent_file,
            start_in_a_silent_directory_is_an_error,
            too_many_watches_is_an_error_that_names_the_limit,
        ]
        stopped: [
            stopped_clients_keep_their_segments_and_block_nobody,
            clients_killed_at_any_moment_harm_nobody,
            stopped_host_is_an_error,
        ]
        addresses: [
            files_of_dead_services_are_replaced,
            another_user_is_turned_away,
            address_taken_by_another_user_is_refused,
            directories_that_are_not_ours_are_refused,
        ]
    };
    testkit::peer::make_public_program();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    testkit::peer::remove_public_program();
    conclusion.exit();
}
