//! The parts, one function each.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use shmem_providers::{MmapShMemProvider, ShMem, ShMemId, ShMemProvider, UnixShMemProvider};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The variables that targets of AFL++ read.
const ID: &str = "__AFL_SHM_ID";
const SIZE: &str = "AFL_MAP_SIZE";

/// The size of a map in bytes, unless the environment has another one.
const DEFAULT_SIZE: usize = 65536;

pub(crate) fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["coverage", target] => coverage(target),
        ["server"] => server(),
        ["target"] => target(),
        ["name", target] => name(target),
        _ => Err("coverage TARGET, server, target, or name TARGET".into()),
    }
}

/// Runs the target on inputs that get further and further; the last one reaches the planted crash.
fn coverage(program: &str) -> Result<()> {
    // System V, because targets read a shmid from the variable and pass it to `shmat`.
    let mut map = UnixShMemProvider::new()?.new_shmem(DEFAULT_SIZE)?;
    let mut seen = BTreeSet::new();
    for input in ["x", "ax", "abx", "abc"] {
        map.access().fill(0);
        let status = run(program, &map, input)?;
        let marked = marked(&mut map);
        println!(
            "{input:>4}: {} of {DEFAULT_SIZE} bytes are marked, {status}",
            marked.len()
        );
        if marked.is_empty() || status.success() == (input == "abc") {
            return Err("the target did not run as expected".into());
        }
        if !seen.insert(marked) {
            return Err("an earlier input has resulted in the same map".into());
        }
    }
    println!("{} inputs have resulted in different maps", seen.len());
    Ok(())
}

/// The fork server: writes four bytes as a greeting, and then, for each four bytes that it reads, runs a
/// process and writes its number and its exit status. Its parent, `afl-showmap`, has opened two pipes for
/// that. Without them, this process is the only execution.
fn server() -> Result<()> {
    let Ok(mut commands) = File::open("/proc/self/fd/198") else {
        return target();
    };
    let mut replies = OpenOptions::new().write(true).open("/proc/self/fd/199")?;
    replies.write_all(&0_u32.to_ne_bytes())?;
    while commands.read_exact(&mut [0; 4]).is_ok() {
        let mut execution = Command::new(std::env::current_exe()?)
            .arg("target")
            .spawn()?;
        replies.write_all(&execution.id().to_ne_bytes())?;
        replies.write_all(&execution.wait()?.into_raw().to_ne_bytes())?;
    }
    Ok(())
}

/// One execution of a target that is instrumented by hand.
fn target() -> Result<()> {
    let id = ShMemId::from_string(&std::env::var(ID)?);
    let size = std::env::var(SIZE).ok().and_then(|size| size.parse().ok());
    let mut map =
        UnixShMemProvider::new()?.shmem_from_id_and_size(id, size.unwrap_or(DEFAULT_SIZE))?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    for byte in input {
        if let Some(counter) = map.access().as_atomic_u8().get(usize::from(byte)) {
            counter.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

/// Runs a target that opens a name, and checks that it has marked the bytes of its input.
fn name(program: &str) -> Result<()> {
    // POSIX, because the target opens the name after `exec`.
    let mut map = MmapShMemProvider::new()?.new_shmem(DEFAULT_SIZE)?;
    let status = run(program, &map, "aab")?;
    let marked = marked(&mut map);
    println!("{}: {marked:?}, {status}", map.id());
    if !status.success() || marked != [(usize::from(b'a'), 2), (usize::from(b'b'), 1)] {
        return Err("the target did not mark the bytes of its input".into());
    }
    Ok(())
}

fn run(program: &str, map: &impl ShMem, input: &str) -> Result<ExitStatus> {
    let mut child = Command::new(program)
        .env(ID, map.id().as_str())
        .env(SIZE, map.len().to_string())
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    Ok(child.wait()?)
}

/// Returns the bytes that are not zero, with their offsets.
fn marked(map: &mut impl ShMem) -> Vec<(usize, u8)> {
    let counters = map.access().as_atomic_u8().iter().enumerate();
    counters
        .map(|(at, counter)| (at, counter.load(Relaxed)))
        .filter(|&(_, count)| count != 0)
        .collect()
}
