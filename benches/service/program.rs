//! [`Program`]: further processes of this program, which do what they are told, line by line, and
//! end when their standard input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{ShMemProvider, ShMemService, StdServedShMemProvider};

use crate::bare::{self, Bare};
use crate::life::{Life, Ours};
use crate::{CHILD, Result, calls};

/// A process. Every answer of it is one line: `ok` and a number, or `err` and a reason.
pub(crate) struct Program {
    child: Child,
    /// `None` once it is to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Our service as a program of its own, which may have this many descriptors.
    pub(crate) fn service(address: &Path, descriptors: u64) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "serve"])
                .arg(address)
                .arg(descriptors.to_string()),
        )
    }

    /// The bare server.
    pub(crate) fn bare_server(address: &Path) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "bare"])
                .arg(address),
        )
    }

    /// A process with two clients of the service at this address: `ours` or `bare`, or `alone` for
    /// none.
    pub(crate) fn worker(kind: &str, address: &Path) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "work", kind])
                .arg(address),
        )
    }

    /// A process with so many clients of our service, which do nothing.
    pub(crate) fn idle_clients(address: &Path, count: u32) -> Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .args([CHILD, "idle", &count.to_string()])
                .env(ShMemService::ENV, address),
        )
    }

    /// Starts it and waits until it is ready.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().ok_or("it has no standard output")?;
        let mut program = Self {
            child,
            orders,
            answers: BufReader::new(answers),
        };
        program.answer()?;
        Ok(program)
    }

    /// Gives an order; the answer has to be fetched.
    pub(crate) fn tell(&mut self, order: &str) -> Result {
        let orders = self.orders.as_mut().ok_or("the process was ended")?;
        Ok(writeln!(orders, "{order}")?)
    }

    pub(crate) fn answer(&mut self) -> Result<f64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim().split_once(' ') {
            Some(("ok", number)) => Ok(number.parse()?),
            Some((_, reason)) => Err(reason.into()),
            None => Err("a process of the benchmark has ended".into()),
        }
    }

    pub(crate) fn ask(&mut self, order: &str) -> Result<f64> {
        self.tell(order)?;
        self.answer()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// What a process started by the above does.
pub(crate) fn run(task: &[&str]) -> Result {
    let done = match *task {
        ["serve", address, descriptors] => serve(address.as_ref(), descriptors.parse()?),
        ["bare", address] => bare::serve(address.as_ref(), || say(Ok(0.0))),
        ["work", "ours", address] => work(Ours::served(address.as_ref())),
        ["work", "bare", address] => Bare::connect(address.as_ref()).and_then(work),
        ["work", "alone", _] => work(Ours::alone()),
        ["idle", count] => idle(count.parse()?),
        ["trace", folder] => return calls::trace(folder.as_ref()),
        _ => Err("there is no such task".into()),
    };
    if let Err(reason) = done {
        say(Err(reason));
    }
    Ok(())
}

fn serve(address: &Path, descriptors: u64) -> Result {
    allow(descriptors);
    let service = ShMemService::start_at(address)?;
    say(Ok(0.0));
    until_told_to_end()?;
    service.stop();
    Ok(())
}

fn idle(count: u32) -> Result {
    let clients: Result<Vec<_>, _> = (0..count).map(|_| StdServedShMemProvider::new()).collect();
    let clients = clients?;
    say(Ok(0.0));
    until_told_to_end()?;
    drop(clients);
    Ok(())
}

fn work<L: Life>(mut life: L) -> Result {
    let mut held = Vec::new();
    say(life.whole().map(|()| 0.0));
    for order in std::io::stdin().lines() {
        say(obey(&mut life, &mut held, &order?));
    }
    Ok(())
}

fn obey<L: Life>(life: &mut L, held: &mut Vec<L::Hold>, order: &str) -> Result<f64> {
    let (order, number) = order.split_once(' ').ok_or("what?")?;
    let number: u32 = number.parse()?;
    let start = Instant::now();
    match order {
        // So many times: how long one takes.
        "batch" => {
            for _ in 0..number {
                life.whole()?;
            }
            Ok(start.elapsed().as_secs_f64() / f64::from(number))
        }
        // So many milliseconds: how many in a second.
        "slice" => {
            let end = start + Duration::from_millis(number.into());
            let mut count = 0;
            while Instant::now() < end {
                life.whole()?;
                count += 1;
            }
            Ok(f64::from(count) / start.elapsed().as_secs_f64())
        }
        // Segments that live from now on: how many, if that may be less.
        "hold" => {
            allow(u64::from(number) + 100);
            let made = |_| life.create().ok();
            held.extend((0..number).map_while(made));
            let mut count = u32::try_from(held.len())?;
            if count < number {
                // It is full. Room has to be left for what comes next.
                count -= count / 16;
                held.truncate(usize::try_from(count)?);
            }
            Ok(count.into())
        }
        _ => Err("there is no such order".into()),
    }
}

fn say(answer: Result<f64>) {
    match answer {
        Ok(number) => println!("ok {number}"),
        Err(reason) => println!("err {reason}"),
    }
}

fn until_told_to_end() -> Result {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Raises the limit of descriptors to this, or as far as that is allowed.
fn allow(descriptors: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= descriptors) {
        return;
    }
    let most = limit.maximum.unwrap_or(descriptors);
    // Only a superuser may raise the second one.
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
