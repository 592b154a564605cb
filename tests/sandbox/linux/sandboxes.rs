//! The sandboxes, and how a process is started in each of them.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use rustix::process::geteuid;
use testkit::peer::{Peer, can_start_by, public_program};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, skip};

/// A sandbox: how a process gets into it.
pub(super) struct Sandbox {
    /// As the tables call it.
    pub(super) name: &'static str,
    start: Start,
}

/// What is done with a command before it is started.
pub(super) type Prepare<'a> = &'a dyn Fn(&mut Command) -> Result<(), String>;

enum Start {
    /// Starts it like any other process, and then forbids these calls.
    Forbidding(&'static str),
    /// Starts it in a mount namespace of its own, after this line of shell, and then forbids these
    /// calls.
    Mounted(&'static str, &'static str),
    /// Lets it restrict itself by Landlock, to reading, except below the directory for temporary files, if
    /// that is writable.
    Landlock { writable: bool },
    /// Starts it by bubblewrap, which shares that directory only.
    Bubblewrap,
}

const NO_SHM: &str = "mount -t tmpfs -o ro tmpfs /dev/shm";
const NO_PROC: &str = "mount -t tmpfs -o ro tmpfs /proc";

const fn sandbox(name: &'static str, start: Start) -> Sandbox {
    Sandbox { name, start }
}

pub(super) static SANDBOXES: &[Sandbox] = &[
    Sandbox::NONE,
    sandbox("bubblewrap", Start::Bubblewrap),
    sandbox("Landlock", Start::Landlock { writable: true }),
    sandbox(
        "Landlock, all read-only",
        Start::Landlock { writable: false },
    ),
    sandbox("no memfd_create", Start::Forbidding("memfd_create")),
    sandbox("no shmget", Start::Forbidding("shmget")),
    sandbox("no /dev/shm", Start::Mounted(NO_SHM, "")),
    sandbox("no Unix sockets", Start::Forbidding("unix-socket")),
    sandbox("no /proc", Start::Mounted(NO_PROC, "")),
    sandbox(
        "agent",
        Start::Mounted(NO_SHM, "memfd_create shmget unix-socket"),
    ),
];

impl Sandbox {
    /// No sandbox.
    pub(super) const NONE: Self = sandbox("none", Start::Forbidding(""));

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SANDBOXES.iter().find(|sandbox| sandbox.name == name)
    }

    /// Starts a peer in the sandbox, or skips the test if the host lacks it.
    pub(super) fn start(&self, directory: &Path) -> Outcome<Peer> {
        self.start_with(directory, &|_| Ok(()))
    }

    /// As [`start`](Self::start), with a command that was changed before.
    pub(super) fn start_with(&self, directory: &Path, prepare: Prepare<'_>) -> Outcome<Peer> {
        let path = directory.display().to_string();
        match self.start {
            Start::Forbidding(calls) => {
                let mut peer = start(Peer::command(), directory, prepare)?;
                forbid(&mut peer, calls)?;
                Ok(peer)
            }
            Start::Mounted(shell, calls) => {
                if !geteuid().is_root() {
                    return skip("other users need a user namespace to mount, a sandbox by itself");
                }
                let shell = format!("set -e; {shell}\nexec \"$@\"");
                let mut peer = start_by(
                    &["unshare", "-m", "sh", "-c", &shell, "sh"],
                    directory,
                    prepare,
                )?;
                forbid(&mut peer, calls)?;
                Ok(peer)
            }
            Start::Landlock { writable } => {
                let mut peer = start(Peer::command(), directory, prepare)?;
                let paths = if writable { &path } else { "" };
                match peer.execute(format!("landlock {paths}").trim()) {
                    Ok(()) => Ok(peer),
                    Err(reason) => skip(format!("no Landlock here: {reason}")),
                }
            }
            Start::Bubblewrap => {
                let unmapped = fs::read_to_string("/proc/sys/kernel/overflowuid")?;
                if unmapped.trim() == geteuid().as_raw().to_string() {
                    return skip(
                        "this user has the number of all unmapped users of a user namespace",
                    );
                }
                let shared = ["--ro-bind", "/", "/", "--bind", &path, &path];
                let own = ["--dev", "/dev", "--proc", "/proc", "--"];
                let wrapper = [&["bwrap", "--unshare-all"][..], &shared, &own].concat();
                start_by(&wrapper, directory, prepare)
            }
        }
    }
}

/// Starts this program by another one, if that works here.
fn start_by(wrapper: &[&str], directory: &Path, prepare: Prepare<'_>) -> Outcome<Peer> {
    can_start_by(wrapper)?;
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(public_program())
        .arg("peer");
    start(command, directory, prepare)
}

/// Starts a peer with the variables by which processes find each other.
fn start(mut command: Command, directory: &Path, prepare: Prepare<'_>) -> Outcome<Peer> {
    command.env("TMPDIR", directory);
    command.env("SHMEM_SERVICE", directory.join("service"));
    prepare(&mut command)?;
    Ok(Peer::started(&mut command))
}

fn forbid(peer: &mut Peer, calls: &str) -> Outcome {
    if calls.is_empty() {
        return Ok(());
    }
    if calls.contains("shmget") && cfg!(any(target_arch = "x86", target_arch = "s390x")) {
        return skip("this machine has one call for all of System V");
    }
    forbid_in(peer, "EPERM", calls)
}

/// What a peer does: restricts itself, and the processes that it starts, to reading, except below these paths.
pub(super) fn restrict(paths: &[&str]) -> Result<String, Box<dyn Error>> {
    let abi = ABI::V5;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(paths, AccessFs::from_all(abi)))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel does not enforce it".into()),
        _ => Ok(String::new()),
    }
}
