//! The second process: a program that executes commands, line by line.
//!
//! ```text
//! make SIZE                 ok ID            creates a segment, which becomes the newest
//! open ID [SIZE]            ok SIZE          attaches to a segment, which becomes the newest
//! env NAME                  ok SIZE          the same, from the environment
//! put OFFSET BYTE           ok               writes to the newest
//! get OFFSET                ok BYTE          reads from the newest
//! grow SIZE                 ok SIZE          grows the newest
//! committed                 ok SIZE          returns the committed size of the newest
//! drop                      ok               drops the newest
//! handles                   ok COUNT         counts the open handles
//! named COMMAND WORD…                         see `named.rs`
//! presence COMMAND [WORD]                    see `presence.rs`
//! pong INDEX ROUNDS         ok               answers each odd number in a word of the newest with the next one
//! churn                                      creates and drops segments until it is terminated
//! ```

use shmem_providers::{ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider};
use std::error::Error;

use crate::named::Names;
use crate::presence::Participant;
use crate::wake;
use testkit::open_files;
pub(crate) use testkit::peer::Peer;

/// Executes commands until there are no more.
pub(crate) fn serve() {
    let mut segments = Vec::new();
    let mut names = Names::default();
    let mut participant = Participant::default();
    testkit::peer::serve(|command| match command {
        ["named", command @ ..] => names.execute(command),
        ["presence", command @ ..] => participant.execute(command),
        _ => execute(&mut segments, command),
    });
}

fn execute(segments: &mut Vec<StdShMem>, command: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    let newest = segments.last_mut().ok_or("no segment");
    let opened = match *command {
        ["make", size] => {
            let segment = provider.new_shmem(size.parse()?)?;
            let id = segment.id().to_string();
            segments.push(segment);
            return Ok(id);
        }
        ["open", id] => provider.shmem_from_id(ShMemId::from_string(id))?,
        ["open", id, size] => {
            provider.shmem_from_id_and_size(ShMemId::from_string(id), size.parse()?)?
        }
        ["env", name] => provider.existing_from_env(name)?,
        ["put", offset, byte] => {
            newest?
                .access()
                .write_at(offset.parse()?, &[byte.parse()?])?;
            return Ok(String::new());
        }
        ["get", offset] => {
            let mut byte = [0];
            newest?.access().read_at(offset.parse()?, &mut byte)?;
            return Ok(byte[0].to_string());
        }
        ["grow", size] => {
            let newest = newest?;
            newest.grow_to(size.parse()?)?;
            return Ok(newest.len().to_string());
        }
        ["committed"] => return Ok(newest?.committed().to_string()),
        ["drop"] => {
            drop(segments.pop());
            return Ok(String::new());
        }
        ["pong", index, rounds] => {
            return wake::pong(newest?, index.parse()?, rounds.parse()?);
        }
        ["handles"] => return Ok(open_files().to_string()),
        ["churn"] => loop {
            provider.new_shmem(65536)?[0] = 1;
        },
        _ => return Err(format!("unknown command {command:?}").into()),
    };
    let size = opened.len().to_string();
    segments.push(opened);
    Ok(size)
}
