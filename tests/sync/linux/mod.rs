//! The tests of this program.
#![allow(unsafe_code)]

mod peer;
mod wake;

use libtest_mimic::Arguments;

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = testkit::trials! {
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
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
