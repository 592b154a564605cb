//! What the benchmarks share: [`pairs`], which measures, and for Linux the raw system calls to compare with,
//! processes that hold segments, and counts of system calls.
#![allow(
    clippy::missing_errors_doc,
    reason = "every error is a call that the host refused"
)]

pub mod pairs;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "linux")]
pub mod raw;
#[cfg(target_os = "linux")]
pub mod strace;

/// The result of everything that the host can refuse.
pub type Result<T = (), E = Box<dyn core::error::Error>> = core::result::Result<T, E>;

/// The size of most segments, in bytes.
pub const SIZE: usize = 64 << 10;

/// Returns `true` if the benchmarks are to be measured, and `false` if everything is to run once.
///
/// Cargo passes `--bench` for `cargo bench`, and nothing for `cargo test`.
#[must_use]
pub fn is_measured(arguments: &[&str]) -> bool {
    arguments.contains(&"--bench") && !arguments.contains(&"--test")
}

/// Returns the text that the names of the wanted rows contain: the first argument that is not an option.
#[must_use]
pub fn filter<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    let mut arguments = arguments.iter().copied();
    arguments.find(|argument| !argument.starts_with('-'))
}
