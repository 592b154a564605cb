//! The tests of presences and mutexes that depend on how slots are locked, over System V segments, which have no
//! descriptor.

use testkit::Outcome;

use super::mutex;

macro_rules! over_system_v {
    ($($test:ident),* $(,)?) => {
        $(pub(crate) fn $test() -> Outcome {
            mutex::over_system_v(mutex::$test)
        })*
    };
}

over_system_v![
    processes_exclude_each_other,
    the_death_of_an_owner_is_noticed_once,
    owners_killed_at_any_time_harm_nobody,
    the_next_process_in_a_slot_is_not_the_dead_one,
    a_child_of_the_owner_does_not_keep_it_alive,
    a_child_does_not_unlock_for_its_parent,
    deaths_in_other_pid_namespaces_are_noticed,
    waiters_for_a_condition_are_notified,
];
