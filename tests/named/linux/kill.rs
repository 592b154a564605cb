//! SIGKILL of holders and creators, at every system call.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::error::NamedError;
use shmem_providers::{MmapShMemProvider, NamedOptions, Persist, ShMemProvider};
use testkit::{Outcome, if_lacking, natively, skip};

use super::peer::{SIZE, initialise, initialised_by};
use super::{Names, reason};

pub(crate) fn killed_holders_leave_no_name() -> Outcome {
    let here = Names::new()?;
    let log = tempfile::tempdir()?;
    let mut holder = here.peer();
    holder.execute(format!("make a {}/log", log.path().display()))?;
    assert_eq!(here.list(), ["a"]);
    holder.kill();
    assert_eq!(reason(here.options().open("a")), NamedError::Unknown);
    here.assert_empty();
    // The list alone removes what is left, too.
    let mut holder = here.peer();
    holder.execute(format!("make a {}/log", log.path().display()))?;
    holder.kill();
    here.assert_empty();
    Ok(())
}

pub(crate) fn killed_creators_stop_nobody() -> Outcome {
    let here = Names::new()?;
    for _ in 0..10 {
        let mut creator = here.peer();
        creator.send("stuck a");
        creator.answer_to("stuck")?;
        creator.kill();
        let mut named = here.options().open_or_create("a", SIZE, initialise)?;
        assert!(named.is_creator());
        initialised_by(&mut named)?;
        drop(named);
        assert_eq!(here.files(), Vec::<String>::new());
    }
    Ok(())
}

pub(crate) fn the_next_takes_over_from_a_creator_killed_while_it_initialises() -> Outcome {
    let here = Names::new()?;
    let log = tempfile::tempdir()?;
    let make = format!("make a {}/log", log.path().display());
    let mut creator = here.peer();
    creator.send("stuck a");
    creator.answer_to("stuck")?;
    let mut waiting = [here.peer(), here.peer()];
    for peer in &mut waiting {
        peer.send(&make);
    }
    creator.kill();
    for peer in &mut waiting {
        peer.answer_to(&make)?;
    }
    let log = fs::read_to_string(log.path().join("log"))?;
    assert_eq!(log.lines().count(), 1, "{log}");
    drop(waiting);
    here.assert_empty();
    Ok(())
}

/// Runs `once` in this directory under strace, with these arguments.
fn traced(strace: &[&str], here: &Names, kind: &str) -> Outcome<Output> {
    let output = Command::new("strace")
        .args(["-f", "-qq"])
        .args(strace)
        .arg(std::env::current_exe()?)
        .arg("once")
        .arg(here.path())
        .args([kind, "a"])
        // The search for leaks cannot be traced.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) if error.kind() == ErrorKind::NotFound => skip("strace not found"),
        output => Ok(output?),
    }
}

/// Returns the system calls of `once`: each name, and how often it has occurred so far.
fn calls(here: &Names, kind: &str) -> Outcome<Vec<(String, usize)>> {
    natively("where strace sees the calls of the emulator")?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log").display().to_string();
    let output = traced(&["-o", &log], here, kind)?;
    let log = fs::read_to_string(&log).unwrap_or_default();
    if !log.contains("flock(") {
        let text = String::from_utf8_lossy(&output.stderr);
        return skip(format!("strace does not work here: {}", text.trim()));
    }
    assert!(output.status.success());
    let mut seen = HashMap::new();
    // Each line is the number of the process and a call.
    let of_line = |line: &str| {
        let (name, _) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        let count: &mut usize = seen.entry(name.to_owned()).or_default();
        *count += 1;
        Some((name.to_owned(), *count))
    };
    Ok(log.lines().filter_map(of_line).collect())
}

/// Kills a creator when it begins any of its system calls. After each, the next process gets a complete
/// segment at once, and leaves the directory as it was.
fn at_every_call<P: ShMemProvider>(kind: &str, options: &NamedOptions<P>, here: &Names) -> Outcome {
    let is_persistent = kind == "persistent";
    let (mut kills, mut left) = (0, BTreeSet::new());
    let calls = calls(here, kind)?;
    if is_persistent {
        options.remove("a")?;
    }
    for (call, count) in &calls {
        let inject = format!("inject={call}:signal=SIGKILL:when={count}");
        let output = traced(&["-o", "/dev/null", "-e", &inject], here, kind)?;
        let at = format!("{call} {count}");
        let is_killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
        assert!(is_killed || output.status.success(), "{at}: {output:?}");
        kills += usize::from(is_killed);
        let files = here.files();
        let suffixes = files
            .iter()
            .filter_map(|file| Some(file.split_once('.')?.1.to_owned()));
        left.insert(suffixes.collect::<Vec<_>>().join(" "));
        let mut named = options.open_or_create("a", SIZE, initialise)?;
        initialised_by(&mut named).map_err(|error| format!("{at}: {error}"))?;
        drop(named);
        if is_persistent {
            options.remove("a")?;
        }
        assert_eq!(here.files(), Vec::<String>::new(), "{at}");
    }
    // Some calls differ from run to run, as those that look for orphans in `/dev/shm`.
    assert!(
        kills * 4 > calls.len() * 3,
        "{kills} kills at {} calls",
        calls.len()
    );
    for state in ["", "lock", "lock new", "0 lock", "0"] {
        assert!(left.contains(state), "{state:?} was never left: {left:?}");
    }
    here.assert_empty();
    Ok(())
}

pub(crate) fn creators_killed_at_every_system_call_leave_nothing() -> Outcome {
    let here = Names::new()?;
    at_every_call("std", &here.options(), &here)
}

pub(crate) fn creators_of_posix_segments_killed_at_every_system_call_leave_nothing() -> Outcome {
    let mut provider = MmapShMemProvider::new()?;
    if let Err(error) = provider.new_shmem(1) {
        return if_lacking(error);
    }
    let here = Names::new()?;
    let options = NamedOptions::with_provider(provider).directory(here.path());
    at_every_call("posix", &options, &here)?;
    MmapShMemProvider::remove_orphans()?;
    Ok(())
}

pub(crate) fn creators_of_persistent_segments_killed_at_every_system_call_leave_nothing() -> Outcome
{
    if let Err(error) = MmapShMemProvider::new()?.new_shmem(1) {
        return if_lacking(error);
    }
    let here = Names::new()?;
    let options = here.options().persist(Persist::UntilRemoved);
    let before = persisted();
    at_every_call("persistent", &options, &here)?;
    // Segments that were created and not yet registered are orphans.
    MmapShMemProvider::remove_orphans()?;
    // Those of other programs of this user come and go.
    let end = Instant::now() + Duration::from_secs(40);
    while let Some(left) = persisted().difference(&before).next() {
        assert!(Instant::now() < end, "{} was left", left.display());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Returns the random names in `/dev/shm` that persist: their files lack the mark of those that do not.
fn persisted() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let persists = |path: &PathBuf| {
        let mode = path.symlink_metadata().map(|metadata| metadata.mode());
        path.to_string_lossy().contains("/shmem-") && mode.is_ok_and(|mode| mode & 0o7777 == 0o600)
    };
    entries.map(|entry| entry.path()).filter(persists).collect()
}
