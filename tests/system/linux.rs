//! The tests of this program.

#[path = "../support/forbid.rs"]
mod forbid;
#[allow(dead_code, reason = "some of it is for the other test programs")]
#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
#[macro_use]
#[path = "../support/trials.rs"]
mod trials;

mod calls;
mod fork;
mod handover;
mod hostile;
mod init;
mod kill;
mod limits;
mod lookup;
mod peer;
mod posix;
mod procfs;
mod seccomp;
mod stdio;
mod sysv;
mod users;

use libtest_mimic::Arguments;

#[allow(clippy::too_many_lines, reason = "it is a list")]
#[expect(clippy::too_many_lines, reason = "it is a list")]
pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = trials! {
        handover: [
            a_command_hands_over_id_and_size,
            without_a_size_all_is_attached,
            the_environment_of_the_process_hands_over,
            what_the_environment_may_contain,
            names_that_no_variable_can_have,
            descriptors_are_not_inherited,
        ]
        kill: [
            ids_outlive_their_creator,
            the_last_of_a_long_line_of_holders,
            killed_while_making_segments,
            a_killed_creator_leaves_a_posix_name_that_can_be_removed,
            persisted_and_named_posix_segments,
        ]
        fork: [
            a_child_that_drops_leaves_the_parents_segments,
            a_child_that_exits_leaves_the_parents_segments,
            a_child_holds_what_it_inherited,
            parent_and_child_make_different_ids,
        ]
        init: [
            a_child_leaves_the_posix_name,
            a_child_allocates_nothing_from_a_slab,
            a_child_takes_nothing_from_a_pool,
            a_child_uses_the_served_provider,
            a_child_takes_the_lock_of_a_thread_that_it_does_not_have,
        ]
        stdio: [
            segments_leave_the_numbers_of_standard_streams_alone,
            pipes_leave_the_numbers_of_standard_streams_alone,
            the_service_leaves_the_numbers_of_standard_streams_alone,
        ]
        hostile: [
            a_descriptor_that_leads_elsewhere_by_now,
            a_memfd_that_is_not_sealed,
            a_forged_memfd_among_the_holders,
            a_peer_cannot_shrink_a_segment,
            posix_names_that_are_no_segments,
            a_shmid_that_was_given_to_another_segment,
        ]
        lookup: [
            a_decoy_hides_no_holder,
            the_main_thread_has_ended,
            a_thread_with_descriptors_of_its_own,
            another_primary_group,
            a_creator_with_capabilities,
            a_creator_with_capabilities_and_no_descriptor,
            undumpable_after_making,
            dumpable_again,
            root_becomes_another_user,
            a_user_that_was_left,
            a_user_namespace_without_a_map,
            another_user_namespace,
            a_security_module,
            root_leaves_other_users_descriptors_alone,
            a_link_that_reads_like_a_segment,
            messages_have_no_control_characters,
        ]
        users: [
            another_user_gets_nothing,
            what_another_user_made_is_refused,
            a_name_taken_by_another_user,
            an_unprivileged_user_among_itself,
        ]
        limits: [
            a_full_dev_shm,
            signals_do_not_stop_a_reservation,
            as_many_system_v_segments_as_there_may_be,
            orphans_make_room_and_nothing_else_does,
            a_system_v_segment_larger_than_allowed,
            no_descriptor_left,
            no_descriptor_left_at_each_step,
            no_file_of_that_size,
            no_address_space_left,
            no_mapping_left,
            no_memory_to_lock_left,
        ]
        seccomp: [
            without_memfd_create,
            without_memfd_and_system_v,
            without_anything,
        ]
        calls: [
            the_default_calls,
            system_v_calls,
            who_holds_it_looks_through_no_other_process,
        ]
        procfs: [
            without_proc,
            with_hidden_processes,
            a_process_that_cannot_be_dumped,
            another_pid_namespace,
        ]
        posix: [
            what_nobody_has_is_removed,
            an_exit_without_a_drop,
            as_many_as_there_were_is_told,
            what_somebody_has_stays,
            what_is_not_to_be_cleaned_up_stays,
            a_chosen_name_is_free_again_after_its_creator_was_killed,
            another_users_names_are_left_alone,
            a_newer_segment_keeps_its_name,
            what_others_may_write_is_refused,
            a_file_that_its_owner_may_not_write,
            a_pipe_is_not_opened,
            a_link_is_not_removed_through,
            creators_killed_at_any_time_leave_nothing,
            cleaning_up_disturbs_nobody,
            orphans_make_room_in_dev_shm,
            no_more_files_in_dev_shm,
            a_dev_shm_that_cannot_be_used,
            a_umask_takes_nothing_away,
            a_lease_is_not_waited_for,
            what_is_not_reserved_is_reserved_or_refused,
            without_what_cleaning_up_needs,
            what_is_made_without_locks_stays,
            a_crowded_dev_shm,
            a_reservation_takes_smaller_steps_when_it_is_interrupted,
        ]
        sysv: [
            an_owner_that_its_maker_has_set_is_not_believed,
            the_owner_of_what_the_kernel_refuses_is_told,
            a_segment_that_others_may_write_is_refused,
            a_segment_that_its_owner_may_not_write,
            orphans_that_are_somebody_elses,
            huge_pages_without_a_reservation_are_refused,
            a_number_of_another_ipc_namespace,
        ]
    };
    peer::make_public_program();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    peer::remove_public_program();
    conclusion.exit();
}
