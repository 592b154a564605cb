//! [`Closer`]: closes what can take long to close, on other threads.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use rustix::fd::OwnedFd;

use super::registry::Process;
use crate::sys;

/// How many threads there are at most.
const MOST_LANES: usize = 64;

/// How long a thread waits for more to close.
const LINGER: Duration = Duration::from_millis(500);

/// How many descriptors of one process may wait to be closed before nothing more is accepted from it:
/// descriptors that it has sent and connections, and memory.
const MOST_FOREIGN: usize = 8;
const MOST_MEMORY: usize = 32;
const MOST_REFUSED: usize = 32;

/// What is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Memory of segments. It takes as long as the kernel needs to free it: an eighth of a second for
    /// each GiB.
    Memory,
    /// A connection, perhaps with messages that nobody has read.
    Connection,
    /// A descriptor that a client should not have sent.
    Foreign,
    /// Memory that was refused, or that was kept already under the same id. It does not count as kept.
    Refused,
}

/// Closes descriptors on other threads, one for each process that they come from.
///
/// To close a descriptor can take as long as whoever made it likes: a TCP socket with `SO_LINGER`
/// waits for its other side, a file of a file system in user space (FUSE) for the program behind
/// it, and a Unix socket for all that was sent through it and not received. Whoever serves others must
/// not wait for that, and what others have sent must not wait behind it.
#[derive(Debug)]
pub(super) struct Closer {
    lanes: BTreeMap<Process, Lane>,
    /// For which there was no thread.
    unclosed: Vec<(Process, Load)>,
    /// How many descriptors of all processes wait, for each kind.
    waiting: [Count; 4],
    /// How many foreign and refused ones may wait at most before processes with any are kept from
    /// sending more.
    most_foreign: usize,
}

/// A thread, and what waits for it.
#[derive(Debug)]
struct Lane {
    /// The thread ends some time after this is dropped, or when there is nothing to do.
    thread: Option<Sender<Load>>,
    foreign: Count,
    memory: Count,
    refused: Count,
}

/// A descriptor to be closed. It is counted until it is.
#[derive(Debug)]
struct Load {
    /// First, because fields are dropped in this order.
    fd: OwnedFd,
    _of_process: Counted,
    _of_all: Counted,
}

/// Counts what exists.
#[derive(Debug, Default)]
struct Count(Arc<AtomicUsize>);

