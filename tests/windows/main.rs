//! Windows: segments between processes, names, and what is special about sections.
//!
//! The processes are real: this program starts itself again with the argument `peer` and sends the child
//! commands, line by line (`peer.rs`).

#[cfg(windows)]
mod growth;
#[cfg(windows)]
mod holders;
#[cfg(windows)]
mod named;
#[cfg(windows)]
mod peer;
#[cfg(windows)]
mod presence;
#[cfg(windows)]
mod sections;
#[cfg(windows)]
mod wake;

#[cfg(windows)]
fn main() {
    use libtest_mimic::Arguments;

    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = testkit::trials! {
        growth: [
            a_section_grows_where_it_is,
            another_process_grows_a_section,
            no_section_grows_beyond_its_reservation,
            nonsense_about_the_committed_size_is_harmless,
        ]
        holders: [
            a_command_hands_over_id_and_size,
            inherit_hands_over,
            a_handle_holds_the_section,
            without_a_size_whole_pages_are_attached,
            malformed_variables_are_errors,
            handles_are_not_inherited,
            ids_outlive_their_creator,
            id_opens_through_ten_generations_of_holders,
            processes_terminated_while_creating_leave_nothing,
        ]
        named: [
            one_process_of_many_initialises_a_name,
            last_holders_and_new_ones_may_meet,
            a_terminated_holder_frees_the_name,
            a_process_terminated_while_it_initialises_is_replaced,
            processes_terminated_at_any_time_leave_nothing,
            the_last_drop_removes_the_entry,
            names_are_any_text_and_are_listed,
            held_names_can_be_removed,
            remains_are_replaced_and_other_things_left_alone,
            the_environment_chooses_the_directory,
            names_do_not_persist,
        ]
        presence: [
            a_participant_is_alive_until_it_is_terminated,
            the_slot_of_a_terminated_process_has_a_new_id,
            a_mutex_is_abandoned_by_a_terminated_owner,
            processes_exclude_each_other,
            a_wait_ends_when_the_owner_notifies_or_is_terminated,
            children_do_not_keep_a_participant_alive,
        ]
        sections: [
            a_name_that_exists_is_an_error,
            name_of_another_object_is_an_error,
            impossible_names_are_errors,
            global_names_open_in_all_sessions,
            section_without_access_is_refused,
            section_of_another_owner_is_refused,
            section_of_this_user_opens,
            reserved_section_is_refused_until_committed,
            read_only_section_is_refused,
            five_gigabytes_can_be_mapped,
            exceeding_the_commit_limit_is_an_error_that_names_it,
        ]
        wake: [
            processes_wake_each_other,
            a_timeout_passes,
            a_terminated_sleeper_leaves_nothing,
            all_sleepers_see_the_change,
        ]
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[cfg(not(windows))]
fn main() {
    println!("SKIPPED: tests/windows, because this is not Windows (make wine)");
}
