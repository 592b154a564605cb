//! Every provider in every sandbox: what works, and which error tells what to do about what does not.
//!
//! What is expected is in `docs/sandboxes.md`. This program reads its tables, so that the page cannot say
//! anything else than what is tested.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: tests/sandbox, which needs the sandboxes of Linux");
}