/// One more, for as long as it exists.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Count {
    fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Relaxed);
        Counted(Arc::clone(&self.0))
    }

    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Closer {
    /// `most_foreign`: how many descriptors that clients should not have sent may be open at once,
    /// approximately.
    pub(super) fn new(most_foreign: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            unclosed: Vec::new(),
            waiting: Default::default(),
            most_foreign,
        }
    }

    /// Has a descriptor closed that comes from this process.
    pub(super) fn close(&mut self, process: Process, kind: Kind, fd: OwnedFd) {
        if self.lanes.len() >= MOST_LANES && !self.lanes.contains_key(&process) {
            self.lanes.retain(|_, lane| lane.is_busy());
        }
        let has_room = self.lanes.len() < MOST_LANES || self.lanes.contains_key(&process);
        let all = self.count(kind).one_more();
        if !has_room {
            let nobody = Count::default().one_more();
            return self.unclosed.push((process, Load::new(fd, nobody, all)));
        }
        let lane = self.lanes.entry(process).or_insert_with(Lane::new);
        let counted = match kind {
            Kind::Memory => lane.memory.one_more(),
            Kind::Refused => lane.refused.one_more(),
            Kind::Connection | Kind::Foreign => lane.foreign.one_more(),
        };
        if let Err(load) = lane.close(Load::new(fd, counted, all)) {
            self.unclosed.push((process, load));
        }
    }

    /// Tries again what could not be done for lack of threads.
    pub(super) fn try_again(&mut self) {
        if self.unclosed.is_empty() {
            return;
        }
        self.lanes.retain(|_, lane| lane.is_busy());
        for (process, load) in core::mem::take(&mut self.unclosed) {
            if self.lanes.len() >= MOST_LANES && !self.lanes.contains_key(&process) {
                self.unclosed.push((process, load));
                continue;
            }
            let lane = self.lanes.entry(process).or_insert_with(Lane::new);
            if let Err(load) = lane.close(load) {
                self.unclosed.push((process, load));
            }
        }
    }

    /// How many descriptors wait.
    pub(super) fn waiting(&self, kind: Kind) -> usize {
        self.count(kind).get()
    }

    /// How many descriptors of memory that belonged to this process wait.
    pub(super) fn memory_of(&self, process: Process) -> usize {
        let lane = self.lanes.get(&process);
        lane.map_or(0, |lane| lane.memory.get())
    }

    /// Whether so much of this process waits to be closed that nothing more shall come from it.
    pub(super) fn is_behind(&self, process: Process) -> bool {
        let Some(lane) = self.lanes.get(&process) else {
            // Without a lane, it is not known what is whose.
            return self.lanes.len() >= MOST_LANES && !self.unclosed.is_empty();
        };
        let (foreign, refused) = (lane.foreign.get(), lane.refused.get());
        let of_all = self.waiting(Kind::Foreign) + self.waiting(Kind::Refused);
        foreign >= MOST_FOREIGN
            || refused >= MOST_REFUSED
            || lane.memory.get() >= MOST_MEMORY
            || foreign + refused > 0 && of_all >= self.most_foreign
    }

    /// Waits so long at most until everything is closed; the threads go on by themselves.
    pub(super) fn finish(mut self, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            self.try_again();
            let waiting: usize = self.waiting.iter().map(Count::get).sum();
            if waiting == 0 || Instant::now() >= end {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
        // What there never was a thread for is closed with the table of the service, or stays open.
        for (_, load) in self.unclosed.drain(..) {
            core::mem::forget(load);
        }
    }

    fn count(&self, kind: Kind) -> &Count {
        let [memory, connections, foreign, refused] = &self.waiting;
        match kind {
            Kind::Memory => memory,
            Kind::Connection => connections,
            Kind::Foreign => foreign,
            Kind::Refused => refused,
        }
    }
}

impl Load {
    fn new(fd: OwnedFd, of_process: Counted, of_all: Counted) -> Self {
        Self {
            fd,
            _of_process: of_process,
            _of_all: of_all,
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            thread: None,
            foreign: Count::default(),
            memory: Count::default(),
            refused: Count::default(),
        }
    }

    fn is_busy(&self) -> bool {
        self.foreign.get() + self.memory.get() + self.refused.get() > 0
    }

    /// Hands it to the thread, which is started if need be. Returns it if there can be none.
    fn close(&mut self, load: Load) -> Result<(), Load> {
        let load = match &self.thread {
            Some(thread) => match thread.send(load) {
                Ok(()) => return Ok(()),
                // It has ended meanwhile.
                Err(mpsc::SendError(load)) => load,
            },
            None => load,
        };
        self.thread = start();
        match &self.thread {
            Some(thread) => thread.send(load).map_err(|mpsc::SendError(load)| load),
            None => Err(load),
        }
    }
}

fn start() -> Option<Sender<Load>> {
    let (sender, receiver) = mpsc::channel::<Load>();
    let work = move || loop {
        match receiver.recv_timeout(LINGER) {
            Ok(load) => drop(load.fd),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    };
    sys::thread::spawn(c"shmem-closer", work).ok()?;
    Some(sender)
}

/// How many descriptors of a service wait to be closed in this process, which is its client.
static OF_SERVICES: AtomicUsize = AtomicUsize::new(0);

/// Whether so much from services waits to be closed that nothing more shall be accepted from one.
pub(super) fn has_enough_of_services() -> bool {
    OF_SERVICES.load(Relaxed) >= MOST_FOREIGN
}

/// Closes what a service has sent that it should not have sent.
pub(super) fn close_of_service(descriptors: Vec<OwnedFd>) {
    if descriptors.is_empty() {
        return;
    }
    OF_SERVICES.fetch_add(1, Relaxed);
    let work = move || {
        drop(descriptors);
        OF_SERVICES.fetch_sub(1, Relaxed);
    };
    // Without a thread it is closed here: there is no other place.
    let _ = sys::thread::spawn(c"shmem-closer", work);
}
