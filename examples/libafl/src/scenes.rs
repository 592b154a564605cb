//! Plays the scenes, and compares what they report with what it should be.

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::fuzzer::CRASHES;
use crate::messages::MESSAGES;
use crate::report::lines;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A scene that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(5);

pub fn play_all() -> Result<()> {
    play("Launcher, fork", |stage| {
        fuzz(stage, &["launcher", "fork", &port()?], 2)
    })?;
    play("Launcher, spawn", |stage| {
        fuzz(stage, &["launcher", "spawn", &port()?], 2)
    })?;
    play("SimpleRestartingEventManager, fork", |stage| {
        fuzz(stage, &["simple", "fork"], 1)
    })?;
    play("SimpleRestartingEventManager, spawn", |stage| {
        fuzz(stage, &["simple", "spawn"], 1)
    })?;
    play("InProcessForkExecutor", forked)?;
    play("LLMP between programs", messages)?;
    play("write_to_env, existing_from_env", environment)
}

fn play(name: &str, scene: impl FnOnce(&Stage) -> Result<String>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stage = Stage {
        folder: folder.path(),
    };
    match scene(&stage) {
        Ok(said) => println!("ok      {name}: {said}"),
        Err(error) => {
            println!("FAILED  {name}: {error}");
            for file in ["report", "output"] {
                let text = std::fs::read(folder.path().join(file)).unwrap_or_default();
                println!("---- {file}, the first lines");
                for line in String::from_utf8_lossy(&text).lines().take(30) {
                    println!("{}", line.chars().take(300).collect::<String>());
                }
            }
            return Err("a scene has failed".into());
        }
    }
    Ok(())
}

/// Each of the clients crashes, resumes with what its predecessors had, and goes on.
fn fuzz(stage: &Stage, args: &[&str], clients: usize) -> Result<String> {
    let status = stage.wait(stage.start(args)?)?;
    let lines = lines(stage.folder);
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
            return Err(format!("{name}{starts} processes, and then: {of_this:?}").into());
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
        return Err(format!("it ended with {status}").into());
    }
    Ok(format!(
        "{clients} clients, each of which crashed {CRASHES} times, resumed and went on"
    ))
}

fn forked(stage: &Stage) -> Result<String> {
    let status = stage.wait(stage.start(&["forked"])?)?;
    let lines = lines(stage.folder);
    let [line] = &lines[..] else {
        return Err(format!("it ended with {status}: {lines:?}").into());
    };
    // The seed, and `ab` because of what a child has marked.
    if !line.starts_with(&format!("{CRASHES} crashes, 2 inputs with new coverage")) {
        return Err(line.as_str().into());
    }
    Ok(line.clone())
}

fn messages(stage: &Stage) -> Result<String> {
    let port = port()?;
    let start = |role: &str| stage.start(&["messages", role, &port]);
    let broker = start("broker")?;
    stage.await_line("broker: is there")?;
    let receiver = start("receiver")?;
    stage.await_line("receiver: is there")?;
    for (role, process) in [("sender", start("sender")?), ("receiver", receiver)] {
        let status = stage.wait(process)?;
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
        let status = stage.wait(process)?;
        if !status.success() {
            return Err(format!("the {role} ended with {status}").into());
        }
    }
    let lines = lines(stage.folder);
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
        "{MESSAGES} large messages, sender and receiver aborted, their successors went on"
    ))
}

fn environment(stage: &Stage) -> Result<String> {
    let status = stage.wait(stage.start(&["environment"])?)?;
    let lines = lines(stage.folder);
    let expected = ["STD", "UNIX", "MMAP", "MEMFD"];
    let expected = expected.map(|name| format!("{name}: 3 of 3 children were here"));
    if lines != expected || !status.success() {
        return Err(format!("it ended with {status}: {lines:?}").into());
    }
    Ok(format!("{} providers", expected.len()))
}

/// Where a scene plays.
struct Stage<'a> {
    folder: &'a Path,
}

impl Stage<'_> {
    fn start(&self, args: &[&str]) -> Result<Process> {
        let output = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.join("output"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(args)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Process(child))
    }

    fn wait(&self, mut process: Process) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("it hangs, and said so far: {:?}", lines(self.folder)).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn await_line(&self, line: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !lines(self.folder).iter().any(|said| said == line) {
            if Instant::now() > deadline {
                return Err(format!("nobody says {line:?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Does not outlive a scene that fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free at the moment.
fn port() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port().to_string())
}
