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
use crate::error::{Error, Result, Subject};
use crate::fork_lock::ForkLock;
use crate::process::Owner;
use crate::sys;
use crate::sys::site::Denied;
use crate::sys::thread::Thread;

/// The variable with the address, see [`ShMemService::ENV`].
pub(super) const ENV: &str = "SHMEM_SERVICE";

/// How long starting a service may take.
const START: Duration = Duration::from_secs(3);

/// How long it may take in any case.
const LEAST: Duration = Duration::from_millis(250);

/// What has come of the start of a service: somebody waits for it, it serves, or it took too long.
const WAITED_FOR: u8 = 0;
const SERVES: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What a thread says about the start: whether it serves, and the descriptor of the program's table
/// that it does not need any more.
type Started = (Result<Location, Failure>, Option<OwnedFd>);

/// Why a service does not start.
enum Failure {
    /// There is no place for its socket.
    Nowhere(Error),
    /// It was refused this place.
    Denied(Location, Denied),
}

/// Starts that took too long. What they send back is closed when it comes, in the table that it
/// belongs to.
static LATE: ForkLock<Vec<Receiver<Started>>> = ForkLock::new(Vec::new());

/// Keeps the descriptors of segments for as long as somebody holds them, and hands them out to
/// processes of the same user.
///
/// There is no need to start one: the first [`ServedShMemProvider`](crate::ServedShMemProvider)
/// that finds none does so, and when it ends, another process takes over. Start one to choose its
/// address, or to have it in a program of its own.
///
/// # One request
///
/// ```text
///  a process that makes                 the service                  a process that opens
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
/// Frames have 40 bytes, whatever they say. A release has no answer. When a process dies, the kernel
/// hangs up its connection, and with that it has released everything.
///
/// # Lifetime
///
/// It serves until it is dropped or its process ends. What its clients hold goes on living, and they
/// hand it to the next service, whose ids are the same.
///
/// # Security
///
/// Whom does it trust?
///
/// * *Other users*: in nothing. The socket is in a folder that they cannot enter; credentials are
///   compared on both sides (`SO_PEERCRED`) before the first byte is believed; an address that
///   another user has taken first is an error. Ids are random, but nothing depends on that.
/// * *Processes of the same user*: that they may read and write every segment, which they could by
///   debugging each other. Not that they keep to the rules: a client that lies, is slow, silent or
///   stopped, or sends descriptors of whatever kind, loses its own connection, and the others notice
///   nothing. A descriptor is accepted only with a request to keep it, one at a time; what turns out not
///   to be memory is closed on a thread of its own, one for each process, because closing can take as
///   long as whoever sent it likes, and a process of which eight wait to be closed is not listened to.
///   Nothing that a client says makes the service map memory, follow a path, allocate by a number, or
///   stop. See the [limits](Self::start_at).
/// * *The service*: as little. Who opens a segment checks owner, size and seals of what it gets, and
///   waits five seconds at most for it. A false service could hand out the wrong segment, or none.
///
/// # Platform notes
///
/// On Linux its thread has a table of descriptors of its own, so that a forked child inherits none
/// of them. Elsewhere (or before Linux 5.9) a child that is forked without `exec` keeps the sockets
/// of its parent open; clients then notice the death of the service by its silence.
///
/// To have a table of its own, the thread closes copies of the program's descriptors, of which file systems
/// are told. So it goes without if the program has a message queue open, whose `mq_notify` that would
/// end, or a file of a file system in user space or of another machine, which could let it wait.
///
/// Since Linux 6.16 the kernel keeps clients from sending descriptors before they are accepted
/// (`SO_PASSRIGHTS`). Before that, many processes together that send what does not get closed, and leave,
/// can take up descriptors of the service until it is closed.
///
/// # Examples
///
/// A program that does nothing but serve:
///
/// ```no_run
/// use shmem_providers::ShMemService;
///
/// ShMemService::start()?.wait();
/// # Ok::<(), shmem_providers::Error>(())
/// ```
///
/// Two campaigns that know nothing of each other:
///
/// ```
/// use shmem_providers::{
///     MemfdShMemProvider, ServedShMemProvider, ShMem, ShMemProvider, ShMemService,
/// };
///
/// # let folder = tempfile::tempdir()?;
/// # let (one, other) = (folder.path().join("one"), folder.path().join("other"));
/// let services = [ShMemService::start_at(&one)?, ShMemService::start_at(&other)?];
/// let mut ours = ServedShMemProvider::<MemfdShMemProvider>::at(&one);
/// let mut theirs = ServedShMemProvider::<MemfdShMemProvider>::at(&other);
/// let segment = ours.new_shmem(100)?;
/// assert_eq!(ours.shmem_from_id(segment.id())?.len(), 100);
/// assert!(theirs.shmem_from_id(segment.id()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ShMemService {
    address: PathBuf,
    /// The end to write to, of a pipe that the thread looks at.
    stop: Option<File>,
    thread: Option<Thread>,
    owner: Owner,
}

