//! What crosses processes: ids, hand-over, SIGKILL, fork, other users, hostile peers, tight limits.
//!
//! The processes are real: this program starts itself anew with the argument `peer` and tells the
//! child what to do, line by line (`peer.rs`). What needs limits of its own runs in namespaces of
//! its own. Where the host does not let us, the test is reported as ignored, with the reason.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!(
        "skipped: tests/processes, because its peers are limited and watched by what only Linux has"
    );
}
