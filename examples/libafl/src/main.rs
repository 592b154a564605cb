//! Fuzzers with LibAFL over this crate, whose clients crash, resume and continue.
//!
//! Without arguments it runs every scenario, each in new processes and in a new directory, and checks what they
//! report. `SCENARIO [ARGUMENT…]` runs one. `libafl/alone` checks that nothing is left behind.

mod counted;
mod environment;
mod forked;
mod forkserver;
mod fuzzer;
mod launcher;
mod messages;
mod report;
mod scenarios;
mod simple;

use libafl::Error;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        [] => return scenarios::run_all(),
        ["launcher", how, port] => launcher::run(how == "fork", port.parse()?),
        ["simple", how] => simple::run(how == "fork"),
        ["forked"] => forked::run(),
        ["messages", role, port] => messages::run(role, port.parse()?),
        ["environment"] => environment::parent(),
        ["environment", "child", name] => environment::child(name),
        ["forkserver", target] => forkserver::run(target),
        _ => return Err("there is no such scenario".into()),
    };
    match result {
        // A restarting manager returns this error when everything is done.
        Ok(()) | Err(Error::ShuttingDown) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
