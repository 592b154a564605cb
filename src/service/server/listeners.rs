//! [`Listeners`]: the sockets that clients connect to, and the files that lead to them.

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

use super::LISTENER;
use crate::service::address::Lookup;
use crate::sys::path_lock::{self, LockDir, LockError, ServiceLock};
use crate::sys::poller::Poller;
use crate::sys::socket;

/// How many earlier addresses remain usable.
const MAX_OLDER: usize = 4;

/// The listening sockets of a service: one at its current address, and those at earlier addresses.
pub(super) struct Listeners {
    /// The right to serve at the current address. `None` after [`remove_files`](Self::remove_files), and
    /// while the socket there is not the one of this service.
    lock: Option<ServiceLock>,
    current: OwnedFd,
    /// Earlier addresses that still lead here: for programs to which that address was passed, and for those
    /// outside of a root directory that this process has changed to.
    older: Vec<(ServiceLock, OwnedFd)>,
    /// The user whose clients are served.
    user: Uid,
    lookup: Lookup,
}

impl Listeners {
    /// Listens at a claimed address.
    pub(super) fn new(mut lock: ServiceLock, lookup: Lookup) -> Result<Self, LockError> {
        let current = lock.listen()?;
        Ok(Self {
            lock: Some(lock),
            current,
            older: Vec::new(),
            user: geteuid(),
            lookup,
        })
    }

    /// Returns the socket at the current address.
    pub(super) fn current(&self) -> &OwnedFd {
        &self.current
    }

    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        let older = self.older.iter().map(|(_, listener)| listener);
        core::iter::once(&self.current).chain(older)
    }

    /// Returns `true` if clients find this service at the current address.
    pub(super) fn are_found(&self) -> bool {
        let location = self.lookup.locate();
        let lock = self.lock.as_ref();
        location.is_ok_and(|location| lock.is_some_and(|lock| lock.is_found_at(&location.path)))
    }

    /// Accepts one connection. `EAGAIN` if there is none.
    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        let mut accepted = Err(Errno::AGAIN);
        for listener in self.all() {
            accepted = socket::accept(listener);
            if !matches!(accepted, Err(Errno::AGAIN)) {
                break;
            }
        }
        accepted
    }

    /// Polls all of them, including those that are polled already. Returns `false` if that fails for any.
    pub(super) fn watch(&self, poller: &mut Poller) -> bool {
        let mut are_watched = true;
        for listener in self.all() {
            poller.remove(listener);
            are_watched &= poller.add(listener, LISTENER).is_ok();
        }
        are_watched
    }

    /// Stops polling all of them.
    pub(super) fn unwatch(&self, poller: &mut Poller) {
        for listener in self.all() {
            poller.remove(listener);
        }
    }

    /// Removes all files, so that no client finds the service any more.
    pub(super) fn remove_files(&mut self) {
        self.lock = None;
        self.older.clear();
    }

    /// Checks that clients find this service, and creates its files again if they do not: the directory of a
    /// session may have been emptied, old files cleaned up, or a directory with a higher priority become
    /// usable.
    ///
    /// Returns `false` if the service has to end: another service has taken its place, or this process acts
    /// for another user now and would reject its own clients. They find, or become, another service.
    pub(super) fn check(&mut self, poller: &mut Poller) -> bool {
        if geteuid() != self.user {
            return false;
        }
        let Ok((location, is_directory_created)) = self.lookup.restore() else {
            return true;
        };
        let path = &location.path;
        for (mut lock, listener) in core::mem::take(&mut self.older) {
            if lock.is_intact() {
                lock.keep_lock();
                self.older.push((lock, listener));
            } else {
                poller.remove(&listener);
            }
        }
        if let Some(lock) = &mut self.lock {
            if lock.is_found_at(path) {
                lock.keep_lock();
                return true;
            }
        }
        let mut older = self.older.iter();
        if let Some(index) = older.position(|(lock, _)| lock.is_found_at(path)) {
            let (lock, listener) = self.older.swap_remove(index);
            let previous = self.lock.take();
            self.move_to(lock, listener, previous, poller);
            return true;
        }
        // If the previous files are damaged, the rest of them is removed before new ones are created.
        let previous = self.lock.take().filter(ServiceLock::is_intact);
        let claimed = LockDir::open(path)
            .and_then(ServiceLock::claim)
            .and_then(|mut lock| {
                if is_directory_created {
                    lock.own_directory();
                }
                let listener = lock.listen()?;
                Ok((lock, listener))
            });
        match claimed {
            Ok((lock, listener)) => {
                if poller.add(&listener, LISTENER).is_ok() {
                    self.move_to(lock, listener, previous, poller);
                    return true;
                }
            }
            // The clients of this service register their segments there.
            Err(LockError::Occupied | LockError::Served) if path_lock::is_served(path) => {
                self.lock = previous;
                return false;
            }
            // The next check tries again.
            Err(_) => {}
        }
        self.lock = previous;
        true
    }

    /// Makes `lock` the current address. Its listener is polled already.
    fn move_to(
        &mut self,
        lock: ServiceLock,
        listener: OwnedFd,
        previous: Option<ServiceLock>,
        poller: &mut Poller,
    ) {
        let previous_listener = core::mem::replace(&mut self.current, listener);
        self.lock = Some(lock);
        match previous {
            Some(previous) if previous.is_intact() && self.older.len() < MAX_OLDER => {
                self.older.push((previous, previous_listener));
            }
            _ => poller.remove(&previous_listener),
        }
    }
}
