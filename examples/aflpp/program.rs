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

/// How many bytes a map has if nothing is said of it.
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

/// Runs the target on inputs that lead further and further, the last one into its planted crash.
fn coverage(program: &str) -> Result<()> {
    // System V: targets read a shmid from the variable, and give it to `shmat`.
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
            return Err("the target did not run as it should".into());
        }
        if !seen.insert(marked) {
            return Err("an earlier input has left the same".into());
        }
    }
    println!("{} inputs, as many different maps", seen.len());
    Ok(())
}

/// The fork server: says hello, and then, for every four bytes that come, tells the process of an
/// execution and how it ended. It has two pipes from its parent, `afl-showmap`, or else it is to be
/// the only execution itself.
fn server() -> Result<()> {
    let Ok(mut orders) = File::open("/proc/self/fd/198") else {
        return target();
    };
    let mut answers = OpenOptions::new().write(true).open("/proc/self/fd/199")?;
    answers.write_all(&0_u32.to_ne_bytes())?;
    while orders.read_exact(&mut [0; 4]).is_ok() {
        let mut execution = Command::new(std::env::current_exe()?)
            .arg("target")
            .spawn()?;
        answers.write_all(&execution.id().to_ne_bytes())?;
        answers.write_all(&execution.wait()?.into_raw().to_ne_bytes())?;
    }
    Ok(())
}

/// One execution of a target that was instrumented by hand.
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

/// Runs a target that opens a name, and shows that it has marked what it was given.
fn name(program: &str) -> Result<()> {
    // POSIX: the name has to be there when the target opens it after `exec`.
    let mut map = MmapShMemProvider::new()?.new_shmem(DEFAULT_SIZE)?;
    let status = run(program, &map, "aab")?;
    let marked = marked(&mut map);
    println!("{}: {marked:?}, {status}", map.id());
    if !status.success() || marked != [(usize::from(b'a'), 2), (usize::from(b'b'), 1)] {
        return Err("the target did not mark what it was given".into());
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

/// Which bytes are not zero, and what they are.
fn marked(map: &mut impl ShMem) -> Vec<(usize, u8)> {
    let counters = map.access().as_atomic_u8().iter().enumerate();
    counters
        .map(|(at, counter)| (at, counter.load(Relaxed)))
        .filter(|&(_, count)| count != 0)
        .collect()
}
