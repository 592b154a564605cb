//! [`Reaper`]: closes descriptors whose closing may block, on threads of its own.

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

/// The maximum number of threads.
const MAX_WORKERS: usize = 64;

/// How long an idle thread waits for another descriptor before it ends.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How many descriptors of one process may wait to be closed before nothing more is accepted from it:
/// unwanted descriptors and connections, memory of segments, and memory that was not stored.
const MAX_FOREIGN: usize = 8;
const MAX_MEMORY: usize = 32;
const MAX_REFUSED: usize = 32;

/// What kind of descriptor is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Memory of segments. The kernel needs about an eighth of a second to free a GiB.
    Memory,
    /// A connection, perhaps with unread messages.
    Connection,
    /// A descriptor that a client should not have sent.
    Foreign,
    /// Memory that was never stored, because a limit was reached or the segment was stored already. It
    /// does not count towards the limit of stored segments.
    Refused,
}

/// Closes descriptors on other threads, one for each process that they come from.
///
/// The peer that created a descriptor determines how long closing it takes: a TCP socket with
/// `SO_LINGER` waits for its peer, a file in a user-space file system (FUSE) for the program behind it, and
/// a Unix socket closes everything that was sent through it and not received. The thread that serves
/// clients must not block on that, and neither must descriptors of one process wait behind those of
/// another.
#[derive(Debug)]
pub(super) struct Reaper {
    workers: BTreeMap<Process, Worker>,
    /// Descriptors for which no thread could be started.
    backlog: Vec<(Process, Job)>,
    /// How many descriptors of all processes are pending, for each kind.
    pending: [Counter; 4],
    /// From how many pending foreign and refused descriptors on, of all processes together, a process with
    /// any of them is overloaded.
    max_foreign: usize,
}

/// The thread for one process, and how many descriptors it has to close.
#[derive(Debug)]
struct Worker {
    /// The thread ends after [`IDLE_TIMEOUT`] without work, or when this is dropped.
    thread: Option<Sender<Job>>,
    foreign: Counter,
    memory: Counter,
    refused: Counter,
}

/// A descriptor to be closed. It is counted until that is done.
#[derive(Debug)]
struct Job {
    /// The first field, because fields are dropped in this order.
    fd: OwnedFd,
    _of_process: Counted,
    _of_all: Counted,
}

/// The number of existing [`Counted`] values.
#[derive(Debug, Default)]
struct Counter(Arc<AtomicUsize>);

