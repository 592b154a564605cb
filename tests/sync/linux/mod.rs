//! The tests of this program.
#![allow(unsafe_code)]

mod mutex;
mod peer;

use libtest_mimic::Arguments;
use testkit::peer::{make_public_program, remove_public_program};

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let arguments = Arguments::from_args();
    make_public_program();
    let trials = testkit::trials! {
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
            every_descriptor_will_do,
            threads_of_a_participant_exclude_each_other,
            garbled_words_cause_no_hang,
            waiters_for_a_condition_are_notified,
            waiters_for_a_condition_notice_the_death_of_its_owner,
        ]
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    remove_public_program();
    conclusion.exit();
}
