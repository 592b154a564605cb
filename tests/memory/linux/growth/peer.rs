//! What the second process does: it holds one segment that can grow.

use std::cell::RefCell;
use std::fs;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use rustix::process::{Resource, getrlimit, setrlimit};
use shmem_providers::{
    Growable, MemfdBackend, PosixBackend, Provider, Result, Segment, ServedShMemProvider, ShMem,
    ShMemId, ShMemOptions, ShMemProvider, StdShMemProvider,
};

use crate::linux::peer::{Answer, Peer};
use testkit::page_size;

thread_local! {
    static HELD: RefCell<Option<Box<dyn Grows>>> = const { RefCell::new(None) };
}

/// A segment of any backend.
trait Grows {
    fn bytes(&mut self) -> &mut [u8];
    fn grow(&mut self, len: usize) -> Result<()>;
    fn state(&self) -> State;
}

impl<B: Growable> Grows for Segment<B> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn grow(&mut self, len: usize) -> Result<()> {
        self.grow_to(len)
    }

    fn state(&self) -> State {
        State {
            len: self.len(),
            committed: self.committed(),
            reserved: self.reserved(),
            address: self.as_ptr().addr(),
        }
    }
}

/// What a holder knows of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) len: usize,
    pub(crate) committed: usize,
    pub(crate) reserved: usize,
    pub(crate) address: usize,
}

/// The commands, for the tests.
pub(crate) trait GrowthCommands {
    fn state(&mut self) -> State;
    fn grow_to(&mut self, len: usize) -> Result<usize, String>;
    /// Writes to every page.
    fn touch(&mut self) -> Result<usize, String>;
}

impl GrowthCommands for Peer {
    #[track_caller]
    fn state(&mut self) -> State {
        let answer = self.ask("grow state").expect("a segment is held");
        let mut numbers = answer.split(' ').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        State {
            len: next(),
            committed: next(),
            reserved: next(),
            address: next(),
        }
    }

    #[track_caller]
    fn grow_to(&mut self, len: usize) -> Result<usize, String> {
        self.ask_for(format!("grow to {len}"))
    }

    #[track_caller]
    fn touch(&mut self) -> Result<usize, String> {
        self.ask_for("grow touch")
    }
}

/// Executes a command that starts with `grow`.
pub(crate) fn execute(words: &[&str]) -> Answer {
    match *words {
        ["new", kind, size, max] => {
            let options = ShMemOptions::new().reserve(max.parse()?);
            by(kind, Do::New(size.parse()?, options))
        }
        ["open", kind, id] => by(kind, Do::Open(id.parse()?, None)),
        ["open", kind, id, size] => by(kind, Do::Open(id.parse()?, Some(size.parse()?))),
        ["env", kind, name] => by(kind, Do::Env(name.into())),
        ["state"] => with(|held| {
            let State {
                len,
                committed,
                reserved,
                address,
            } = held.state();
            Ok(format!("{len} {committed} {reserved} {address}"))
        }),
        ["to", len] => with(|held| {
            held.grow(len.parse()?)?;
            Ok(held.bytes().len().to_string())
        }),
        ["put", at, byte] => with(|held| {
            held.bytes()[at.parse::<usize>()?] = byte.parse()?;
            Ok(String::new())
        }),
        ["get", at] => with(|held| Ok(held.bytes()[at.parse::<usize>()?].to_string())),
        ["touch"] => with(|held| Ok(touch(held))),
        ["race", step] => with(|held| race(held, step.parse()?)),
        ["state-as", value] => with(|held| {
            state_as(held, value.parse()?);
            Ok(String::new())
        }),
        ["drop"] => {
            HELD.take();
            Ok(String::new())
        }
        ["limit-file-size", bytes] => {
            let mut limit = getrlimit(Resource::Fsize);
            limit.current = Some(bytes.parse()?);
            setrlimit(Resource::Fsize, limit)?;
            Ok(String::new())
        }
        ["free"] => Ok(rustix::fs::statvfs("/dev/shm")?.f_bfree.to_string()),
        ["names"] => Ok(fs::read_dir("/dev/shm")?.count().to_string()),
        ["pid"] => Ok(std::process::id().to_string()),
        ["rivals"] => rivals(),
        ["after-failure"] => after_failure(),
        _ => Err(format!("unknown command {words:?}").into()),
    }
}

