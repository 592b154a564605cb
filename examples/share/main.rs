//! Shares the bytes of files with worker processes.
//!
//! ```sh
//! cargo run --release --example share -- FILE…
//! cargo run --release --example share -- --kill FILE…
//! ```
//!
//! A parent process writes the bytes into a segment. Workers, which are started and not forked, attach by the
//! id in their environment and work on the bytes in place: each computes the CRC-32 of its part, and a map of
//! byte pairs like the map of edges that the target of a fuzzer fills. They write the results into a second
//! segment. Then the same work is done through pipes, to compare the two. The parent checks every result.
//!
//! The files in `program/`, in the order to read them:
//!
//! * `stage.rs` is the parent: it creates segments, hands them over, fills and reads them.
//! * `worker.rs` is the worker: how a process attaches, and what it may do at which time.
//! * `record.rs` is the memory that both sides use at the same time, with atomics.
//! * `kill.rs` kills a worker in the middle of its part, and checks that nothing is lost or left behind.
//! * `process.rs` starts workers and reports when they die, `pipes.rs` sends the bytes through pipes,
//!   `digest.rs` is the work. These three do not use shared memory.

#[cfg(all(feature = "std", target_os = "linux"))]
mod program;

#[cfg(all(feature = "std", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("share: this example needs the feature `std` and Linux");
    std::process::ExitCode::FAILURE
}
