//! Fuzzers over this crate whose clients crash, resume and go on; and that nothing is left in the end.
//!
//! Without arguments it plays every scene in processes of its own, in a folder of its own, and
//! compares what they report with what it should be. `SCENE [ARGUMENT…]` plays one.

mod counted;
mod environment;
mod forked;
mod forkserver;
mod fuzzer;
mod launcher;
mod messages;
mod report;
mod scenes;
mod simple;

use libafl::Error;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let played = match args[..] {
        [] => return scenes::play_all(),
        ["launcher", how, port] => launcher::run(how == "fork", port.parse()?),
        ["simple", how] => simple::run(how == "fork"),
        ["forked"] => forked::run(),
        ["messages", role, port] => messages::run(role, port.parse()?),
        ["environment"] => environment::parent(),
        ["environment", "child", name] => environment::child(name),
        ["forkserver", target] => forkserver::run(target),
        _ => return Err("no such scene".into()),
    };
    match played {
        // How a restarting manager says that all is done.
        Ok(()) | Err(Error::ShuttingDown) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
