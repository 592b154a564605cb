//! [`Outcome`]: passed, failed, or not possible on this host.

use std::fmt::Display;

use libtest_mimic::{Completion, Failed};
use shmem_providers::Error;

/// The result of a test, or of a step of one.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The host lacks what the test needs. The test is reported as ignored, with this reason.
    Skipped(String),
    /// The test failed.
    Failed(Failed),
}

/// Any error fails the test.
impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Skips the test, because the host lacks what it needs: always an error, so that `?` and `return` end the
/// test.
pub fn skip<T>(reason: impl Display) -> Outcome<T> {
    Err(Failure::Skipped(reason.to_string()))
}

/// Ends the test with an error of the first segment that it created: skipped if the error means that the
/// host lacks the mechanism or has no room for the segment, failed otherwise.
pub fn if_lacking<T>(error: Error) -> Outcome<T> {
    match crate::lacking(&error) {
        Some(reason) => skip(reason),
        None => Err(error.into()),
    }
}

/// Skips the test in an emulator of another machine (`tests/cross/emulated`). `cannot` continues the
/// sentence "not in an emulator, …".
pub fn natively(cannot: &str) -> Outcome {
    if is_emulated() {
        return skip(format!("not in an emulator, {cannot}"));
    }
    Ok(())
}

/// Returns how many of `count` repetitions to execute: a tenth in an emulator of another machine, which is many times
/// slower.
#[must_use]
pub fn repetitions(count: u32) -> u32 {
    if is_emulated() { count / 10 } else { count }
}

fn is_emulated() -> bool {
    std::env::var_os("SHMEM_TEST_EMULATED").is_some()
}

/// Converts an outcome for the test runner.
pub(crate) fn completion(outcome: Outcome) -> Result<Completion, Failed> {
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(Failure::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        Err(Failure::Failed(failed)) => Err(failed),
    }
}