impl ShMemService {
    /// The variable of the environment that tells a program the address, if it shall not be the
    /// user's own: `command.env(ShMemService::ENV, service.address())`. A relative path is made absolute
    /// when the variable is read. A program that runs with more rights than the user who started it
    /// (`AT_SECURE` in `getauxval(3)`) ignores it, and the other variables as well.
    pub const ENV: &'static str = ENV;

    /// Starts the service at the address in `SHMEM_SERVICE`, or else at the one where all programs
    /// of this user meet: in the first of these directories that can be used.
    ///
    /// 1. `shmem_providers` in `$XDG_RUNTIME_DIR`, if only this user can enter that,
    /// 2. `shmem_providers` in `/run/user/UID`, likewise,
    /// 3. `shmem_providers-UID` in `$TMPDIR` or `/tmp`,
    /// 4. `.shmem_providers` in `$HOME`, if this user owns `$HOME`: for when another user has created the
    ///    third first, or the file system is read-only.
    ///
    /// Relative paths in these variables are ignored. When the first usable directory changes while the
    /// service runs, it follows within a second, and new programs find it there.
    ///
    /// A child that was forked and has executed no other program goes by the variables that its parent
    /// found.
    ///
    /// # Errors
    ///
    /// As [`start_at`](Self::start_at), and [`Error::Service`] if none of the directories can be used.
    pub fn start() -> Result<Self, crate::Error> {
        let service = Self::start_or_fail(&Address::default())?;
        Ok(service)
    }

    /// Starts the service at this address: the path of a socket, of 103 bytes at most. A relative path is
    /// made absolute now.
    ///
    /// Beside it there will be a file with `.lock` behind its name. Both are removed when the service is
    /// stopped. If its process is killed, or exits without dropping it (`exit` drops no statics), they are
    /// left behind until the last of its clients or the next service at this address removes them.
    ///
    /// If socket, lock or their directory are removed while it serves, it creates them again within a second.
    /// If another service has started there by then, this one ends, and its clients hand what they hold to
    /// the other one.
    ///
    /// Other users must not be able to rename any directory of the path: each has to belong to this user or
    /// to root, and a parent that others may write to needs the sticky bit, as `/tmp` has it. The directory of
    /// the socket itself should be writable for this user only.
    ///
    /// For half a second it waits for what clients of a service before it may hand in: to open an id
    /// that nobody knows takes that long then, before it is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Service`] if somebody else serves there, if what is there belongs to another user or is no
    /// socket, or if the path is no safe place for one; [`Error::Os`] if the system has run out of
    /// a resource. After an error nothing is left there.
    ///
    /// # Limits
    ///
    /// They follow `RLIMIT_NOFILE` of this process: an eighth of it, at most 280, is kept free, and
    /// the rest is for clients and for segments, one half each. No process has more clients than are left
    /// for all others, and no process has registered more than four times as many segments, or bytes, as
    /// are left, so one process leaves a fifth of the segments. The last eighth of each is for processes
    /// that have less than a twelfth of that eighth. Processes of other pid namespaces count as one. When
    /// there are too many clients, the one is let go that holds nothing and has been silent longest; it
    /// connects again when it has something to say.
    ///
    /// It starts within three seconds, or not at all: an error.
    pub fn start_at(path: impl AsRef<Path>) -> Result<Self, crate::Error> {
        let service = Self::start_or_fail(&Address::chosen(path.as_ref()))?;
        Ok(service)
    }

    /// The path of its socket, when it was started.
    #[must_use]
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Ends the service, as dropping it does. What its clients hold, they hand to the next one.
    pub fn stop(self) {
        drop(self);
    }

