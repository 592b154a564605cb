//! Counts system calls, of clients and of services: strace sees them, and marks say what they belong
//! to.

use std::collections::HashMap;
use std::hint::spin_loop;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use crate::bare::Bare;
use crate::life::{Life, Ours};
use crate::program::Program;
use crate::{CHILD, Result};

/// No such file exists: whoever asks for it means to be seen asking.
const MARK: &str = "/mark of the benchmark ";

/// How long after a part to wait for the service to be done. There is no system call in it.
const REST: Duration = Duration::from_millis(15);

const PARTS: [&str; 3] = ["create", "attach", "release"];
const SERVICES: [&str; 2] = ["ours", "bare"];

/// Prints who makes which calls for the parts of a segment's life.
pub(crate) fn report() {
    let calls = match traced() {
        Ok(calls) => calls,
        Err(reason) => return println!("\nSystem calls were not counted: {reason}"),
    };
    println!("\n| system calls of | ours | bare |");
    println!("| --- | --- | --- |");
    for part in PARTS {
        for side in [Side::Client, Side::Service] {
            let [ours, bare] = SERVICES.map(|service| {
                let lists = calls.get(&(label(part, service), side));
                // The shortest is that of a process which has nothing to fetch or to fill.
                let names = lists.and_then(|lists| lists.iter().min_by_key(|names| names.len()));
                names.map_or("?".into(), |names| {
                    format!("{}: {}", names.len(), names.join(", "))
                })
            });
            println!("| {part}, {side:?} | {ours} | {bare} |");
        }
    }
    println!("\nBoth clients release, so the last two rows are two requests; neither has a reply.");
    if cfg!(debug_assertions) {
        println!("This is a debug build: std adds a call of fcntl to each close.");
    }
}

/// Whose calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Service,
}

/// The names of the calls, each time the part was passed.
type Calls = HashMap<(String, Side), Vec<Vec<String>>>;

fn label(part: &str, service: &str) -> String {
    format!("{part}: {service}")
}

/// Runs clients and services under strace. If that cannot be, says why.
fn traced() -> Result<Calls> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .arg(std::env::current_exe()?)
        .args([CHILD, "trace"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "strace not found".into(),
            _ => format!("strace: {error}"),
        })?;
    let calls = parse(&std::fs::read_to_string(log).unwrap_or_default());
    if calls.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.lines().next().unwrap_or("strace says nothing").into());
    }
    Ok(calls)
}

/// What runs under strace: both services, started from here, and clients of them.
pub(crate) fn trace(folder: &Path) -> Result {
    let [ours, bare] = SERVICES.map(|service| folder.join(service));
    let _servers = [Program::service(&ours, 0)?, Program::bare_server(&bare)?];
    let mut ours = Ours::served(&ours);
    let mut bare = Bare::connect(&bare)?;
    for _ in 0..4 {
        lead(SERVICES[0], &mut ours)?;
        lead(SERVICES[1], &mut bare)?;
    }
    Ok(())
}

fn lead<L: Life>(service: &str, life: &mut L) -> Result {
    let [create, attach, release] = PARTS.map(|part| label(part, service));
    let created = between_marks(&create, || life.create())?;
    let attached = between_marks(&attach, || life.attach(&created))?;
    between_marks(&release, || life.release(created, attached))
}

fn between_marks<T>(label: &str, operation: impl FnOnce() -> T) -> T {
    let [before, after] = [label, ""].map(|label| format!("{MARK}{label}"));
    let _ = access(&before, Access::EXISTS);
    let result = operation();
    let end = Instant::now() + REST;
    while Instant::now() < end {
        spin_loop();
    }
    let _ = access(&after, Access::EXISTS);
    result
}

/// Every line is the number of a thread and what it calls. Who passes a mark is the client.
fn parse(log: &str) -> Calls {
    let mut all = Calls::new();
    let mut current = None;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let label = call.split_once(MARK);
        if let Some(label) = label.and_then(|(_, rest)| rest.split('"').next()) {
            current = (!label.is_empty()).then_some((label, thread));
            if current.is_some() {
                for side in [Side::Client, Side::Service] {
                    let lists = all.entry((label.into(), side)).or_default();
                    lists.push(Vec::new());
                }
            }
        } else if let (Some((label, client)), Some((name, _))) = (current, call.split_once('(')) {
            let name = name.trim_start();
            let side = if thread == client {
                Side::Client
            } else {
                Side::Service
            };
            let is_start = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let lists = all.entry((label.into(), side)).or_default();
            if let Some(names) = lists.last_mut().filter(|_| is_start) {
                names.push(name.into());
            }
        }
    }
    all
}
