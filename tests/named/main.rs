//! Names of segments between real programs: races, SIGKILL at every system call, forks, other users, and
//! what stands where an entry belongs.
//!
//! This program starts itself again with the argument `peer` (`linux/peer.rs`), or `once` for a single
//! call. Each test has a directory of names of its own, which is empty afterwards.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/named, which need signals, namespaces and /proc of Linux");
}
