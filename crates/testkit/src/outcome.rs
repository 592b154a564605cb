//! [`Outcome`]: passed, failed, or not possible on this host.

use std::fmt::Display;

use libtest_mimic::{Completion, Failed};
use shmem_providers::Error;

/// What a test, or a step of it, comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a test did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The host lacks what the test needs. The test is reported as ignored, with this reason.
    Skipped(String),
    /// It failed.
    Failed(Failed),
}

/// Any error fails the test.
impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Skips the test, because the host lacks what it needs.
///
/// # Errors
///
/// Always, so that `?` and `return` end the test.
pub fn skip<T>(reason: impl Display) -> Outcome<T> {
    Err(Failure::Skipped(reason.to_string()))
}

/// Skips the test if the error, of the first segment that it created, means that the host lacks the
/// mechanism or has no room for the segment.
///
/// # Errors
///
/// Always: the test is skipped, or fails.
pub fn if_lacking<T>(error: Error) -> Outcome<T> {
    match crate::lacking(&error) {
        Some(reason) => skip(reason),
        None => Err(error.into()),
    }
}

/// Skips the test in an emulator of another machine (`tests/cross/emulated`), and says what that cannot do.
///
/// # Errors
///
/// In an emulator.
pub fn natively(cannot: &str) -> Outcome {
    match std::env::var_os("SHMEM_TEST_EMULATED") {
        None => Ok(()),
        Some(_) => skip(format!("not in an emulator, {cannot}")),
    }
}

/// Converts an outcome for the test runner.
pub(crate) fn completion(outcome: Outcome) -> Result<Completion, Failed> {
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(Failure::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        Err(Failure::Failed(failed)) => Err(failed),
    }
}
