//! The tests of this program.
#![allow(unsafe_code)]

mod files;
mod fork;
mod kill;
mod life;
mod peer;
mod race;
mod users;

use std::fs;
use std::path::Path;

use libtest_mimic::Arguments;
use shmem_providers::error::NamedError;
use shmem_providers::{Error, NamedOptions};
use tempfile::TempDir;
use testkit::peer::{Peer, make_public_program, remove_public_program};

pub(crate) fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("peer") => return peer::serve(),
        Some("once") => return peer::once(&arguments[1..]),
        _ => {}
    }
    let trials = testkit::trials! {
        life: [
            the_calls_of_the_documentation_work,
            a_name_ends_with_its_last_holder,
            a_name_passes_its_descriptor_on,
            any_text_of_up_to_200_bytes_is_a_name,
            names_with_the_same_hash_are_different_names,
            a_larger_size_is_an_error,
            a_failed_initialisation_leaves_nothing,
            a_panicking_initialisation_leaves_nothing,
            names_persist_until_they_are_removed,
            providers_that_cannot_persist_are_an_error,
            removed_names_stay_with_their_holders,
            the_segment_can_be_taken_out,
            every_provider_has_names,
        ]
        race: [
            one_of_64_processes_initialises,
            names_survive_a_storm_of_openers,
            threads_of_one_process_race_as_well,
            a_stopped_creator_is_an_error_and_not_a_hang,
            asking_for_the_name_during_its_initialisation_is_an_error,
        ]
        kill: [
            killed_holders_leave_no_name,
            killed_creators_stop_nobody,
            the_next_takes_over_from_a_creator_killed_while_it_initialises,
            creators_killed_at_every_system_call_leave_nothing,
            creators_of_posix_segments_killed_at_every_system_call_leave_nothing,
            creators_of_persistent_segments_killed_at_every_system_call_leave_nothing,
        ]
        fork: [
            a_child_holds_the_name_it_inherited,
            a_child_that_drops_leaves_the_name_of_its_parent,
            a_child_forked_by_the_initialisation_is_no_creator,
        ]
        users: [
            other_users_get_nothing,
            directories_of_other_users_are_refused,
            directories_open_to_others_are_refused,
            read_only_directories_are_errors_that_name_them,
            a_full_directory_is_an_error,
            the_environment_chooses_the_directory,
        ]
        files: [
            damaged_entries_are_replaced,
            other_files_are_refused_and_left_alone,
            foreign_ids_are_errors_or_replaced,
            files_left_by_hand_are_removed_by_the_list,
        ]
    };
    make_public_program();
    // The default directory stays when a program ends, so the default calls have another one here.
    let default = tempfile::tempdir().expect("there is room for a directory");
    // SAFETY: there is a single thread.
    unsafe { std::env::set_var("SHMEM_NAMES", default.path()) };
    let mut arguments = Arguments::from_args();
    // A program that another test starts at the same time holds, until it is executed, the names of this one.
    arguments.test_threads.get_or_insert(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    remove_public_program();
    drop(default);
    conclusion.exit();
}

/// A directory of names, which must be empty in the end.
pub(crate) struct Names {
    directory: TempDir,
}

impl Names {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            directory: tempfile::tempdir()?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn options(&self) -> NamedOptions {
        NamedOptions::new().directory(self.path())
    }

    /// Starts a process that uses this directory.
    pub(crate) fn peer(&self) -> Peer {
        let mut peer = Peer::start();
        self.lead(&mut peer);
        peer
    }

    /// Makes a process use this directory.
    pub(crate) fn lead(&self, peer: &mut Peer) {
        let command = format!("dir {}", self.path().display());
        peer.execute(command).expect("it only remembers the path");
    }

    /// Returns the names of the files, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("it is ours");
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Returns the names in use, sorted.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<String> {
        let listed = self.options().list().expect("the directory is ours");
        let mut names: Vec<_> = listed.into_iter().map(|named| named.name).collect();
        names.sort();
        names
    }

    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.list(), Vec::<String>::new());
        assert_eq!(self.files(), Vec::<String>::new());
    }
}

/// Returns what is wrong with a name.
#[track_caller]
pub(crate) fn reason<T>(result: Result<T, Error>) -> NamedError {
    match result.err().expect("it fails") {
        Error::Named { reason, .. } => reason,
        other => panic!("another error: {other}"),
    }
}
