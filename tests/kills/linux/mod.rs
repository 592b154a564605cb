//! The tests of this program.

mod stepper;

use libtest_mimic::Arguments;

pub(crate) fn main() {
    let trials = testkit::trials! {
        stepper: [
            a_counter_of_two_words_is_torn,
            a_store_is_seen_or_not,
            every_iteration_of_a_loop_is_a_position,
        ]
    };
    let mut arguments = Arguments::from_args();
    // A process with several threads could not continue in a forked child.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit();
}
