//! The second process: a program that executes commands, line by line.
//!
//! ```text
//! make PROVIDER             ok ID            creates a segment, and holds it
//! open PROVIDER ID          ok               attaches to a segment, checks its content and drops it
//! child-opens PROVIDER ID   ok               starts a process that does so
//! inherited                 ok               attaches to the segment that was passed to it, in the same way
//! child-inherits            ok               creates a segment, and starts a process that inherits it
//! forbid ERROR CALL…        ok               makes system calls fail from now on
//! landlock [PATH…]          ok               makes everything but these directories read-only
//! ```
//!
//! The text of an error starts with its kind.

use std::any::Any;
use std::error::Error;
use std::process::Command;

use shmem_providers::{
    FileShMemProvider, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemProvider,
    StdServedShMemProvider, StdShMem, StdShMemProvider, UnixShMemProvider,
};
use testkit::peer::{self, Peer};

use super::sandboxes;

/// The providers, as the tables call them.
pub(super) const PROVIDERS: &[&str] = &[
    INHERITED, "default", "memfd", "System V", "POSIX", "served", "file",
];

/// The default provider, whose segment is passed on by `ShMem::inherit`.
pub(super) const INHERITED: &str = "inherited";

/// The variable of a segment that is passed on.
const VARIABLE: &str = "SANDBOX_SEGMENT";

/// The result of a command in the peer.
type Answer = Result<String, Box<dyn Error>>;

/// The common commands. Rare ones are sent as text.
pub(super) trait Commands {
    /// Creates a segment and returns its id.
    fn make(&mut self, provider: &str) -> Result<String, String>;

    /// Attaches to a segment.
    fn open(&mut self, provider: &str, id: &str) -> Result<(), String>;

    /// Lets a child of the peer attach to a segment.
    fn child_opens(&mut self, provider: &str, id: &str) -> Result<(), String>;
}

impl Commands for Peer {
    #[track_caller]
    fn make(&mut self, provider: &str) -> Result<String, String> {
        self.ask(format!("make {}", word(provider)))
    }

    #[track_caller]
    fn open(&mut self, provider: &str, id: &str) -> Result<(), String> {
        self.execute(format!("open {} {id}", word(provider)))
    }

    #[track_caller]
    fn child_opens(&mut self, provider: &str, id: &str) -> Result<(), String> {
        self.execute(format!("child-opens {} {id}", word(provider)))
    }
}

/// Returns the provider as one word of a command.
fn word(provider: &str) -> String {
    provider.replace(' ', "-")
}

/// Executes commands until there are no more.
pub(super) fn serve() {
    // Dropped at the end.
    let mut held = Vec::new();
    peer::serve(|words| execute(words, &mut held));
}

fn execute(words: &[&str], held: &mut Vec<Box<dyn Any>>) -> Answer {
    match *words {
        ["make", provider] => match provider {
            "default" => make::<StdShMemProvider>(held),
            "memfd" => make::<MemfdShMemProvider>(held),
            "System-V" => make::<UnixShMemProvider>(held),
            "POSIX" => make::<MmapShMemProvider>(held),
            "served" => make::<StdServedShMemProvider>(held),
            "file" => make::<FileShMemProvider>(held),
            other => Err(format!("unknown provider {other}").into()),
        },
        ["open", provider, id] => match provider {
            "default" => open::<StdShMemProvider>(id),
            "memfd" => open::<MemfdShMemProvider>(id),
            "System-V" => open::<UnixShMemProvider>(id),
            "POSIX" => open::<MmapShMemProvider>(id),
            "served" => open::<StdServedShMemProvider>(id),
            "file" => open::<FileShMemProvider>(id),
            other => Err(format!("unknown provider {other}").into()),
        },
        ["child-opens", provider, id] => {
            let opened = Peer::start().ask(format!("open {provider} {id}"));
            Ok(opened?)
        }
        ["inherited"] => {
            attach(|provider: &mut StdShMemProvider| provider.existing_from_env(VARIABLE))
        }
        ["child-inherits"] => {
            let (segment, mut command) = (segment()?, Peer::command());
            pass_on(&segment, &mut command)?;
            Ok(Peer::started(&mut command).ask("inherited")?)
        }
        ["forbid", ref words @ ..] => testkit::seccomp::forbid(words),
        ["landlock", ref paths @ ..] => sandboxes::restrict(paths),
        _ => Err(format!("unknown command {words:?}").into()),
    }
}

fn make<P: ShMemProvider + 'static>(held: &mut Vec<Box<dyn Any>>) -> Answer
where
    P::ShMem: 'static,
{
    let mut provider = P::new().map_err(|error| with_kind(&error))?;
    let mut segment = provider
        .new_shmem(5000)
        .map_err(|error| with_kind(&error))?;
    segment[4999] = 7;
    let id = segment.id().to_string();
    held.push(Box::new((segment, provider)));
    Ok(id)
}

fn open<P: ShMemProvider>(id: &str) -> Answer {
    let id = ShMemId::from_string(id);
    attach(|provider: &mut P| provider.shmem_from_id_and_size(id, 5000))
}

fn attach<P: ShMemProvider>(
    attach: impl FnOnce(&mut P) -> Result<P::ShMem, shmem_providers::Error>,
) -> Answer {
    let mut provider = P::new().map_err(|error| with_kind(&error))?;
    match attach(&mut provider).map_err(|error| with_kind(&error))?[4999] {
        7 => Ok(String::new()),
        other => Err(format!("content {other}").into()),
    }
}

/// Creates a segment of the default provider.
pub(super) fn segment() -> Result<StdShMem, String> {
    let segment = StdShMemProvider::new().and_then(|mut provider| provider.new_shmem(5000));
    let mut segment = segment.map_err(|error| with_kind(&error))?;
    segment[4999] = 7;
    Ok(segment)
}

/// Passes the segment to the program of the command.
pub(super) fn pass_on(segment: &StdShMem, command: &mut Command) -> Result<(), String> {
    let passed = segment.inherit(command, VARIABLE);
    passed.map_err(|error| with_kind(&error))
}

fn with_kind(error: &shmem_providers::Error) -> String {
    format!("{} {error}", error.kind())
}
