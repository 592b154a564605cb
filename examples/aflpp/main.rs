//! Coverage maps for targets of AFL++: created here and filled by targets, or created by AFL++ and filled
//! here.
//!
//! `make aflpp` builds the targets and runs every part:
//!
//! * `coverage TARGET` runs a target built with `afl-clang-fast` on several inputs, with a System V segment as
//!   its map, and checks that each input results in another map.
//! * `server` is a target itself, with the fork server that AFL++ expects. For each execution it starts
//!   `target`, which attaches to the segment in `__AFL_SHM_ID`, with AFL++'s default size unless the
//!   environment has another one, and marks the bytes that it reads from its input.
//! * `name TARGET` runs a target that opens a POSIX name, as targets built with `USEMMAP` do.

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
