//! [`ShMemService`]: the service, as a thread of this process.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use core::time::Duration;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Instant;

use super::address::{Address, Location, Lookup};
use super::server::Server;
use crate::error::{Error, Result, ServiceError, Subject, service};
use crate::process::Owner;
use crate::process::fork_lock::ForkLock;
use crate::sys;
use crate::sys::path_lock::LockError;
use crate::sys::thread::Thread;

/// How long starting a service may take.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may take even if the deadline of the caller is closer.
const MIN_START_TIMEOUT: Duration = Duration::from_millis(250);

/// The states of a start: the caller waits for it, the thread serves, or the caller has given up.
const PENDING: u8 = 0;
const SERVING: u8 = 1;
const ABANDONED: u8 = 2;

/// What the thread reports about its start: the outcome, and a descriptor of the program's descriptor table
/// that it no longer needs.
type Started = (Result<Location, StartError>, Option<OwnedFd>);

/// Why a service does not start.
pub(super) enum StartError {
    /// No path can be used for its socket, or the system refused something that is not about the path.
    Failed(Error),
    /// It was not allowed to serve at this path.
    Denied(Location, LockError),
}

/// The reports of starts that took too long. Their descriptors are closed when they arrive, because only
/// threads that share the program's descriptor table can do that.
static LATE: ForkLock<Vec<Receiver<Started>>> = ForkLock::new(Vec::new());

/// Stores the descriptors of segments while any process holds them, and hands them out to processes of the
/// same user.
///
/// There is no need to start one: the first [`ServedShMemProvider`](crate::ServedShMemProvider) that finds no
/// service starts one, and when that process ends, another one takes over. Start one to choose its address,
/// or to run it in a program of its own.
///
/// # One request
///
/// ```text
///  a process that creates               the service                  a process that opens
///
///  memfd_create, ftruncate,
///  seals, mmap
///  sendmsg  Register id, size ────────▶ recvmsg: one descriptor,
///           + the descriptor            in memory, of that size
///  recvmsg  ◀──────────────────── Done  sendmsg
///                                       recvmsg  ◀────────── Open id  sendmsg
///                                       sendmsg  Done, size ────────▶ recvmsg
///                                                + the descriptor     owner, size, seals,
///                                                                     mmap
///  munmap, close
///  sendmsg  Release id ───────────────▶ recvmsg: one holder less;
///                                       after the last, close
/// ```
///
/// All frames have 40 bytes. A release has no reply. When a process dies, the kernel closes its connection,
/// which releases everything that it held.
///
/// # Lifetime
///
/// The service runs until it is dropped or its process ends. The segments that its clients hold continue to
/// exist. The clients register them with the next service, under the same ids.
///
/// # Security
///
/// What the service trusts:
///
/// * *Other users*: not at all. The socket is in a directory that they cannot enter. Client and service
///   compare credentials (`SO_PEERCRED`) before they process the first byte. If another user has occupied an
///   address first, that is an error. Ids are random, but the security does not depend on that.
/// * *Processes of the same user*: they may read and write every segment, which they could also do by
///   debugging each other. They are not trusted to follow the protocol: a client that sends invalid or
///   incomplete requests, is slow, silent or stopped, or sends descriptors of any kind, loses its own
///   connection, and does not affect the others. A descriptor is accepted only with a request to store it,
///   one at a time. A descriptor that is not memory is closed on another thread, one for each process,
///   because its sender determines how long closing it takes. Nothing is accepted from a process while eight
///   of its descriptors wait to be closed. No request makes the service map memory, follow a path, allocate
///   an amount that the client chooses, or stop. See the [limits](Self::start_at).
/// * *The service itself*: its clients do not trust it either. A process that opens a segment checks the
///   owner, the size and the seals of the descriptor, and waits at most five seconds for it. A false service
///   could provide the wrong segment, or none.
///
/// # Platform notes
///
/// On Linux the thread of the service has its own descriptor table, so a forked child inherits none of its
/// descriptors. On other systems, and before Linux 5.9, a child that is forked and does not call `exec` keeps
/// the sockets of its parent open at which clients connect. New clients then notice that the service has died because
/// it does not answer.
///
/// To get its own table, the thread closes copies of the program's descriptors, and file systems are notified
/// of that. So it shares the program's table if the program has a message queue open, whose `mq_notify`
/// registration would end, or a file of a user-space or network file system, which could block.
///
/// Since Linux 6.16 the kernel prevents clients from sending descriptors before they are admitted
/// (`SO_PASSRIGHTS`). Before that, many processes together that send descriptors whose closing blocks, and
/// disconnect, can occupy descriptors of the service until these are closed.
///
/// # Examples
///
/// A program that only serves:
///
/// ```no_run
/// use shmem_providers::ShMemService;
///
/// ShMemService::start()?.wait();
/// # Ok::<(), shmem_providers::Error>(())
/// ```
///
/// Two services that are independent of each other:
///
/// ```
/// use shmem_providers::{
///     MemfdBackend, ServedShMemProvider, ShMem, ShMemProvider, ShMemService,
/// };
///
/// # let directory = tempfile::tempdir()?;
/// # let (one, other) = (directory.path().join("one"), directory.path().join("other"));
/// let services = [ShMemService::start_at(&one)?, ShMemService::start_at(&other)?];
/// let mut ours = ServedShMemProvider::<MemfdBackend>::at(&one);
/// let mut theirs = ServedShMemProvider::<MemfdBackend>::at(&other);
/// let segment = ours.new_shmem(100)?;
/// assert_eq!(ours.shmem_from_id(segment.id())?.len(), 100);
/// assert!(theirs.shmem_from_id(segment.id()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ShMemService {
    address: PathBuf,
    /// The write end of a pipe that the thread polls.
    stop: Option<File>,
    thread: Option<Thread>,
    owner: Owner,
}

