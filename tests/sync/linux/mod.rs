//! The tests of this program.

mod latest;
mod peer;

use libtest_mimic::Arguments;

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let arguments = Arguments::from_args();
    let trials = testkit::trials! {
        latest: [
            no_reader_of_a_fast_writer_gets_torn_values,
            killed_writers_are_replaced,
            a_writer_killed_in_the_middle_leaves_the_last_value,
            a_reader_killed_in_its_sleep_is_no_burden,
            started_programs_find_it_in_their_environment,
        ]
    };
    libtest_mimic::run(&arguments, trials).exit();
}
