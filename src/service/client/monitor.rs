//! [`HostMonitor`]: the thread of a client that notices when the host dies, and finds the next one.

use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{AcqRel, Release};
use core::time::Duration;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};

use super::connection::Connection;
use crate::process::fork_fd::ForkFd;
use crate::sys::thread::Thread;
use crate::sys::{self, socket};

/// What the monitor waits for.
pub(super) struct MonitorTarget {
    /// The end of this connection, if there is one.
    pub(super) connection: Option<Arc<Connection>>,
    /// The time after which it reconnects, if it has to.
    pub(super) retry_after: Option<Duration>,
}

/// A thread that waits for the end of the connection, and then reconnects and registers what this process
/// holds.
pub(super) struct HostMonitor {
    /// The write end of the pipe that wakes the thread.
    wake: OwnedFd,
    /// `true` if the thread was woken and has not reacted yet.
    is_awake: Arc<AtomicBool>,
    /// The read end.
    woken: Arc<ForkFd>,
    thread: Thread,
}

impl HostMonitor {
    /// Starts the thread. It waits for `first`, and calls `reconnect` when it is woken, and when the connection has
    /// ended, which is then passed. The result is what to wait for next.
    pub(super) fn start(
        first: MonitorTarget,
        reconnect: impl Fn(Option<&Arc<Connection>>) -> MonitorTarget + Send + 'static,
    ) -> io::Result<Self> {
        let (woken, wake) = sys::pipe()?;
        let woken = Arc::new(ForkFd::new(woken));
        let is_awake = Arc::new(AtomicBool::new(false));
        let thread = {
            let (woken, is_awake) = (Arc::clone(&woken), Arc::clone(&is_awake));
            let work = move || run(first, reconnect, &woken, &is_awake);
            sys::thread::spawn(c"shmem-monitor", work)?
        };
        Ok(Self {
            wake,
            is_awake,
            woken,
            thread,
        })
    }

    /// Makes the thread call `reconnect`.
    pub(super) fn wake(&self) {
        // One byte suffices, so the pipe never fills up. The write fails if the thread has ended, and then it
        // does not have to be woken.
        if !self.is_awake.swap(true, AcqRel) {
            let _ = io::write(&self.wake, &[LOOK]);
        }
    }

    /// Drops the monitor in a forked child, where the thread does not exist.
    pub(super) fn forget_in_child(self) {
        self.woken.close_in_child();
        self.thread.forget_in_child();
    }

    /// Waits until the thread has ended.
    pub(super) fn stop(self) {
        // Closing the pipe would not suffice, because a child may have a copy of it.
        let _ = io::write(&self.wake, &[END]);
        self.thread.join();
    }
}

/// The messages to the thread: call `reconnect`, or end.
const LOOK: u8 = 0;
const END: u8 = 1;

/// The work of the thread, until its client is dropped.
fn run(
    mut target: MonitorTarget,
    reconnect: impl Fn(Option<&Arc<Connection>>) -> MonitorTarget,
    woken: &ForkFd,
    is_awake: &AtomicBool,
) {
    loop {
        let mut lost: Option<Arc<Connection>> = None;
        let Some(woken) = woken.as_fd() else {
            return;
        };
        let connection = target.connection.as_ref();
        let connection_fd = connection.and_then(|connection| connection.as_fd());
        match socket::wait_hangup(connection_fd, woken, target.retry_after) {
            Ok(happened) => {
                if happened.woken {
                    if has_to_end(woken) {
                        return;
                    }
                    // Reset before the call of `reconnect`, which may miss what happens after this.
                    is_awake.store(false, Release);
                }
                if happened.hung_up {
                    lost = target.connection;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
        target = reconnect(lost.as_ref());
    }
}

/// Reads the messages to the thread.
fn has_to_end(woken: BorrowedFd<'_>) -> bool {
    let mut messages = [LOOK; 64];
    match io::read(woken, &mut messages) {
        Ok(0) | Err(_) => true,
        Ok(count) => messages.iter().take(count).any(|&message| message == END),
    }
}
