//! The tests of this program.

mod calls;
mod descriptors;
mod files;
mod fork;
mod handover;
mod hostile;
mod hostile_fds;
mod inherit;
mod inherit_env;
mod init;
mod kill;
mod limits;
mod lookup;
mod orphans;
mod peer;
mod posix;
mod procfs;
mod seccomp;
mod sharing;
mod stdio;
mod sysv;
mod users;

use libtest_mimic::Arguments;

#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = testkit::trials! {
        handover: [
            a_command_hands_over_id_and_size,
            whole_segment_is_attached_without_a_size,
            write_to_env_is_read_back,
            malformed_variables_are_errors,
            invalid_variable_names_are_errors,
            descriptors_are_not_inherited,
        ]
        descriptors: [
            a_descriptor_goes_through_a_socket,
            another_crate_maps_a_descriptor,
            a_shared_segment_has_its_descriptor,
            a_descriptor_given_away_holds_the_segment,
            released_and_system_v_segments_have_no_descriptor,
            a_memfd_of_another_program_has_the_empty_id,
            a_posix_descriptor_takes_the_lock_of_a_holder,
            a_posix_descriptor_without_a_name_has_the_empty_id,
            a_descriptor_is_registered_with_the_service,
        ]
        hostile_fds: [
            hostile_descriptors_are_refused_and_closed,
            memory_of_another_user_is_refused,
            a_received_descriptor_is_not_inherited,
            a_received_descriptor_has_no_number_of_a_standard_stream,
        ]
        inherit: [
            a_program_inherits_the_segment,
            system_v_segments_are_handed_over,
            no_other_program_inherits_it,
            it_is_inherited_for_reading,
            a_reader_passes_on_what_it_reads,
            a_single_writer_is_received_for_reading,
            a_file_is_inherited,
            a_command_holds_the_segment,
            it_works_in_another_pid_namespace,
            it_works_where_the_id_means_nothing,
            it_works_in_bubblewrap,
            it_works_under_landlock,
            it_works_for_undumpable_parents,
            the_child_outlives_a_killed_parent,
            a_pool_does_not_reuse_it,
            a_served_segment_needs_no_service,
            a_served_segment_with_a_single_writer_needs_no_service,
        ]
        inherit_env: [
            forged_numbers_are_left_alone,
            a_number_is_taken_over_at_the_first_call_or_never,
            a_later_hand_over_replaces_it,
            the_second_call_uses_the_id,
            threads_attach_at_the_same_time,
            the_error_names_both_reasons,
            a_segment_that_was_dropped_too_early_is_an_error_that_says_so,
        ]
        kill: [
            ids_outlive_their_creator,
            id_opens_through_ten_generations_of_holders,
            processes_killed_while_creating_leave_nothing,
            a_killed_creator_leaves_a_posix_name_that_can_be_removed,
            persisted_posix_segments_stay_until_removed,
        ]
        files: [
            ids_open_files_while_any_process_holds_them,
            ids_open_files_after_their_creator_was_killed,
            file_of_a_killed_holder_is_removed_by_the_next_creator,
            creators_killed_at_each_system_call_leave_no_file,
            forked_children_hold_files,
            creating_and_removing_files_disturbs_nobody,
            files_of_two_users_are_separate,
            directories_of_others_are_refused,
            files_that_are_not_segments_are_refused,
            full_file_system_is_an_error_that_names_tmpdir,
            files_without_locks_are_an_error_that_names_tmpdir,
            missing_directory_is_an_error_that_names_tmpdir,
            default_uses_a_file_if_nothing_else_is_allowed,
        ]
        fork: [
            a_child_that_drops_leaves_the_parents_segments,
            a_child_that_exits_leaves_the_parents_segments,
            a_child_holds_what_it_inherited,
            parent_and_child_create_different_ids,
        ]
        init: [
            a_child_leaves_the_posix_name,
            a_child_allocates_nothing_from_a_slab,
            a_child_takes_nothing_from_a_pool,
            a_child_uses_the_served_provider,
            a_child_is_not_blocked_by_a_lock_of_a_lost_thread,
        ]
        stdio: [
            segments_leave_the_numbers_of_standard_streams_alone,
            pipes_leave_the_numbers_of_standard_streams_alone,
            the_service_leaves_the_numbers_of_standard_streams_alone,
        ]
        hostile: [
            replaced_descriptor_is_not_opened,
            unsealed_memfd_is_refused,
            forged_memfd_hides_no_holder,
            a_peer_cannot_shrink_a_segment,
            other_files_in_dev_shm_are_refused,
            reused_shmid_of_a_smaller_segment_is_refused,
        ]
        lookup: [
            a_decoy_hides_no_holder,
            segments_open_after_the_main_thread_has_ended,
            segment_of_a_thread_with_its_own_descriptor_table_is_found,
            holder_in_another_primary_group_is_reported,
            holder_with_more_capabilities_is_reported,
            privileged_creator_without_descriptors_uses_system_v,
            undumpable_holder_is_reported,
            memfd_is_used_again_once_dumpable,
            segments_open_after_root_has_become_another_user,
            segments_of_the_former_user_are_refused,
            unmapped_user_is_refused,
            holder_in_another_user_namespace_is_reported,
            security_module_is_reported,
            root_leaves_other_users_descriptors_alone,
            fifo_with_a_forged_link_is_not_opened,
            messages_have_no_control_characters,
        ]
        users: [
            another_user_gets_nothing,
            what_another_user_made_is_refused,
            name_taken_by_another_user_is_refused,
            unprivileged_processes_of_one_user_share_segments,
        ]
        limits: [
            full_dev_shm_is_an_error_that_names_its_size,
            signals_do_not_stop_a_reservation,
            too_many_system_v_segments_is_an_error_that_names_shmmni,
            orphans_make_room_and_nothing_else_does,
            too_large_system_v_segment_is_an_error_that_names_shmmax,
            default_falls_back_when_no_descriptor_is_left,
            nothing_is_left_when_descriptors_run_out_at_any_step,
            exceeding_the_file_size_limit_is_an_error_and_no_signal,
            exhausted_address_space_is_an_error_that_names_the_limit,
            exhausted_mappings_are_an_error_that_names_the_limit,
            exhausted_locked_memory_is_an_error_that_names_the_limit,
        ]
        seccomp: [
            system_v_is_used_without_memfd_create,
            posix_is_used_without_memfd_create_and_shmget,
            missing_mechanisms_are_an_error_that_names_the_call,
        ]
        calls: [
            memfd_segments_take_the_documented_calls,
            system_v_segments_take_the_documented_calls,
            holder_searches_no_other_process,
        ]
        procfs: [
            system_v_is_used_without_proc,
            segments_open_where_proc_hides_processes,
            system_v_is_used_in_undumpable_processes,
            segment_of_an_inner_pid_namespace_opens_outside,
        ]
        posix: [
            another_users_names_are_left_alone,
            a_newer_segment_keeps_its_name,
            files_that_others_may_write_are_refused,
            read_only_file_is_an_error_that_names_its_permissions,
            a_pipe_is_not_opened,
            remove_refuses_links,
            too_many_files_in_dev_shm_is_an_error_that_names_nr_inodes,
            unusable_dev_shm_is_an_error_that_names_the_cure,
            mode_does_not_depend_on_the_umask,
            leased_file_is_refused_without_waiting,
            sparse_files_are_reserved_or_refused,
            segments_work_without_proc_openat2_and_flock,
            a_reservation_takes_smaller_steps_when_it_is_interrupted,
        ]
        orphans: [
            orphaned_names_are_removed,
            names_left_by_exit_are_removed,
            remove_orphans_returns_the_count,
            names_in_use_stay,
            persisted_named_and_foreign_files_stay,
            a_chosen_name_is_free_again_after_its_creator_was_killed,
            segments_without_locks_stay,
            creators_killed_at_any_time_leave_nothing,
            cleaning_up_disturbs_nobody,
            orphans_make_room_in_dev_shm,
            crowded_dev_shm_is_searched_quickly,
        ]
        sharing: [
            threads_and_processes_add_up,
            typed_segment_does_not_open_as_another_type,
            references_stay_valid_when_the_creator_is_killed,
            a_type_is_aligned_in_every_process_or_in_none,
        ]
        sysv: [
            owner_that_the_creator_has_set_is_not_trusted,
            owner_is_reported_when_the_kernel_refuses,
            a_segment_that_others_may_write_is_refused,
            unwritable_segment_is_an_error_that_names_its_permissions,
            only_own_orphans_without_a_key_are_removed,
            huge_pages_without_a_reservation_are_refused,
            number_of_another_ipc_namespace_is_refused_if_the_size_differs,
        ]
    };
    peer::make_public_program();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    peer::remove_public_program();
    conclusion.exit();
}
