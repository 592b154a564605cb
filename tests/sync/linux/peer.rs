//! The second process: a program that executes commands, line by line.

use std::error::Error;

use super::doorbell;

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

pub(crate) fn serve() {
    let mut bells = doorbell::State::default();
    testkit::peer::serve(|command: &[&str]| match *command {
        ["bell", ref words @ ..] => bells.execute(words),
        _ => Err(format!("unknown command {command:?}").into()),
    });
}
