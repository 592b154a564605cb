//! Produces frames in shared memory for several consumer processes, and compares that with pipes and sockets.
//!
//! ```sh
//! cargo run --release --example frames
//! cargo run --release --example frames -- --kill
//! ```
//!
//! The producer draws each frame in place, in a ring of a few frames. The consumers, which are started and not
//! forked, attach by the id in their environment and check every frame in place. Then the same frames are
//! drawn and checked by the same code in buffers, and sent through pipes and through Unix sockets.
//!
//! The files in `program/`, in the order to read them:
//!
//! * `frame.rs` draws and checks a frame.
//! * `ring.rs` is the memory that all processes use at the same time.
//! * `producer.rs` and `consumer.rs` are the two sides of the ring.
//! * `kill.rs` kills a consumer; another one takes its place, and nothing is left behind.
//! * `streams.rs` is the comparison, `process.rs` starts consumers, `args.rs` is the command line.

#![forbid(unsafe_code)]

#[cfg(all(feature = "std", target_os = "linux"))]
mod program;

#[cfg(all(feature = "std", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("frames: this example needs the feature `std` and Linux");
    std::process::ExitCode::FAILURE
}