impl ShMemService {
    /// The environment variable with the address, for programs that shall not use the default one:
    /// `command.env(ShMemService::ENV, service.address())`.
    ///
    /// A relative path is made absolute when the variable is read. A program that runs with more privileges
    /// than the user who started it (`AT_SECURE` in `getauxval(3)`) ignores this variable and the others that
    /// determine the default.
    pub const ENV: &'static str = service::VARIABLE;

    /// Starts the service at the address in `SHMEM_SERVICE`. If that is not set, it uses the default address,
    /// where all programs of this user meet: in the first of these directories that can be used.
    ///
    /// 1. `shmem_providers` in `$XDG_RUNTIME_DIR`, if only this user can enter that,
    /// 2. `shmem_providers` in `/run/user/UID`, under the same condition,
    /// 3. `shmem_providers-UID` in `$TMPDIR` or `/tmp`,
    /// 4. `.shmem_providers` in `$HOME`, if this user owns `$HOME`: for the case that another user has
    ///    created the third one first, or that the file system is read-only.
    ///
    /// Relative paths in these variables are ignored. If another directory becomes the first that can be used
    /// while the service runs, the service moves there within a second, and new programs find it there.
    ///
    /// A child that was forked and has not executed another program uses the variables that its parent read.
    ///
    /// # Errors
    ///
    /// Those of [`start_at`](Self::start_at), and [`Error::Service`] if none of the directories can be used.
    pub fn start() -> Result<Self> {
        Self::start_or_fail(&Address::default())
    }

    /// Starts the service at this address: the path of a socket, at most 103 bytes long. A relative path is
    /// made absolute now.
    ///
    /// The service creates the socket, and next to it a file with `.lock` after the same name. Both are
    /// removed when the service is stopped. If its process is killed, or exits without dropping the service
    /// (`exit` does not drop statics), they remain until the last of its clients, or the next service at this
    /// address, removes them.
    ///
    /// If the socket, the lock or their directory is removed while the service runs, it creates them again
    /// within a second. If another service has started there in the meantime, this one ends, and its clients
    /// register their segments with the other one.
    ///
    /// No other user may be able to rename a directory of the path: each has to belong to this user or to
    /// root, and a directory that others can write to needs the sticky bit, as `/tmp` has it. The directory
    /// of the socket itself should be writable for this user only.
    ///
    /// For half a second after its start, the service waits for the clients of a previous one to register
    /// their segments. Until then, opening an unknown id blocks before it returns an error.
    ///
    /// # Errors
    ///
    /// [`Error::Service`] if another service runs there, if the file there belongs to another user or is not
    /// a socket, or if the path is not a safe one. [`Error::Os`] if the system has run out of a resource.
    /// After an error, no files are left there.
    ///
    /// # Limits
    ///
    /// They depend on `RLIMIT_NOFILE` of this process. An eighth of it, at most 280, is kept free. Half of
    /// the rest is for clients, half for segments. No process has more clients than are left for all others,
    /// and none has registered more than four times as many segments, or bytes, as are left, so one process
    /// leaves a fifth of the segments. The last eighth of each is for processes that have less than a twelfth
    /// of it. Processes in other pid namespaces count as one. When there are too many clients, the service
    /// disconnects the one that holds nothing and has been silent longest. It connects again with its next
    /// request. Each participant (`sync::Presence`) is a client on systems where the service has its lock.
    ///
    /// The service starts within three seconds, or returns an error.
    pub fn start_at(path: impl AsRef<Path>) -> Result<Self> {
        Self::start_or_fail(&Address::chosen(path.as_ref()))
    }

