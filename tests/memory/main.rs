//! The memory of segments on Linux: options, sparse segments, pools, slabs and snapshots.
//!
//! Whether an option is in effect is read from `/proc/self/smaps`, not from the crate's report. Second
//! processes are real: this program starts itself again with the argument `peer`.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/memory, which need /proc and huge pages of Linux");
}
