//! What the test programs share: outcomes, skipping with a reason, second processes, and counting what
//! is open.
//!
//! A test returns an [`Outcome`]: it passes with `Ok(())`, fails by a panic or by any error that `?`
//! returns, and is skipped where the host lacks something, by `?` as well:
//!
//! ```
//! use testkit::{Outcome, natively};
//!
//! fn a_test() -> Outcome {
//!     natively("which cannot do this")?;
//!     assert_eq!(1 + 1, 2);
//!     Ok(())
//! }
//! ```
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "helpers of tests, which fail by errors and panics"
)]

mod outcome;
pub mod peer;
#[cfg(target_os = "linux")]
pub mod seccomp;
#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
pub mod stepper;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub use self::outcome::{Failure, Outcome, if_lacking, natively, repetitions, skip};
#[cfg(unix)]
pub use self::unix::*;
#[cfg(windows)]
pub use self::windows::*;

/// Creates a trial for each function named: `MODULE: [TEST, …]`.
#[macro_export]
macro_rules! trials {
    ($($module:ident: [$($test:ident),* $(,)?])*) => {
        vec![$($($crate::trial(
            concat!(stringify!($module), "::", stringify!($test)),
            $module::$test,
        ),)*)*]
    };
}

/// Creates a trial. It is reported as ignored if the test finds that the host cannot run it.
pub fn trial(
    name: impl Into<String>,
    test: impl FnOnce() -> Outcome + Send + 'static,
) -> libtest_mimic::Trial {
    libtest_mimic::Trial::ignorable_test(name, move || outcome::completion(test()))
}