    /// Serves until the process ends, or until the service does: because the system has failed it, another
    /// service has started at its address while its socket was removed, or the process has changed its user.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }

    fn start_or_fail(address: &Address) -> Result<Self> {
        let lookup = address.lookup();
        match Self::claim(&lookup, Instant::now() + START)? {
            Some(service) => Ok(service),
            None => Err(lookup.locate()?.denied(Denied::Occupied)),
        }
    }

    /// Starts the service, unless somebody else serves there or is about to.
    ///
    /// If that takes longer than until this time, the thread ends by itself when it gets that far.
    pub(super) fn claim(lookup: &Lookup, deadline: Instant) -> Result<Option<Self>> {
        let (stopping, stop) =
            sys::pipe().map_err(|errno| sys::failed("pipe2", errno, Subject::Nothing))?;
        LATE.lock_now()
            .retain(|late| matches!(late.try_recv(), Err(TryRecvError::Empty)));
        let (report, reported) = mpsc::channel::<Started>();
        let start = Arc::new(AtomicU8::new(WAITED_FOR));
        let told = Arc::clone(&start);
        let theirs = lookup.clone();
        let thread = sys::thread::spawn(c"shmem-service", move || {
            let (stopping, shared) = match sys::thread::own_descriptors(stopping.as_fd()) {
                Some(own) => (own, Some(stopping)),
                None => (stopping, None),
            };
            // Its directories may not answer, so they are looked at here, and not by who waits.
            let (server, outcome) = match theirs.locate() {
                // Nobody waits any more.
                Ok(location) if told.load(Acquire) == GIVEN_UP => (None, Ok(location)),
                Ok(location) => match Server::new(&location.path, theirs, stopping) {
                    Ok(server) => (Some(server), Ok(location)),
                    Err(denied) => (None, Err(Failure::Denied(location, denied))),
                },
                Err(error) => (None, Err(Failure::Nowhere(error))),
            };
            let is_waited_for = told
                .compare_exchange(WAITED_FOR, SERVES, AcqRel, Acquire)
                .is_ok();
            // It is waited for, or kept until it comes.
            let _ = report.send((outcome, shared));
            match server {
                Some(server) if is_waited_for => server.serve(),
                Some(server) => server.end(),
                None => {}
            }
        });
        let thread =
            thread.map_err(|errno| sys::failed("pthread_create", errno, Subject::Nothing))?;
        let mut service = Self {
            address: PathBuf::new(),
            stop: Some(stop.into()),
            thread: Some(thread),
            owner: Owner::current(),
        };
        let patience = deadline
            .saturating_duration_since(Instant::now())
            .max(LEAST);
        let mut outcome = reported.recv_timeout(patience);
        if outcome.is_err() {
            let late = start.compare_exchange(WAITED_FOR, GIVEN_UP, AcqRel, Acquire);
            if late.is_ok() {
                LATE.lock_now().push(reported);
                service.give_up();
                return Err(lookup.first().problem(
                    "does not start in time: something in its directory, or a file that this \
                     process has open, does not answer",
                ));
            }
            // Either it is done just now, or the thread has ended.
            outcome = reported.recv().map_err(Into::into);
        }
        // What the thread has sent back is closed here, in the table that it belongs to.
        match outcome.map(|(outcome, _theirs)| outcome) {
            Ok(Ok(location)) => {
                service.address = location.path;
                Ok(Some(service))
            }
            Ok(Err(Failure::Denied(_, Denied::Occupied | Denied::Served))) => Ok(None),
            Ok(Err(Failure::Denied(location, denied))) => Err(location.denied(denied)),
            Ok(Err(Failure::Nowhere(error))) => Err(error),
            Err(_) => Err(lookup
                .first()
                .problem("the thread of the service has ended")),
        }
    }
}

impl ShMemService {
    /// Leaves the thread to itself.
    fn give_up(mut self) {
        drop(self.stop.take());
        drop(self.thread.take());
    }
}

impl Drop for ShMemService {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // A forked child: the thread is its parent's.
            if let Some(thread) = self.thread.take() {
                thread.leave_to_parent();
            }
            return;
        }
        if let Some(mut stop) = self.stop.take() {
            // It fails if the thread has ended. Closing alone would not do: a child may have a copy.
            let _ = stop.write_all(&[0]);
        }
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
