//! [`Closer`]: closes what strangers have sent.

use alloc::vec::Vec;
use std::sync::mpsc::{self, Sender};

use rustix::fd::OwnedFd;

use crate::sys;

/// Closes descriptors on a thread of its own.
///
/// To close a descriptor can take as long as whoever made it likes: a TCP socket with `SO_LINGER`
/// waits for its other side, a file of a file system in user space (FUSE) for the program behind
/// it. Whoever serves others must not wait for that.
#[derive(Debug, Default)]
pub(super) struct Closer {
    /// The thread ends when this is dropped and everything is closed.
    thread: Option<Sender<OwnedFd>>,
}

impl Closer {
    pub(super) fn close(&mut self, descriptors: Vec<OwnedFd>) {
        for fd in descriptors {
            let thread = self.thread.take().or_else(start);
            // Without a thread it is closed here: there is no other place.
            if let Some(thread) = thread {
                if thread.send(fd).is_ok() {
                    self.thread = Some(thread);
                }
            }
        }
    }
}

fn start() -> Option<Sender<OwnedFd>> {
    let (sender, receiver) = mpsc::channel();
    let work = move || receiver.into_iter().for_each(drop::<OwnedFd>);
    sys::thread::spawn(c"shmem-closer", work).ok()?;
    Some(sender)
}
