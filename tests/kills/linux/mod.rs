//! The tests of this program.
#![allow(unsafe_code)]

mod latest;
mod mutex;
mod named;
mod ring;
mod stepper;
mod sync;
mod typed;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use libtest_mimic::Arguments;
use shmem_providers::Error;
use shmem_providers::wake::Wait;
use testkit::Outcome;

/// Longer than any wait takes.
const LONG: Duration = Duration::from_secs(20);
/// How a process beside the killed one waits: it sleeps at once, and for longer than the test waits for its end.
/// A wait that ends by its timeout looks a last time, and would find what nobody has woken it for.
const SLEEP: Wait = Wait::new().spins(0).timeout(Duration::from_secs(100));

pub(crate) fn main() {
    let trials = testkit::trials! {
        stepper: [
            a_counter_of_two_words_is_torn,
            a_store_is_seen_or_not,
            every_iteration_of_a_loop_is_a_position,
        ]
        named: [
            killed_creators_leave_a_name_that_can_be_created,
            killed_creators_leave_no_posix_segment,
            killed_openers_leave_the_name_to_its_holder,
        ]
        typed: [
            a_value_is_there_when_it_is_initialised_and_not_before,
            killed_creators_leave_no_segment,
        ]
        ring: [
            a_message_of_a_killed_writer_is_whole_or_not_there,
            what_a_killed_writer_has_committed_is_read_once,
            a_killed_reader_has_released_a_message_or_the_next_gets_it,
        ]
        latest: [
            a_killed_writer_has_published_a_value_or_the_one_before_stays,
            a_reader_that_sleeps_is_woken_once_another_writer_takes_over,
        ]
        mutex: [
            the_next_owner_learns_whether_a_killed_one_had_the_lock,
            so_does_the_next_owner_in_a_system_v_segment,
        ]
        sync: [
            a_changed_word_wakes_with_the_next_wake_up,
            a_turn_is_passed_or_not_and_the_next_pass_wakes,
        ]
    };
    let mut arguments = Arguments::from_args();
    // A process with several threads could not continue in a forked child.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit();
}

/// A process beside the one that is killed: a forked child that executes a closure.
pub(crate) struct Bystander(libc::pid_t);

impl Bystander {
    /// Starts it. The closure returns whether it has found what it waits for.
    pub(crate) fn start(body: impl FnOnce() -> Result<bool, Error>) -> Outcome<Self> {
        // SAFETY: this program has a single thread.
        match unsafe { testkit::fork() } {
            -1 => Err(io::Error::last_os_error().into()),
            0 => {
                let code = i32::from(body().ok() != Some(true));
                // SAFETY: the call has no preconditions. The destructors of this process belong to its parent.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(Self(pid)),
        }
    }

    /// Waits for its end. Returns `true` if it has found what it waits for, and `false` if it sleeps on.
    pub(crate) fn has_succeeded(mut self) -> Outcome<bool> {
        let mut status = 0;
        let end = Instant::now() + LONG;
        loop {
            // SAFETY: the pointer is to a valid value.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } {
                0 if Instant::now() < end => thread::yield_now(),
                0 => return Ok(false),
                -1 => return Err(io::Error::last_os_error().into()),
                _ => break,
            }
        }
        self.0 = 0;
        Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        if self.0 != 0 {
            // SAFETY: the child has not been reaped, so that the number is its own.
            unsafe { libc::kill(self.0, libc::SIGKILL) };
            // SAFETY: the status may be null.
            unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
        }
    }
}

/// Waits until another process has established a condition.
#[track_caller]
pub(crate) fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "the condition has not become true");
        thread::yield_now();
    }
}

/// The random POSIX names that exist.
pub(crate) struct PosixNames(BTreeSet<PathBuf>);

impl PosixNames {
    pub(crate) fn now() -> Self {
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let is_ours = |path: &PathBuf| path.to_string_lossy().contains("/shmem-");
        Self(entries.map(|entry| entry.path()).filter(is_ours).collect())
    }

    /// Checks that none has been added to these. Those of other programs come and go.
    #[track_caller]
    pub(crate) fn assert_no_more(&self) {
        let end = Instant::now() + LONG;
        while let Some(left) = Self::now().0.difference(&self.0).next() {
            assert!(Instant::now() < end, "{} was left", left.display());
            thread::sleep(Duration::from_millis(2));
        }
    }
}
