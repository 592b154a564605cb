//! The tests of this program.

mod peer;
mod ring;

use libtest_mimic::Arguments;

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let arguments = Arguments::from_args();
    let trials = testkit::trials! {
        ring: [
            messages_arrive_whole_and_in_order,
            a_killed_writer_is_replaced,
            a_killed_reader_is_replaced,
            a_reader_killed_in_its_sleep_is_no_burden,
            full_and_empty_rings_end_waits_in_time,
            there_are_no_system_calls_unless_the_other_side_sleeps,
            started_programs_find_it_in_their_environment,
        ]
    };
    libtest_mimic::run(&arguments, trials).exit();
}
