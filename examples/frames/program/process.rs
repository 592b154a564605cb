//! [`Consumer`]: a process that checks frames.

use std::env;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::Result;

/// A consumer, which is killed if it still runs when this is dropped.
pub(super) struct Consumer(pub(super) Child);

/// Returns the command that starts this program again.
pub(super) fn command() -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

impl Consumer {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns how the process has ended, or `None` if it runs.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits until the process has ended. It has checked all frames if it was successful.
    pub(super) fn finish(&mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("consumer {}: {status}", self.pid()).into())
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Both fail if it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
