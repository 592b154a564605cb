//! Coverage maps for targets of AFL++: made here and filled by them, or made by AFL++ and filled here.
//!
//! `make aflpp` builds the targets and runs all of it. The parts:
//!
//! * `coverage TARGET`: runs a target built with `afl-clang-fast` on several inputs, with a System V
//!   segment as its map, and shows that each input leaves another one;
//! * `server`: is a target itself, with the fork server that AFL++ expects, and starts `target` for every
//!   execution: that attaches to what `__AFL_SHM_ID` names, with the size that AFL++ uses unless it is
//!   told another, and marks there what it reads from its input;
//! * `name TARGET`: runs a target that opens a POSIX name, as those do that were built with `USEMMAP`.

#[cfg(target_os = "linux")]
mod program;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("aflpp: this needs Linux, as Debian's `afl++` does");
    std::process::ExitCode::FAILURE
}
