//! Counts the system calls of clients and of services.

use std::ffi::OsStr;
use std::hint::spin_loop;
use std::path::Path;
use std::time::{Duration, Instant};

use bench::Result;
use bench::strace::{Calls, Side, between_marks};

use crate::CHILD;
use crate::bare::Bare;
use crate::life::{Life, Ours};
use crate::program::Program;

/// How long to wait for the service after each part, without a system call.
const REST: Duration = Duration::from_millis(15);

const PARTS: [&str; 3] = ["create", "attach", "release"];
const SERVICES: [&str; 2] = ["ours", "bare"];

/// Prints the system calls of clients and services in each part of a segment's life.
pub(crate) fn report() {
    let calls = match traced() {
        Ok(calls) => calls,
        Err(reason) => return println!("\nSystem calls were not counted: {reason}"),
    };
    println!("\n| system calls of | ours | bare |");
    println!("| --- | --- | --- |");
    for part in PARTS {
        for (name, side) in [("Client", Side::Caller), ("Service", Side::Others)] {
            let [ours, bare] = SERVICES.map(|service| {
                let summary = calls.summary(&label(part, service), side);
                summary.unwrap_or("?".into())
            });
            println!("| {part}, {name} | {ours} | {bare} |");
        }
    }
    println!("\nBoth clients release, so the last two rows are two requests; neither has a reply.");
    if cfg!(debug_assertions) {
        println!("This is a debug build, in which std calls fcntl before each close.");
    }
}

fn label(part: &str, service: &str) -> String {
    format!("{part}: {service}")
}

/// Runs clients and services under strace.
fn traced() -> Result<Calls> {
    let directory = tempfile::tempdir()?;
    let arguments = [OsStr::new(CHILD), OsStr::new("trace")];
    Calls::of_this_program(arguments.into_iter().chain([directory.path().as_os_str()]))
}

/// Runs both services, and clients of them in this process, which is under strace.
pub(crate) fn trace(directory: &Path) -> Result {
    let [ours, bare] = SERVICES.map(|service| directory.join(service));
    let _servers = [Program::service(&ours, 0)?, Program::bare_server(&bare)?];
    let mut ours = Ours::served(&ours);
    let mut bare = Bare::connect(&bare)?;
    for _ in 0..4 {
        mark_parts(SERVICES[0], &mut ours)?;
        mark_parts(SERVICES[1], &mut bare)?;
    }
    Ok(())
}

fn mark_parts<L: Life>(service: &str, life: &mut L) -> Result {
    let [create, attach, release] = PARTS.map(|part| label(part, service));
    let created = between_marks(&create, || then_rest(life.create()))?;
    let attached = between_marks(&attach, || then_rest(life.attach(&created)))?;
    between_marks(&release, || then_rest(life.release(created, attached)))
}

/// Returns the result after the service has had time to finish.
fn then_rest<T>(result: T) -> T {
    let end = Instant::now() + REST;
    while Instant::now() < end {
        spin_loop();
    }
    result
}
