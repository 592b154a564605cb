//! Segments between processes: ids, hand-over, SIGKILL, fork, other users, hostile peers, lowered limits.
//!
//! The processes are real: this program starts itself again with the argument `peer` and sends the child
//! commands, line by line (`linux/peer.rs`). Tests that lower limits of the system run in namespaces of
//! their own. A test that the host does not allow is reported as ignored, with the reason.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/processes, which need namespaces and /proc of Linux");
}
