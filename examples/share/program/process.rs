//! Worker processes, as the parent sees them: two pipes, and an end that does not go unnoticed.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use super::worker::WORKER;
use super::{Error, Result};

/// This program, to be started as a worker.
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

    /// Waits for as many bytes. If the worker dies that ends the wait as well: its pipe is closed.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.from
            .read_exact(bytes)
            .map_err(|error| self.lost(&error))
    }

    /// Waits for the byte by which it says that it is ready or done.
    pub(super) fn hear(&mut self) -> Result<()> {
        self.read(&mut [0])
    }

    /// Ends it with SIGKILL.
    pub(super) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Why a pipe failed: because the worker has died.
    fn lost(&mut self, error: &io::Error) -> Error {
        let index = self.index;
        match self.child.wait() {
            Ok(status) => format!("worker {index} died before its time: {status}").into(),
            Err(_) => format!("worker {index}: {error}").into(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // There is nothing that could be done if it has ended already.
        let _ = self.kill();
    }
}
