//! Runs the scenarios and checks their reports.

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::fuzzer::CRASHES;
use crate::messages::MESSAGES;
use crate::report::lines;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The time after which a scenario has failed.
const TIMEOUT: Duration = Duration::from_mins(5);

pub fn run_all() -> Result<()> {
    run("Launcher, fork", |scenario| {
        fuzz(scenario, &["launcher", "fork", &port()?], 2)
    })?;
    run("Launcher, spawn", |scenario| {
        fuzz(scenario, &["launcher", "spawn", &port()?], 2)
    })?;
    run("SimpleRestartingEventManager, fork", |scenario| {
        fuzz(scenario, &["simple", "fork"], 1)
    })?;
    run("SimpleRestartingEventManager, spawn", |scenario| {
        fuzz(scenario, &["simple", "spawn"], 1)
    })?;
    run("InProcessForkExecutor", forked)?;
    run("LLMP between programs", messages)?;
    run("write_to_env, existing_from_env", environment)
}

fn run(name: &str, check: impl FnOnce(&Scenario) -> Result<String>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let scenario = Scenario {
        directory: directory.path(),
    };
    match check(&scenario) {
        Ok(summary) => println!("ok      {name}: {summary}"),
        Err(error) => {
            println!("FAILED  {name}: {error}");
            for file in ["report", "output"] {
                let text = std::fs::read(directory.path().join(file)).unwrap_or_default();
                println!("---- the first lines of {file}");
                for line in String::from_utf8_lossy(&text).lines().take(30) {
                    println!("{}", line.chars().take(300).collect::<String>());
                }
            }
            return Err("a scenario has failed".into());
        }
    }
    Ok(())
}

/// Checks that each client crashes, resumes with the state of its predecessor, and continues.
fn fuzz(scenario: &Scenario, args: &[&str], clients: usize) -> Result<String> {
    let status = scenario.wait(scenario.start(args)?)?;
    let lines = lines(scenario.directory);
    let clients = clients.min(std::thread::available_parallelism()?.get());
    for client in 1..=clients {
        let name = match args {
            ["launcher", ..] => format!("client {client}: "),
            _ => String::from("client: "),
        };
        let of_this: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix(&name))
            .collect();
        let starts = of_this
            .iter()
            .filter(|line| line.contains(" starts with "))
            .count();
        if starts != CRASHES + 1 || of_this.last() != Some(&"done") {
            return Err(format!("{name}{starts} processes: {of_this:?}").into());
        }
        for (crashes, line) in of_this.iter().enumerate().take(starts) {
            let fresh = line.ends_with(" after 0 executions");
            if !line.contains(&format!(" starts with {crashes} crashes")) || fresh != (crashes == 0)
            {
                return Err(format!("{name}the state was lost: {line}").into());
            }
        }
    }
    if !status.success() {
        return Err(format!("ended with {status}").into());
    }
    Ok(format!(
        "clients: {clients}, each of which crashed {CRASHES} times, resumed and continued"
    ))
}

fn forked(scenario: &Scenario) -> Result<String> {
    let status = scenario.wait(scenario.start(&["forked"])?)?;
    let lines = lines(scenario.directory);
    let [line] = &lines[..] else {
        return Err(format!("ended with {status}: {lines:?}").into());
    };
    // Two inputs: the seed, and `ab`, whose coverage was marked by a child.
    if !line.starts_with(&format!("{CRASHES} crashes, 2 inputs with new coverage")) {
        return Err(line.as_str().into());
    }
    Ok(line.clone())
}

fn messages(scenario: &Scenario) -> Result<String> {
    let port = port()?;
    let start = |role: &str| scenario.start(&["messages", role, &port]);
    let broker = start("broker")?;
    scenario.wait_for_line("broker: listening")?;
    let receiver = start("receiver")?;
    scenario.wait_for_line("receiver: connected")?;
    for (role, process) in [("sender", start("sender")?), ("receiver", receiver)] {
        let status = scenario.wait(process)?;
        if status.code().is_some() {
            return Err(format!("the {role} did not abort: {status}").into());
        }
    }
    let (sender, receiver) = (start("sender-again")?, start("receiver-again")?);
    for (role, process) in [
        ("sender", sender),
        ("receiver", receiver),
        ("broker", broker),
    ] {
        let status = scenario.wait(process)?;
        if !status.success() {
            return Err(format!("the {role} ended with {status}").into());
        }
    }
    let lines = lines(scenario.directory);
    let dead = lines
        .iter()
        .filter(|line| line.ends_with("which is dead"))
        .count();
    let mut arrived = lines
        .iter()
        .filter_map(|line| line.strip_prefix("receiver: message "));
    if dead != 2
        || !arrived
            .by_ref()
            .eq((0..MESSAGES).map(|number| number.to_string()))
    {
        return Err(format!("{lines:?}").into());
    }
    Ok(format!(
        "{MESSAGES} large messages arrived, although sender and receiver aborted"
    ))
}

fn environment(scenario: &Scenario) -> Result<String> {
    let status = scenario.wait(scenario.start(&["environment"])?)?;
    let lines = lines(scenario.directory);
    let expected = ["STD", "UNIX", "MMAP", "MEMFD"];
    let expected = expected.map(|name| format!("{name}: 3 of 3 children attached"));
    if lines != expected || !status.success() {
        return Err(format!("ended with {status}: {lines:?}").into());
    }
    Ok(format!("{} providers", expected.len()))
}

/// The directory of one scenario, in which its processes run.
struct Scenario<'a> {
    directory: &'a Path,
}

impl Scenario<'_> {
    fn start(&self, args: &[&str]) -> Result<Process> {
        let output = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.directory.join("output"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(args)
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Process(child))
    }

    fn wait(&self, mut process: Process) -> Result<ExitStatus> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = process.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let lines = lines(self.directory);
                return Err(format!("timed out, after these lines: {lines:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_line(&self, line: &str) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !lines(self.directory)
            .iter()
            .any(|reported| reported == line)
        {
            if Instant::now() > deadline {
                return Err(format!("no process has reported {line:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// A process that is killed when this is dropped, so that none outlives a scenario that fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a port that is free at the moment.
fn port() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port().to_string())
}
