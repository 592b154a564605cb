//! What may be asked for beyond a plain segment: options, content at hand, and what came of it.
//!
//! Whether an option is in effect is read from `/proc/self/smaps`, not from what the crate says.
//! Second processes are real: this program starts itself anew with the argument `peer`.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/memory, because what may be tuned is Linux's");
}
