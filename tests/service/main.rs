//! The service between real programs: lifetime, SIGKILL of its host, fork, threads, attacks.
//!
//! This program starts itself again with the argument `peer` (`linux/peer.rs`). Each test has an address of
//! its own in a directory of its own, which is empty afterwards.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/service, which need signals, namespaces and /proc of Linux");
}
