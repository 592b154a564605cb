//! Waiting with `poll(2)`, which every Unix system has.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use rustix::io;

use super::timespec;

/// The most descriptors that are reported at once.
const MOST: usize = 64;

/// Waits until one of many descriptors is readable.
#[derive(Debug)]
pub(crate) struct Poller {
    watched: Vec<(RawFd, u64, PollFlags)>,
    /// Where reporting starts the next time, so that no descriptor is passed over forever.
    first: usize,
}

impl Poller {
    /// Creates one without descriptors.
    #[expect(clippy::unnecessary_wraps, reason = "the version for epoll can fail")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            watched: Vec::new(),
            first: 0,
        })
    }

    /// Adds a descriptor, which is reported as `key`.
    #[expect(clippy::unnecessary_wraps, reason = "the version for epoll can fail")]
    pub(crate) fn add(&mut self, fd: impl AsFd, key: u64) -> io::Result<()> {
        self.watched
            .push((fd.as_fd().as_raw_fd(), key, PollFlags::IN));
        Ok(())
    }

    /// Sets whether a descriptor is reported when it is readable, or only when the peer has hung
    /// up.
    #[expect(clippy::unnecessary_wraps, reason = "the version for epoll can fail")]
    pub(crate) fn read(&mut self, fd: impl AsFd, key: u64, read: bool) -> io::Result<()> {
        let number = fd.as_fd().as_raw_fd();
        for (watched, its_key, flags) in &mut self.watched {
            if (*watched, *its_key) == (number, key) {
                // Apple's systems report a hang-up only if it was requested.
                *flags = if read { PollFlags::IN } else { PollFlags::HUP };
            }
        }
        Ok(())
    }

    /// Removes a descriptor. Must be called before the descriptor is closed.
    pub(crate) fn remove(&mut self, fd: impl AsFd) {
        let number = fd.as_fd().as_raw_fd();
        self.watched.retain(|&(watched, ..)| watched != number);
    }

    /// Waits, and appends the keys of descriptors that are readable or whose peer has hung up to
    /// `ready`, at most 64.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut impl Extend<u64>,
    ) -> io::Result<()> {
        let borrowed = |&(number, _, flags): &(RawFd, u64, PollFlags)| {
            // SAFETY: the owner of a watched descriptor calls `remove` before closing it.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            PollFd::from_borrowed_fd(fd, flags)
        };
        let mut fds: Vec<_> = self.watched.iter().map(borrowed).collect();
        poll(&mut fds, timespec(timeout).as_ref())?;
        let keys = fds.iter().zip(&self.watched);
        let keys = keys.filter(|(fd, _)| !fd.revents().is_empty());
        let mut keys: Vec<u64> = keys.map(|(_, &(_, key, _))| key).collect();
        if keys.len() > MOST {
            self.first = (self.first + MOST) % keys.len();
            keys.rotate_left(self.first);
            keys.truncate(MOST);
        }
        ready.extend(keys);
        Ok(())
    }
}
