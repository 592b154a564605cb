//! Waiting with `epoll(7)`. Its cost does not depend on the number of idle descriptors.

use core::mem::MaybeUninit;
use core::time::Duration;

use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io;

use super::timespec;
use crate::sys::above_stdio_quietly;

/// Waits until one of many descriptors is readable.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Creates one without descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = above_stdio_quietly(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        Ok(Self { epoll })
    }

    /// Adds a descriptor, which is reported as `key`.
    pub(crate) fn add(&mut self, fd: impl AsFd, key: u64) -> io::Result<()> {
        let key = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, fd, key, epoll::EventFlags::IN)
    }

    /// Sets whether a descriptor is reported when it is readable, or only when the peer has hung
    /// up.
    pub(crate) fn read(&mut self, fd: impl AsFd, key: u64, read: bool) -> io::Result<()> {
        let flags = if read {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::empty()
        };
        epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key), flags)
    }

    /// Removes a descriptor. Must be called before the descriptor is closed.
    pub(crate) fn remove(&mut self, fd: impl AsFd) {
        // This fails only if the descriptor was not added.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits, and appends the keys of descriptors that are readable or whose peer has hung up to
    /// `ready`, at most 64.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut impl Extend<u64>,
    ) -> io::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let timeout = timespec(timeout);
        let (events, _) = epoll::wait(&self.epoll, &mut events, timeout.as_ref())?;
        ready.extend(events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}