    /// Returns the path of the socket at the time of the start.
    #[must_use]
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Ends the service, as dropping it does. Its clients register their segments with the next one.
    pub fn stop(self) {
        drop(self);
    }

    /// Serves until the process ends, or until the service does: because a system call failed on which it
    /// depends, because another service has started at its address while its socket was missing, or because
    /// the process has changed its user.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }

    fn start_or_fail(address: &Address) -> Result<Self> {
        let lookup = address.lookup();
        match Self::claim(&lookup, Instant::now() + START_TIMEOUT)? {
            Some(service) => Ok(service),
            None => Err(lookup.locate()?.error(ServiceError::AlreadyServed)),
        }
    }

    /// Starts the service. Returns `None` if another service runs there or is about to.
    ///
    /// After the deadline, this returns an error, and the thread ends on its own when it gets that far.
    pub(super) fn claim(lookup: &Lookup, deadline: Instant) -> Result<Option<Self>> {
        let (stopping, stop) =
            sys::pipe().map_err(|errno| sys::failed("pipe2", errno, Subject::Nothing))?;
        LATE.lock_now()
            .retain(|late| matches!(late.try_recv(), Err(TryRecvError::Empty)));
        let (report, reported) = mpsc::channel::<Started>();
        let state = Arc::new(AtomicU8::new(PENDING));
        let thread = {
            let (lookup, state) = (lookup.clone(), Arc::clone(&state));
            sys::thread::spawn(c"shmem-service", move || {
                let (stopping, shared) = match sys::thread::own_descriptors(stopping.as_fd()) {
                    Some(own) => (own, Some(stopping)),
                    None => (stopping, None),
                };
                // Access to the directories may block, so it happens here and not in the caller.
                let (server, outcome) = match lookup.locate() {
                    Ok(location) if state.load(Acquire) == ABANDONED => (None, Ok(location)),
                    Ok(location) => {
                        match Server::new(&location, lookup, stopping, shared.is_none()) {
                            Ok(server) => (Some(server), Ok(location)),
                            Err(error) => (None, Err(error)),
                        }
                    }
                    Err(error) => (None, Err(StartError::Failed(error))),
                };
                let is_awaited = state
                    .compare_exchange(PENDING, SERVING, AcqRel, Acquire)
                    .is_ok();
                // If no thread waits for the report, `LATE` has its receiver.
                let _ = report.send((outcome, shared));
                match server {
                    Some(server) if is_awaited => server.serve(),
                    Some(server) => server.end(),
                    None => {}
                }
            })
        };
        let thread = thread.map_err(|errno| {
            let limit_for = sys::limits::for_thread;
            sys::failed_for("pthread_create", errno, Subject::Nothing, limit_for)
        })?;
        let mut service = Self {
            address: PathBuf::new(),
            stop: Some(stop.into()),
            thread: Some(thread),
            owner: Owner::current(),
        };
        let timeout = deadline
            .saturating_duration_since(Instant::now())
            .max(MIN_START_TIMEOUT);
        let mut outcome = reported.recv_timeout(timeout);
        if outcome.is_err() {
            let abandoned = state.compare_exchange(PENDING, ABANDONED, AcqRel, Acquire);
            if abandoned.is_ok() {
                LATE.lock_now().push(reported);
                service.detach();
                return Err(lookup.first().error(ServiceError::StartTimedOut));
            }
            // The thread has either just started to serve or ended.
            outcome = reported.recv().map_err(Into::into);
        }
        // This closes the descriptor that the thread has sent back, in the table that it belongs to.
        match outcome.map(|(outcome, _shared)| outcome) {
            Ok(Ok(location)) => {
                service.address = location.path;
                Ok(Some(service))
            }
            Ok(Err(StartError::Denied(_, LockError::Occupied | LockError::Served))) => Ok(None),
            Ok(Err(StartError::Denied(location, denied))) => Err(location.denied(denied)),
            Ok(Err(StartError::Failed(error))) => Err(error),
            Err(_) => Err(lookup.first().error(ServiceError::ThreadEnded)),
        }
    }

    /// Lets the thread finish on its own.
    fn detach(mut self) {
        drop(self.stop.take());
        drop(self.thread.take());
    }
}

impl Drop for ShMemService {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // This is a forked child, and the thread belongs to its parent.
            if let Some(thread) = self.thread.take() {
                thread.forget_in_child();
            }
            return;
        }
        if let Some(mut stop) = self.stop.take() {
            // This fails if the thread has ended. Closing the pipe would not suffice, because a child may
            // have a copy of it.
            let _ = stop.write_all(&[0]);
        }
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
