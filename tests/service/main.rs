//! The service, between real programs: lifetime, SIGKILL of its host, fork, threads, attacks.
//!
//! This program starts itself anew with the argument `peer` (`peer.rs`). Each test has an address of
//! its own in a folder of its own, which is empty afterwards.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!(
        "skipped: tests/service, because its peers are started, stopped and watched by what only Linux has"
    );
}
