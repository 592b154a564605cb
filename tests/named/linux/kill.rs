//! SIGKILL of holders and creators, at every system call.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use shmem_providers::error::NamedError;
use shmem_providers::{MmapShMemProvider, NamedOptions, Persist, ShMem, ShMemProvider};
use testkit::{Outcome, if_lacking, natively, skip};

use super::peer::{SIZE, initialise, initialised_by};
use super::{Names, reason};

pub(crate) fn killed_holders_leave_no_name() -> Outcome {
    let names = Names::new()?;
    let log = tempfile::tempdir()?;
    let mut holder = names.peer();
    holder.execute(format!("make a {}/log", log.path().display()))?;
    assert_eq!(names.list(), ["a"]);
    holder.kill();
    assert_eq!(reason(names.options().open("a")), NamedError::Unknown);
    names.assert_empty();
    // The list alone removes what is left, too.
    let mut holder = names.peer();
    holder.execute(format!("make a {}/log", log.path().display()))?;
    holder.kill();
    names.assert_empty();
    Ok(())
}

pub(crate) fn killed_creators_stop_nobody() -> Outcome {
    let names = Names::new()?;
    for _ in 0..10 {
        let mut creator = names.peer();
        creator.send("stuck a");
        creator.answer_to("stuck")?;
        creator.kill();
        let mut named = names.options().open_or_create("a", SIZE, initialise)?;
        assert!(named.is_creator());
        initialised_by(&mut named)?;
        drop(named);
        assert_eq!(names.files(), Vec::<String>::new());
    }
    Ok(())
}

pub(crate) fn the_next_takes_over_from_a_creator_killed_while_it_initialises() -> Outcome {
    let names = Names::new()?;
    let log = tempfile::tempdir()?;
    let make = format!("make a {}/log", log.path().display());
    let mut creator = names.peer();
    creator.send("stuck a");
    creator.answer_to("stuck")?;
    let mut waiting = [names.peer(), names.peer()];
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
    names.assert_empty();
    Ok(())
}

/// Runs `once` in this directory and kills it when it begins its system call of this number. Returns `false`
/// if it ends before.
fn killed_at(call: usize, names: &Names, kind: &str) -> Outcome<bool> {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("inject=all:signal=SIGKILL:when={call}"))
        .arg(std::env::current_exe()?)
        .arg("once")
        .arg(names.path())
        .args([kind, "a"])
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => return skip("strace not found"),
        output => output?,
    };
    if output.status.signal() == Some(9) || output.status.code() == Some(137) {
        return Ok(true);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("PTRACE") || text.contains("ptrace") || text.contains("invalid") {
        return skip(format!(
            "strace cannot inject signals here: {}",
            text.trim()
        ));
    }
    assert!(
        output.status.success(),
        "at call {call}: {}, {text}",
        output.status
    );
    Ok(false)
}

/// Kills a creator at each of its system calls. After each, the next process gets a complete segment at once,
/// and leaves the directory as it was.
fn at_every_call<P: ShMemProvider>(
    kind: &str,
    options: &NamedOptions<P>,
    names: &Names,
) -> Outcome {
    natively("where strace sees the calls of the emulator")?;
    let mut kills = 0;
    // Some calls later the process has left something in the directory.
    let mut left = 0;
    while killed_at(kills + 1, names, kind)? {
        kills += 1;
        left += usize::from(!names.files().is_empty());
        let mut named = options.open_or_create("a", SIZE, initialise)?;
        initialised_by(&mut named).map_err(|error| format!("call {kills}: {error}"))?;
        drop(named);
        if kind == "persistent" {
            options.remove("a")?;
        }
        assert_eq!(names.files(), Vec::<String>::new(), "after call {kills}");
        assert!(kills < 2000, "it never ends");
    }
    assert!(left >= 5, "{left} of {kills} kills hit the creation");
    if kind == "persistent" {
        options.remove("a")?;
    }
    names.assert_empty();
    Ok(())
}

pub(crate) fn creators_killed_at_every_system_call_leave_nothing() -> Outcome {
    let names = Names::new()?;
    at_every_call("std", &names.options(), &names)
}

pub(crate) fn creators_of_posix_segments_killed_at_every_system_call_leave_nothing() -> Outcome {
    let mut provider = MmapShMemProvider::new()?;
    if let Err(error) = provider.new_shmem(1) {
        return if_lacking(error);
    }
    let names = Names::new()?;
    let options = NamedOptions::with_provider(provider).directory(names.path());
    at_every_call("posix", &options, &names)?;
    MmapShMemProvider::remove_orphans()?;
    Ok(())
}

pub(crate) fn creators_of_persistent_segments_killed_at_every_system_call_leave_nothing() -> Outcome
{
    if let Err(error) = MmapShMemProvider::new()?.new_shmem(1) {
        return if_lacking(error);
    }
    let names = Names::new()?;
    let options = names.options().persist(Persist::UntilRemoved);
    at_every_call("persistent", &options, &names)?;
    // Segments that were created and not yet registered are orphans.
    MmapShMemProvider::remove_orphans()?;
    let before = options.open_or_create("a", SIZE, initialise)?.id();
    options.remove("a")?;
    assert!(!testkit::name_exists(before.as_str()));
    names.assert_empty();
    Ok(())
}
