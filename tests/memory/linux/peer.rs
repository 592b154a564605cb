//! The second process: a program that executes commands, line by line.

use std::error::Error;
use std::fmt::Display;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use shmem_providers::{OptionStatus, ShMemOptions, ShMemProvider, SlabRef, StdShMemProvider};

use super::{growth, pool, read_only, single_writer, slab, snapshot};
pub(crate) use testkit::peer::Peer;

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// The common commands. Rare ones are sent as text.
pub(crate) trait Commands {
    /// Holds a segment until the peer ends.
    fn hold(&mut self, id: &impl Display) -> Result<(), String>;

    /// Checks that all bytes of a snapshot are `expected`, changes and resets a view of it, and holds the view
    /// until the peer ends.
    fn view(&mut self, id: &impl Display, expected: u8) -> Result<(), String>;

    /// Checks that all bytes of an object are 3, and changes them to 4.
    fn change_object(&mut self, object: SlabRef) -> Result<(), String>;

    /// Locks a segment in memory under this limit, and returns `granted` or the reason of the refusal.
    fn lock(&mut self, size: usize, limit: u64) -> Result<String, String>;
}

impl Commands for Peer {
    #[track_caller]
    fn hold(&mut self, id: &impl Display) -> Result<(), String> {
        self.execute(format!("hold {id}"))
    }

    #[track_caller]
    fn view(&mut self, id: &impl Display, expected: u8) -> Result<(), String> {
        self.execute(format!("view {id} {expected}"))
    }

    #[track_caller]
    fn change_object(&mut self, object: SlabRef) -> Result<(), String> {
        let SlabRef {
            segment,
            offset,
            len,
        } = object;
        self.execute(format!(
            "object {} {} {offset} {len}",
            segment.id, segment.size
        ))
    }

    #[track_caller]
    fn lock(&mut self, size: usize, limit: u64) -> Result<String, String> {
        self.ask(format!("lock {size} {limit}"))
    }
}

/// Executes commands until there are no more.
pub(crate) fn serve() {
    testkit::peer::serve(execute);
}

fn execute(command: &[&str]) -> Answer {
    match *command {
        ["hold", id] => pool::hold(id),
        ["forks"] => pool::forks(),
        ["moves"] => pool::moves(),
        ["child-makes"] => pool::child_makes(),
        ["child-allocates"] => slab::child_allocates(),
        ["probe", id] => pool::probe(id),
        ["view", id, expected] => snapshot::view(id, expected.parse()?),
        ["object", ref words @ ..] => slab::change_object(words),
        ["attack", id, path, size] => read_only::try_to_change(id, path, size.parse()?),
        ["map-everything", pid] => read_only::map_everything(pid),
        ["single-writer", freeze] => single_writer::hold_single_writer(freeze),
        ["read-only", id] => read_only::hold_read_only(id),
        ["read-only-env", name] => read_only::read_from_env(name),
        ["forbid", ref words @ ..] => testkit::seccomp::forbid(words),
        ["grow", ref words @ ..] => growth::execute(words),
        ["fork-and-freeze"] => single_writer::fork_and_freeze(),
        ["lock", size, limit] => lock(size.parse()?, limit.parse()?),
        _ => Err(format!("unknown command {command:?}").into()),
    }
}

/// Lowers the limit on locked memory, gives up the privilege to ignore it, and locks a segment.
fn lock(size: usize, limit: u64) -> Answer {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Memlock, limit)?;
    if rustix::process::geteuid().is_root() {
        // SAFETY: this program has a single thread, and the call accesses no memory.
        if unsafe { libc::setuid(65534) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    let mut provider = StdShMemProvider::new()?;
    let (_segment, report) = provider.new_shmem_with(size, ShMemOptions::new().lock())?;
    Ok(match report.lock {
        OptionStatus::Refused(reason) => reason.to_string(),
        _ => "granted".into(),
    })
}
