//! [`Watch`]: waits until one of many descriptors can be read.

#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
pub(crate) use self::by_epoll::Watch;
#[cfg(any(
    not(any(target_os = "android", target_os = "linux")),
    shmem_apple_rules
))]
pub(crate) use self::by_poll::Watch;

use core::time::Duration;

use rustix::event::Timespec;

/// The time as the system takes it.
pub(super) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}

/// What waiting costs does not depend on how many descriptors are silent.
#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
mod by_epoll {
    use core::mem::MaybeUninit;
    use core::time::Duration;

    use rustix::event::epoll;
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::io;

    use crate::sys::above_stdio_quietly;

    #[derive(Debug)]
    pub(crate) struct Watch {
        epoll: OwnedFd,
    }

    impl Watch {
        pub(crate) fn new() -> io::Result<Self> {
            let epoll = above_stdio_quietly(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
            Ok(Self { epoll })
        }

        /// Watches the descriptor from now on, under this key.
        pub(crate) fn add(&mut self, fd: impl AsFd, key: u64) -> io::Result<()> {
            let key = epoll::EventData::new_u64(key);
            epoll::add(&self.epoll, fd, key, epoll::EventFlags::IN)
        }

        /// From now on, waits for it to be read and to hang up, or only for the latter.
        pub(crate) fn read(&mut self, fd: impl AsFd, key: u64, read: bool) -> io::Result<()> {
            let flags = if read {
                epoll::EventFlags::IN
            } else {
                epoll::EventFlags::empty()
            };
            epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key), flags)
        }

        /// Does not watch it any more. To be called before it is closed.
        pub(crate) fn remove(&mut self, fd: impl AsFd) {
            // It fails only for what is not watched.
            let _ = epoll::delete(&self.epoll, fd);
        }

        /// Waits, and appends the keys of those that can be read or have hung up, up to 64.
        pub(crate) fn wait(
            &mut self,
            timeout: Option<Duration>,
            ready: &mut impl Extend<u64>,
        ) -> io::Result<()> {
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
            let timeout = super::timespec(timeout);
            let (events, _) = epoll::wait(&self.epoll, &mut events, timeout.as_ref())?;
            ready.extend(events.iter().map(|event| event.data.u64()));
            Ok(())
        }
    }
}

/// `poll(2)`: to be had everywhere.
#[cfg(any(
    not(any(target_os = "android", target_os = "linux")),
    shmem_apple_rules
))]
#[allow(unsafe_code)]
mod by_poll {
    use alloc::vec::Vec;
    use core::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
    use rustix::io;

    /// How many are reported at once.
    const MOST: usize = 64;

    #[derive(Debug)]
    pub(crate) struct Watch {
        watched: Vec<(RawFd, u64, PollFlags)>,
        /// Where to begin next time, so that nobody comes too late for ever.
        first: usize,
    }

    impl Watch {
        #[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                watched: Vec::new(),
                first: 0,
            })
        }

        #[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
        pub(crate) fn add(&mut self, fd: impl AsFd, key: u64) -> io::Result<()> {
            self.watched
                .push((fd.as_fd().as_raw_fd(), key, PollFlags::IN));
            Ok(())
        }

        #[expect(clippy::unnecessary_wraps, reason = "as where it can fail")]
        pub(crate) fn read(&mut self, fd: impl AsFd, key: u64, read: bool) -> io::Result<()> {
            let number = fd.as_fd().as_raw_fd();
            for (watched, its_key, flags) in &mut self.watched {
                if (*watched, *its_key) == (number, key) {
                    // Apple's systems report a hang-up only to who asks for it.
                    *flags = if read { PollFlags::IN } else { PollFlags::HUP };
                }
            }
            Ok(())
        }

        pub(crate) fn remove(&mut self, fd: impl AsFd) {
            let number = fd.as_fd().as_raw_fd();
            self.watched.retain(|&(watched, ..)| watched != number);
        }

        pub(crate) fn wait(
            &mut self,
            timeout: Option<Duration>,
            ready: &mut impl Extend<u64>,
        ) -> io::Result<()> {
            let borrowed = |&(number, _, flags): &(RawFd, u64, PollFlags)| {
                // SAFETY: who closes a watched descriptor calls `remove` before.
                let fd = unsafe { BorrowedFd::borrow_raw(number) };
                PollFd::from_borrowed_fd(fd, flags)
            };
            let mut fds: Vec<_> = self.watched.iter().map(borrowed).collect();
            poll(&mut fds, super::timespec(timeout).as_ref())?;
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
}
