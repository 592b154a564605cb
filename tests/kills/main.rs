//! Processes that are killed by SIGKILL after each instruction of an operation in turn, and what the next process
//! finds (`testkit::stepper`). Each file has the operations of one part of the library.

#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
mod linux;

#[cfg(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
fn main() {
    linux::main();
}

#[cfg(not(all(
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
)))]
fn main() {
    println!("skipped: tests/kills, which need ptrace(2) of Linux on x86_64");
}