/// Is included in its [`Counter`] until it is dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counter {
    fn increment(&self) -> Counted {
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

impl Reaper {
    /// Creates a reaper without threads.
    ///
    /// `max_foreign` is approximately how many descriptors that clients should not have sent may be open
    /// at the same time.
    pub(super) fn new(max_foreign: usize) -> Self {
        Self {
            workers: BTreeMap::new(),
            backlog: Vec::new(),
            pending: Default::default(),
            max_foreign,
        }
    }

    /// Closes a descriptor that comes from this process, on another thread.
    pub(super) fn close(&mut self, process: Process, kind: Kind, fd: OwnedFd) {
        if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(&process) {
            self.workers.retain(|_, worker| worker.is_busy());
        }
        let may_start = self.workers.len() < MAX_WORKERS || self.workers.contains_key(&process);
        let of_all = self.counter(kind).increment();
        if !may_start {
            let of_process = Counter::default().increment();
            let job = Job::new(fd, of_process, of_all);
            return self.backlog.push((process, job));
        }
        let worker = self.workers.entry(process).or_insert_with(Worker::new);
        let of_process = match kind {
            Kind::Memory => worker.memory.increment(),
            Kind::Refused => worker.refused.increment(),
            Kind::Connection | Kind::Foreign => worker.foreign.increment(),
        };
        if let Err(job) = worker.close(Job::new(fd, of_process, of_all)) {
            self.backlog.push((process, job));
        }
    }

    /// Tries again to close the descriptors for which no thread could be started.
    pub(super) fn retry(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        self.workers.retain(|_, worker| worker.is_busy());
        for (process, job) in core::mem::take(&mut self.backlog) {
            if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(&process) {
                self.backlog.push((process, job));
                continue;
            }
            let worker = self.workers.entry(process).or_insert_with(Worker::new);
            if let Err(job) = worker.close(job) {
                self.backlog.push((process, job));
            }
        }
    }

    /// Returns how many descriptors of this kind are not closed yet.
    pub(super) fn pending(&self, kind: Kind) -> usize {
        self.counter(kind).get()
    }

    /// Returns how many segments that this process registered are not closed yet.
    pub(super) fn pending_memory_of(&self, process: Process) -> usize {
        let worker = self.workers.get(&process);
        worker.map_or(0, |worker| worker.memory.get())
    }

    /// Returns `true` if so many descriptors of this process are not closed yet that nothing more may be
    /// accepted from it.
    pub(super) fn is_overloaded_by(&self, process: Process) -> bool {
        let Some(worker) = self.workers.get(&process) else {
            // The backlog is not counted for each process.
            return self.workers.len() >= MAX_WORKERS && !self.backlog.is_empty();
        };
        let (foreign, refused) = (worker.foreign.get(), worker.refused.get());
        let of_all = self.pending(Kind::Foreign) + self.pending(Kind::Refused);
        foreign >= MAX_FOREIGN
            || refused >= MAX_REFUSED
            || worker.memory.get() >= MAX_MEMORY
            || foreign + refused > 0 && of_all >= self.max_foreign
    }

    /// Waits until everything is closed, at most for `timeout`. After that the threads finish on their own.
    pub(super) fn finish(mut self, timeout: Duration) {
        let end = Instant::now() + timeout;
        loop {
            self.retry();
            let pending: usize = self.pending.iter().map(Counter::get).sum();
            if pending == 0 || Instant::now() >= end {
                break;
            }
            thread::sleep(Duration::from_micros(200));
        }
        // Descriptors without a thread are closed with the descriptor table of the service, if it has one of
        // its own, and otherwise stay open: closing them here could block.
        for (_, job) in self.backlog.drain(..) {
            core::mem::forget(job);
        }
    }

    fn counter(&self, kind: Kind) -> &Counter {
        let [memory, connections, foreign, refused] = &self.pending;
        match kind {
            Kind::Memory => memory,
            Kind::Connection => connections,
            Kind::Foreign => foreign,
            Kind::Refused => refused,
        }
    }
}

impl Job {
    fn new(fd: OwnedFd, of_process: Counted, of_all: Counted) -> Self {
        Self {
            fd,
            _of_process: of_process,
            _of_all: of_all,
        }
    }
}

impl Worker {
    fn new() -> Self {
        Self {
            thread: None,
            foreign: Counter::default(),
            memory: Counter::default(),
            refused: Counter::default(),
        }
    }

    fn is_busy(&self) -> bool {
        self.foreign.get() + self.memory.get() + self.refused.get() > 0
    }

    /// Passes the job to the thread, which is started if there is none. Returns the job if that fails.
    fn close(&mut self, job: Job) -> Result<(), Job> {
        let job = match &self.thread {
            Some(thread) => match thread.send(job) {
                Ok(()) => return Ok(()),
                // The thread was idle and has ended.
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        self.thread = start_worker();
        match &self.thread {
            Some(thread) => thread.send(job).map_err(|mpsc::SendError(job)| job),
            None => Err(job),
        }
    }
}

fn start_worker() -> Option<Sender<Job>> {
    let (sender, receiver) = mpsc::channel::<Job>();
    let work = move || loop {
        match receiver.recv_timeout(IDLE_TIMEOUT) {
            Ok(job) => drop(job.fd),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    };
    sys::thread::spawn(c"shmem-reaper", work).ok()?;
    Some(sender)
}

/// How many groups of descriptors that services have sent to this process are not closed yet.
static FROM_SERVICES: AtomicUsize = AtomicUsize::new(0);

/// Returns `true` if so many descriptors that services have sent are not closed yet that this process, their
/// client, may not accept more from any service.
pub(super) fn is_overloaded_by_services() -> bool {
    FROM_SERVICES.load(Relaxed) >= MAX_FOREIGN
}

/// Closes descriptors that a service should not have sent to this process, on another thread.
pub(super) fn close_from_service(descriptors: Vec<OwnedFd>) {
    if descriptors.is_empty() {
        return;
    }
    FROM_SERVICES.fetch_add(1, Relaxed);
    let counted = FromService;
    let work = move || {
        drop(descriptors);
        drop(counted);
    };
    // If no thread can be started, the closure is dropped, which closes the descriptors on this thread.
    let _ = sys::thread::spawn(c"shmem-reaper", work);
}

/// Is included in [`FROM_SERVICES`] until it is dropped.
struct FromService;

impl Drop for FromService {
    fn drop(&mut self) {
        FROM_SERVICES.fetch_sub(1, Relaxed);
    }
}
