//! The second process: a program that executes commands, line by line.

use std::error::Error;

use super::ring;
pub(crate) use testkit::peer::Peer;

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// Executes commands until there are no more.
pub(crate) fn serve() {
    testkit::peer::serve(execute);
}

fn execute(command: &[&str]) -> Answer {
    match *command {
        ["ring", ref words @ ..] => ring::execute(words),
        ["forbid", ref words @ ..] => testkit::seccomp::forbid(words),
        _ => Err(format!("unknown command {command:?}").into()),
    }
}
