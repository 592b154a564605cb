//! Shares the bytes of files with worker processes: the crate's main job, on real input.
//!
//! ```sh
//! cargo run --release --example share -- FILE…
//! cargo run --release --example share -- --kill FILE…
//! ```
//!
//! A parent puts the bytes into one segment. Workers, which are programs started afresh and not
//! forks, attach by the id in their environment and work on the bytes where they are: each computes
//! the CRC-32 of its part, and a map of byte pairs like the map of edges that a fuzzer's target
//! fills. What they find goes into a second segment. Then the same is done through pipes, so that
//! the two can be compared. Every result is checked against what the parent finds by itself.
//!
//! In `program/`, in the order to read them:
//!
//! * `stage.rs` is the parent: how segments are made, handed over, filled and read.
//! * `worker.rs` is the other side: how a program attaches, and what it may do when.
//! * `record.rs` is what both sides use at once, by atomics.
//! * `kill.rs` kills a worker in the middle of its part, and shows that nothing is lost or left.
//! * `process.rs` starts workers and notices when they die, `pipes.rs` is the other road,
//!   `digest.rs` the work; none of them knows about shared memory.

#[cfg(all(feature = "std", target_os = "linux"))]
mod program;

#[cfg(all(feature = "std", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("share: this needs the feature `std`, and a platform with a default provider: Linux");
    std::process::ExitCode::FAILURE
}
