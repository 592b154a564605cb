//! The tests of this program.
#![allow(unsafe_code)]

mod any;
mod growth;
mod options;
mod peer;
mod pool;
mod read_only;
mod single_writer;
mod sizes;
mod slab;
mod smaps;
mod snapshot;
mod sparse;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use shmem_providers::{
    Error, Mechanism, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, ServedShMemProvider,
    ShMem, ShMemProvider, ShMemService, StdShMemProvider, UnixShMemProvider,
};

use testkit::{Outcome, if_lacking, mappings, open_files, system_v_segments};

/// Creates a trial of each test for each mechanism.
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
    let directory = tempfile::tempdir().expect("there is room for a directory");
    // SAFETY: this program has a single thread so far.
    unsafe { std::env::set_var(ShMemService::ENV, directory.path().join("service")) };
    // Descriptors are counted before and after each test.
    arguments.test_threads = Some(1);
    let mut trials = over_mechanisms();
    trials.extend(testkit::trials! {
        slab: [
            objects_are_apart_and_zeroed,
            another_process_finds_an_object,
            impossible_slab_sizes_are_errors,
            threads_share_a_slab,
            a_child_leaves_the_slab_to_its_parent,
            unused_objects_of_a_slab_cost_nothing,
            a_part_has_the_objects_that_fit,
        ]
        snapshot: [
            views_are_of_the_moment_and_private,
            other_processes_have_views_of_their_own,
            nobody_can_change_a_snapshot,
            a_snapshot_lives_as_long_as_its_holders,
            a_snapshot_takes_memory_for_written_pages_only,
            a_part_has_a_snapshot_of_its_own,
            other_segments_are_refused_as_snapshots,
            the_service_hands_out_snapshots,
        ]
        read_only: [
            an_ordinary_segment_can_be_changed_by_its_peers,
            a_c_program_can_change_only_ordinary_segments,
            nobody_but_the_single_writer_can_change_its_segment,
            nobody_can_change_a_frozen_segment,
            an_id_opens_through_a_reader_alone,
            a_reader_attaches_from_the_environment,
            a_mapping_from_before_the_seal_is_noticed,
            sparse_files_are_reserved_for_readers,
            a_pool_leaves_segments_to_their_readers,
        ]
        single_writer: [
            a_single_writer_has_one_mapping_and_no_more,
            options_of_a_single_writer_are_granted_or_refused_as_usual,
            mechanisms_without_a_single_writer_create_nothing,
            a_frozen_segment_opens_as_a_view_and_for_reading_only,
            a_peer_can_prevent_a_segment_from_being_frozen_and_nothing_else,
            a_forked_child_can_write_until_it_ends,
            a_segment_that_could_not_be_frozen_in_time_is_frozen_later,
            readers_outlive_a_killed_writer,
            the_service_hands_out_segments_with_a_single_writer,
        ]
        sizes: [
            memfd_larger_than_a_slice_is_refused,
            posix_segment_larger_than_a_slice_is_refused,
            system_v_segment_larger_than_a_slice_is_refused,
        ]
        pool: [
            dropped_segments_are_reused,
            segments_of_other_processes_are_not_reused,
            segments_of_forked_children_are_not_reused,
            segments_of_children_are_not_reused_in_another_ipc_namespace,
            a_forked_child_creates_its_own_segments,
            segments_attached_in_this_process_are_not_reused,
            posix_segments_are_never_reused,
            a_pool_keeps_no_more_than_its_limits,
            threads_share_a_pool,
            opening_a_leased_segment_kills_nobody,
        ]
        sparse: [
            clear_touches_no_new_pages,
            trim_frees_memory,
            concurrent_trim_hides_no_data,
            huge_pages_are_not_trimmed,
        ]
        growth: [
            served_posix_segments_grow,
            a_service_takes_over_descriptors_of_segments_that_grow,
            orphans_that_could_grow_are_removed,
            system_v_segments_refuse_to_grow,
            the_default_chooses_a_mechanism_that_grows,
            a_changed_mode_harms_nobody,
            death_in_the_middle_of_growth_harms_nobody,
            more_memory_than_there_is_is_an_error,
            the_file_size_limit_is_an_error_and_no_signal,
            full_dev_shm_is_an_error_and_no_signal,
            rivals_for_the_last_memory_get_no_signal,
        ]
        options: [
            failed_requirements_leave_nothing,
            a_refusal_names_the_limit,
            whole_huge_pages_are_unmapped,
            huge_pages_that_nobody_reserved_are_refused,
            missing_huge_page_is_reported,
            transparent_huge_pages_are_aligned,
        ]
    });
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(directory);
    conclusion.exit();
}

/// Returns the tests that run for each mechanism.
fn over_mechanisms() -> Vec<Trial> {
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
            written_pages_are_found,
            what_is_trimmed_is_zero_for_everybody,
            nothing_beyond_a_part_is_trimmed_or_cleared,
            a_released_segment_has_nothing_to_clear,
        ]
        single_writer: [what_cannot_be_frozen_stays_writable]
        growth: [
            a_segment_grows_where_it_is,
            a_peer_grows_it_too,
            memory_comes_with_growth,
            attaching_gets_what_is_committed,
            nothing_grows_beyond_its_reservation,
            options_apply_to_what_is_committed,
            parts_of_it_are_found_and_freed,
            a_snapshot_has_what_is_covered,
            rivals_agree_on_the_largest_size,
            a_peer_that_states_nonsense_harms_nobody,
        ]
    }
    trials
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
    test(&mut provider)?;
    // Another thread of a service in this process closes what was released.
    let end = Instant::now() + Duration::from_secs(60);
    while open() != before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open(), before, "left open");
    Ok(())
}

/// Returns the same as [`open`] once it does not change any more.
fn settled() -> (Vec<PathBuf>, Vec<String>, Vec<String>) {
    loop {
        let now = open();
        thread::sleep(Duration::from_millis(10));
        if open() == now {
            return now;
        }
    }
}

/// Returns what this process has open: descriptors, System V segments, shared mappings.
fn open() -> (Vec<PathBuf>, Vec<String>, Vec<String>) {
    (
        open_files(),
        system_v_segments(&[std::process::id()]),
        mappings(),
    )
}
