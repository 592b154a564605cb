//! [`Program`]: other processes of this program. They read commands, one a line, and end with their standard
//! input.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bench::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{ShMemProvider, ShMemService, StdServedShMemProvider};

use crate::bare::{self, Bare};
use crate::life::{Life, Ours};
use crate::{CHILD, calls};

/// A process. Each of its replies is one line: `ok` and a number, or `err` and a reason.
pub(crate) struct Program {
    child: Child,
    /// `None` once the process should end.
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Program {
    /// Starts our service in a process that may have this many descriptors.
    pub(crate) fn service(address: &Path, descriptors: u64) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "serve"])
                .arg(address)
                .arg(descriptors.to_string()),
        )
    }

    /// Starts the bare server.
    pub(crate) fn bare_server(address: &Path) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "bare"])
                .arg(address),
        )
    }

    /// Starts a process with two clients of the service at this address: `ours`, `bare`, or `alone` for
    /// clients that need none.
    pub(crate) fn worker(kind: &str, address: &Path) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "work", kind])
                .arg(address),
        )
    }

    /// Starts a process with `count` clients of our service that do nothing.
    pub(crate) fn idle_clients(address: &Path, count: u32) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "idle", &count.to_string()])
                .env(ShMemService::ENV, address),
        )
    }

    /// Starts the process and waits until it is ready.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take();
        let replies = child.stdout.take().ok_or("it has no standard output")?;
        let mut program = Self {
            child,
            commands,
            replies: BufReader::new(replies),
        };
        program.reply()?;
        Ok(program)
    }

    /// Sends a command without waiting for the reply.
    pub(crate) fn send(&mut self, command: &str) -> Result {
        let commands = self.commands.as_mut().ok_or("the process was ended")?;
        Ok(writeln!(commands, "{command}")?)
    }

    /// Waits for a reply.
    pub(crate) fn reply(&mut self) -> Result<f64> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        match line.trim().split_once(' ') {
            Some(("ok", number)) => Ok(number.parse()?),
            Some((_, reason)) => Err(reason.into()),
            None => Err("a process of the benchmark has ended".into()),
        }
    }

    pub(crate) fn request(&mut self, command: &str) -> Result<f64> {
        self.send(command)?;
        self.reply()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

/// Does what a process of [`Program`] is started for.
pub(crate) fn run(task: &[&str]) -> Result {
    let done = match *task {
        ["serve", address, descriptors] => serve(address.as_ref(), descriptors.parse()?),
        ["bare", address] => bare::serve(address.as_ref(), || reply(Ok(0.0))),
        ["work", "ours", address] => work(Ours::served(address.as_ref())),
        ["work", "bare", address] => Bare::connect(address.as_ref()).and_then(work),
        ["work", "alone", _] => work(Ours::alone()),
        ["idle", count] => idle(count.parse()?),
        ["trace", directory] => return calls::trace(directory.as_ref()),
        _ => Err("there is no such task".into()),
    };
    if let Err(reason) = done {
        reply(Err(reason));
    }
    Ok(())
}

fn serve(address: &Path, descriptors: u64) -> Result {
    raise_limit_to(descriptors);
    let service = ShMemService::start_at(address)?;
    reply(Ok(0.0));
    wait_for_end_of_input()?;
    service.stop();
    Ok(())
}

fn idle(count: u32) -> Result {
    let clients: Result<Vec<_>, _> = (0..count).map(|_| StdServedShMemProvider::new()).collect();
    let clients = clients?;
    reply(Ok(0.0));
    wait_for_end_of_input()?;
    drop(clients);
    Ok(())
}

fn work<L: Life>(mut life: L) -> Result {
    let mut held = Vec::new();
    reply(life.whole().map(|()| 0.0));
    for command in std::io::stdin().lines() {
        reply(execute(&mut life, &mut held, &command?));
    }
    Ok(())
}

fn execute<L: Life>(life: &mut L, held: &mut Vec<L::Hold>, command: &str) -> Result<f64> {
    let (command, number) = command.split_once(' ').ok_or("a command has a number")?;
    let number: u32 = number.parse()?;
    let start = Instant::now();
    match command {
        // Runs this many lives. Returns the seconds per life.
        "batch" => {
            for _ in 0..number {
                life.whole()?;
            }
            Ok(start.elapsed().as_secs_f64() / f64::from(number))
        }
        // Runs lives for this many milliseconds. Returns the lives per second.
        "slice" => {
            let end = start + Duration::from_millis(number.into());
            let mut count = 0;
            while Instant::now() < end {
                life.whole()?;
                count += 1;
            }
            Ok(f64::from(count) / start.elapsed().as_secs_f64())
        }
        // Creates this many segments and keeps them. Returns how many fit.
        "hold" => {
            raise_limit_to(u64::from(number) + 100);
            held.extend((0..number).map_while(|_| life.create().ok()));
            let mut count = u32::try_from(held.len())?;
            if count < number {
                // The service is full. The batches that follow need some room.
                count -= count / 16;
                held.truncate(usize::try_from(count)?);
            }
            Ok(count.into())
        }
        _ => Err("there is no such command".into()),
    }
}

fn reply(reply: Result<f64>) {
    match reply {
        Ok(number) => println!("ok {number}"),
        Err(reason) => println!("err {reason}"),
    }
}

fn wait_for_end_of_input() -> Result {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Raises the limit of descriptors to this number, or as far as this process may.
fn raise_limit_to(descriptors: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= descriptors) {
        return;
    }
    let most = limit.maximum.unwrap_or(descriptors);
    // Only a superuser may raise the maximum, so the second attempt leaves it.
    for (current, maximum) in [(descriptors, most.max(descriptors)), (most, most)] {
        let wanted = Rlimit {
            current: Some(current.min(maximum)),
            maximum: limit.maximum.map(|_| maximum),
        };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return;
        }
    }
}