enum Do {
    New(usize, ShMemOptions),
    Open(ShMemId, Option<usize>),
    Env(String),
}

fn by(kind: &str, what: Do) -> Answer {
    fn held<B: Growable + 'static>(mut provider: Provider<B>, what: Do) -> Answer
    where
        B::Handle: 'static,
    {
        let segment = match what {
            Do::New(size, options) => provider.new_shmem_with(size, options)?.0,
            Do::Open(id, None) => provider.shmem_from_id(id)?,
            Do::Open(id, Some(size)) => provider.shmem_from_id_and_size(id, size)?,
            Do::Env(name) => provider.existing_from_env(&name)?,
        };
        let id = segment.id();
        HELD.set(Some(Box::new(segment)));
        Ok(id.to_string())
    }
    match kind {
        "served" => held(ServedShMemProvider::<MemfdBackend>::new()?, what),
        "served_posix" => held(ServedShMemProvider::<PosixBackend>::new()?, what),
        "posix" => held(shmem_providers::MmapShMemProvider::new()?, what),
        _ => held(StdShMemProvider::new()?, what),
    }
}

fn with(what: impl FnOnce(&mut dyn Grows) -> Answer) -> Answer {
    HELD.with_borrow_mut(|held| what(held.as_deref_mut().ok_or("no segment is held")?))
}

/// Writes to every page, which raises SIGBUS if there is no memory.
fn touch(held: &mut dyn Grows) -> String {
    let bytes = held.bytes();
    for byte in bytes.iter_mut().step_by(page_size()) {
        *byte = byte.wrapping_add(1);
    }
    bytes.len().to_string()
}

/// Grows in small steps as long as possible, and writes to all pages each time.
fn race(held: &mut dyn Grows, step: usize) -> Answer {
    loop {
        let State {
            committed,
            reserved,
            ..
        } = held.state();
        let next = (committed + step).min(reserved);
        let done = held.grow(next);
        touch(held);
        match done {
            Err(error) => return Ok(format!("{} {error}", held.state().len)),
            Ok(()) if next == reserved => return Ok(reserved.to_string()),
            Ok(()) => {}
        }
    }
}

/// Writes any number where the number of committed bytes is: at the end.
#[allow(unsafe_code)]
fn state_as(held: &dyn Grows, value: usize) {
    let State {
        address, reserved, ..
    } = held.state();
    let last = address + reserved + page_size() - size_of::<usize>();
    let cell = std::ptr::with_exposed_provenance_mut::<usize>(last);
    // SAFETY: a page with an atomic number is mapped behind the reservation as long as the segment is held.
    unsafe { AtomicUsize::from_ptr(cell) }.store(value, SeqCst);
}

/// Grows a segment, whose memory the failing growth of another process must not free. Uses it when there is
/// no other memory left.
fn after_failure() -> Answer {
    let id = execute(&["new", "posix", "1", "64000000"])?;
    execute(&["to", "3000000"])?;
    let (mut rival, mut other) = (Peer::start(), Peer::start());
    rival.execute(format!("grow open posix {id} 1"))?;
    other.execute("grow new posix 2000000 1")?;
    // Less than the file system has in all, so that the kernel tries.
    let error = rival.grow_to(5 << 20).expect_err("there is no room");
    let rest = rustix::fs::statvfs("/dev/shm")?;
    let rest = rest.f_bfree * rest.f_bsize;
    rival.execute(format!("grow new posix {} 1", rest - (64 << 10)))?;
    execute(&["touch"])?;
    Ok(error)
}

/// Fills `/dev/shm` together with another process, which grows the same segment at the same time. Returns
/// the sizes that both have, and why they do not have more.
fn rivals() -> Answer {
    HELD.take();
    let id = execute(&["new", "posix", "1", "8000000"])?;
    let mut rival = Peer::start();
    rival.execute(format!("grow open posix {id}"))?;
    rival.send("grow race 200000");
    let mine = execute(&["race", "300000"])?;
    let theirs = rival.answer_to("race")?;
    // All of it can be used, by both.
    with(|held| {
        held.grow(held.state().committed)?;
        Ok(touch(held))
    })?;
    let committed = rival.state().committed;
    rival.grow_to(committed)?;
    rival.touch()?;
    Ok(format!("{mine} and {theirs}"))
}
