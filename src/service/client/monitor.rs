//! A client's second thread: notices when the service dies, and has its client find the next one.

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

/// What there is to be watched: the connection, if there is one, and how long, if it is to be looked for
/// anew then.
pub(super) type Watch = (Option<Arc<Connection>>, Option<Duration>);

/// The thread that notices when the service dies, and hands in what this process holds to the next
/// one.
pub(super) struct Keeper {
    /// Tells it that there is something new.
    wake: OwnedFd,
    /// Whether it was told so, and has not looked since.
    is_awake: Arc<AtomicBool>,
    /// The end that it reads from.
    woken: Arc<ForkFd>,
    thread: Thread,
}

impl Keeper {
    /// `restore` is told which connection has hung up, if one has, and says what to watch next.
    pub(super) fn start(
        restore: impl Fn(Option<&Arc<Connection>>) -> Watch + Send + 'static,
    ) -> io::Result<Self> {
        let (woken, wake) = sys::pipe()?;
        let woken = Arc::new(ForkFd::new(woken));
        let is_awake = Arc::new(AtomicBool::new(false));
        let (theirs, told) = (Arc::clone(&woken), Arc::clone(&is_awake));
        let work = move || keep(restore, &theirs, &told);
        let thread = sys::thread::spawn(c"shmem-keeper", work)?;
        Ok(Self {
            wake,
            is_awake,
            woken,
            thread,
        })
    }

    /// Has it look anew.
    pub(super) fn wake(&self) {
        // Once is enough, and the pipe never fills up. It fails if the keeper has ended, and then nobody
        // has to be woken.
        if !self.is_awake.swap(true, AcqRel) {
            let _ = io::write(&self.wake, &[LOOK]);
        }
    }

    /// In a forked child, where there is no such thread.
    pub(super) fn leave_to_parent(self) {
        self.woken.close_in_child();
        self.thread.leave_to_parent();
    }

    /// Waits until it has ended.
    pub(super) fn end(self) {
        // To close the pipe would not do: a child may have a copy.
        let _ = io::write(&self.wake, &[END]);
        self.thread.join();
    }
}

/// What a keeper is told: to look at its client anew, and to end.
const LOOK: u8 = 0;
const END: u8 = 1;

/// What the keeper does until its client is gone.
fn keep(
    restore: impl Fn(Option<&Arc<Connection>>) -> Watch,
    woken: &ForkFd,
    is_awake: &AtomicBool,
) {
    let mut lost: Option<Arc<Connection>> = None;
    loop {
        let (connection, patience) = restore(lost.take().as_ref());
        let Some(woken) = woken.as_fd() else {
            return;
        };
        let watched = connection
            .as_ref()
            .and_then(|connection| connection.as_fd());
        match socket::hung_up(watched, woken, patience) {
            Ok(happened) => {
                if happened.woken {
                    if has_to_end(woken) {
                        return;
                    }
                    // Before it looks: who tells it from now on may have something new.
                    is_awake.store(false, Release);
                }
                if happened.hung_up {
                    lost = connection;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Reads what the keeper is told.
fn has_to_end(woken: BorrowedFd<'_>) -> bool {
    let mut told = [LOOK; 64];
    match io::read(woken, &mut told) {
        Ok(0) | Err(_) => true,
        Ok(count) => told.iter().take(count).any(|&told| told == END),
    }
}
