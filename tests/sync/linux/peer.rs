//! The second process: a program that executes commands, line by line. The first word of a command is the
//! subject of the tests that it belongs to.

use std::error::Error;

use super::{doorbell, event, latest, mutex, presence, ring, served, turn, wake};
pub(crate) use testkit::peer::Peer;

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// Executes commands until there are no more.
pub(crate) fn serve() {
    let mut bells = doorbell::State::default();
    testkit::peer::serve(|command: &[&str]| match *command {
        ["bell", ref words @ ..] => bells.execute(words),
        ["event", ref words @ ..] => event::execute(words),
        ["forbid", ref words @ ..] => testkit::seccomp::forbid(words),
        ["latest", ref words @ ..] => latest::execute(words),
        ["mutex", ref words @ ..] => mutex::execute(words),
        ["presence", ref words @ ..] => presence::execute(words),
        ["ring", ref words @ ..] => ring::execute(words),
        ["served", ref words @ ..] => served::execute(words),
        ["turn", ref words @ ..] => turn::execute(words),
        ["wake", ref words @ ..] => wake::execute(words),
        _ => Err(format!("unknown command {command:?}").into()),
    });
}
