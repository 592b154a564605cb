//! Windows: what crosses processes, and what only sections have. Elsewhere there is nothing to test.
//!
//! The processes are real: this program starts itself anew with the argument `peer` and tells the
//! child what to do, line by line (`peer.rs`).

#[cfg(windows)]
mod holders;
#[cfg(windows)]
mod peer;
#[cfg(windows)]
mod sections;

#[cfg(windows)]
fn main() {
    use libtest_mimic::Arguments;

    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let trials = testkit::trials! {
        holders: [
            a_command_hands_over_id_and_size,
            without_a_size_whole_pages_are_attached,
            what_the_environment_may_contain,
            handles_are_not_inherited,
            ids_outlive_their_creator,
            the_last_of_a_long_line_of_holders,
            terminated_while_making_segments,
        ]
        sections: [
            a_name_that_exists_is_an_error,
            a_name_that_something_else_has,
            names_that_cannot_be,
            names_of_all_sessions,
            a_name_that_is_closed_to_us,
            a_section_of_another_owner,
            a_section_of_our_own,
            a_section_that_is_only_reserved,
            a_section_that_cannot_be_written,
            five_gigabytes,
            more_than_the_system_can_promise,
        ]
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[cfg(not(windows))]
fn main() {
    println!("SKIPPED: tests/windows, because this is not Windows (make wine)");
}
