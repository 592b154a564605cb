//! The tests of this program.
#![allow(unsafe_code)]

mod any;
mod options;
mod peer;
mod pool;
mod sizes;
mod slab;
mod smaps;
mod snapshot;
mod sparse;
mod wake;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use shmem_providers::{
    Error, Mechanism, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, ServedShMemProvider,
    ShMem, ShMemProvider, ShMemService, StdShMemProvider, UnixShMemProvider,
};

use testkit::{Outcome, if_lacking, open_files, system_v_segments};

/// Runs every one of these over every mechanism.
macro_rules! over_all {
    ($trials:ident: $($module:ident: [$($test:ident),* $(,)?])*) => {
        $($(
            $trials.extend([
                over_all!($module, $test, "default", StdShMemProvider::new()),
                over_all!($module, $test, "memfd", MemfdShMemProvider::new()),
                over_all!($module, $test, "system_v", UnixShMemProvider::new()),
                over_all!($module, $test, "posix", MmapShMemProvider::new()),
                over_all!(
                    $module, $test, "served_memfd",
                    ServedShMemProvider::<MemfdBackend>::new()
                ),
                over_all!(
                    $module, $test, "default_by_system_v",
                    Ok(StdShMemProvider::with_mechanism(Mechanism::SystemV))
                ),
            ]);
        )*)*
    };
    ($module:ident, $test:ident, $mechanism:literal, $provider:expr) => {
        testkit::trial(
            concat!($mechanism, "::", stringify!($test)),
            || watched($provider, |provider| $module::$test(provider)),
        )
    };
}

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let mut arguments = Arguments::from_args();
    let folder = tempfile::tempdir().expect("room for a folder");
    // SAFETY: this program has a single thread so far.
    unsafe { std::env::set_var(ShMemService::ENV, folder.path().join("service")) };
    // Descriptors are counted before and after each test.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    over_all! { trials:
        options: [
            what_is_not_asked_for_is_not_granted,
            what_is_granted_is_in_effect,
            options_change_neither_size_nor_content,
            an_attachment_has_options_of_its_own,
            content_is_there_from_the_start,
            huge_pages_are_huge_or_refused,
        ]
        sparse: [
            a_cleared_segment_is_zero_everywhere,
            what_was_touched_is_found,
            what_is_trimmed_is_zero_for_everybody,
            of_a_part_nothing_else_is_trimmed_or_cleared,
            a_released_segment_has_nothing_to_clear,
        ]
    }
    trials.extend(testkit::trials! {
        slab: [
            objects_are_apart_and_zeroed,
            another_process_finds_an_object,
            sizes_that_no_slab_can_have,
            threads_share_a_slab,
            a_child_leaves_the_slab_to_its_parent,
            a_slab_has_room_for_as_many_as_there_are_addresses,
            a_part_has_the_objects_that_are_in_it,
        ]
        snapshot: [
            views_are_of_the_moment_and_private,
            other_processes_have_views_of_their_own,
            nobody_can_change_a_snapshot,
            it_lives_as_long_as_somebody_holds_it,
            it_takes_memory_for_what_was_touched,
            a_part_has_a_snapshot_of_its_own,
            what_is_no_snapshot,
            through_the_service,
        ]
        sizes: [
            a_memfd_that_32_bits_cannot_map,
            a_posix_segment_that_32_bits_cannot_map,
            a_system_v_segment_that_32_bits_cannot_map,
        ]
        pool: [
            what_was_dropped_is_used_again,
            what_another_process_holds_is_not,
            what_a_forked_child_inherited_is_not,
            another_namespace_tells_nothing_of_children,
            a_forked_child_makes_its_own,
            what_is_attached_here_is_not,
            what_cannot_be_counted_is_made_anew,
            it_keeps_no_more_than_it_may,
            threads_share_it,
            who_comes_late_kills_nobody,
        ]
        wake: [
            processes_wake_each_other,
            all_who_sleep_are_woken,
            the_time_is_up,
            signals_do_not_end_a_sleep,
            a_killed_sleeper_is_not_missed,
        ]
        sparse: [
            to_clear_a_large_map_touches_nothing_new,
            to_trim_gives_memory_back,
            what_is_given_back_meanwhile_hides_nothing,
            huge_pages_are_not_trimmed,
        ]
        options: [
            what_cannot_be_required_leaves_nothing,
            a_refusal_names_the_limit,
            parts_of_huge_pages_are_given_back_whole,
            huge_pages_that_nobody_reserved_are_refused,
            a_huge_page_that_is_missing_is_named,
            transparent_huge_pages_are_aligned,
        ]
    });
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(folder);
    conclusion.exit();
}

/// Runs a test unless the host lacks the mechanism, and compares what is open before and after.
fn watched<P: ShMemProvider>(
    provider: Result<P, Error>,
    test: impl FnOnce(&mut P) -> Outcome,
) -> Outcome {
    let mut provider = provider?;
    let probe = provider
        .new_shmem(1)
        .and_then(|made| provider.shmem_from_id(made.id()));
    if let Err(error) = probe {
        return if_lacking(error);
    }
    let before = settled();
    let outcome = test(&mut provider)?;
    // A service in this process closes what was released on another thread; on Linux, in a table of
    // descriptors of its own.
    let end = Instant::now() + Duration::from_secs(60);
    while open() != before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open(), before, "left open");
    Ok(outcome)
}

/// What is open when nothing is being closed any more.
fn settled() -> (Vec<PathBuf>, Vec<String>, Vec<String>) {
    loop {
        let now = open();
        thread::sleep(Duration::from_millis(10));
        if open() == now {
            return now;
        }
    }
}

/// What this process has open: descriptors, System V segments, shared mappings.
fn open() -> (Vec<PathBuf>, Vec<String>, Vec<String>) {
    (
        open_files(),
        system_v_segments(&[std::process::id()]),
        smaps::shared_mappings(),
    )
}
