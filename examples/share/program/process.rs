//! [`Worker`]: a worker process, with two pipes to its parent.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use super::worker::WORKER;
use super::{Error, Result};

/// Returns a command that starts this program with pipes.
pub(super) fn command() -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// A worker process. It ends when this is dropped, or when this process ends.
pub(super) struct Worker {
    pub(super) index: usize,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Worker {
    pub(super) fn start(command: &mut Command, index: usize) -> Result<Self> {
        let mut child = command
            .env(WORKER, index.to_string())
            .spawn()
            .map_err(|error| format!("cannot start worker {index}: {error}"))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => Ok(Self {
                index,
                child,
                to,
                from,
            }),
            _ => Err("a worker has no pipes".into()),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|error| self.lost(&error))
    }

    /// Reads exactly these bytes. Fails if the worker dies, because that closes its pipe.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from
            .read_exact(bytes)
            .map_err(|error| self.lost(&error))
    }

    /// Waits for the byte that tells that the worker is ready or done.
    pub(super) fn wait_for_signal(&mut self) -> Result<()> {
        self.read(&mut [0])
    }

    /// Kills the process with SIGKILL.
    pub(super) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Returns the reason why a pipe has failed: the worker has died.
    fn lost(&mut self, error: &io::Error) -> Error {
        let index = self.index;
        match self.child.wait() {
            Ok(status) => format!("worker {index} has ended: {status}").into(),
            Err(_) => format!("worker {index}: {error}").into(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.kill();
    }
}
