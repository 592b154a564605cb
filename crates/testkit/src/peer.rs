//! Second processes: this test program, started again with the argument `peer`, which executes commands
//! that it reads line by line. It answers each command with one line: `ok` or `err`, and a text.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

#[cfg(unix)]
use rustix::process::Pid;

use crate::{Outcome, skip};

/// How long a peer may take to answer. None of them needs a hundredth of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A second process.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// `None` once the peer is to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Peer {
    /// Starts this program again.
    pub fn start() -> Self {
        Self::started(&mut Self::command())
    }

    /// Starts this program by another one that ends in `exec "$@"`: `unshare`, `setpriv`, `sh`, …
    ///
    /// It is started from [`public_program`], which every user can read.
    pub fn start_by(wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(public_program())
            .arg("peer");
        Self::started(&mut command)
    }

    /// Returns the command that starts this program again, for tests that change its environment.
    pub fn command() -> Command {
        let mut command = Command::new(program());
        command.arg("peer");
        command
    }

    /// Starts a command, which has to execute a test program with the argument `peer`.
    pub fn started(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a program can be started");
        let commands = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            child,
            commands,
            answers,
        }
    }

    /// Returns the number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the same, for `rustix`.
    #[cfg(unix)]
    pub fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a command and returns the answer, `Ok` or `Err` as the peer reports. Panics if the peer has
    /// ended or does not answer.
    #[track_caller]
    pub fn ask(&mut self, command: impl AsRef<str>) -> Result<String, String> {
        let command = command.as_ref();
        self.send(command);
        self.answer_to(command)
    }

    /// Sends a command whose answer is a value of this type, and returns that.
    #[track_caller]
    pub fn ask_for<T: FromStr>(&mut self, command: impl AsRef<str>) -> Result<T, String> {
        let command = command.as_ref();
        let answer = self.ask(command)?;
        let Ok(value) = answer.parse() else {
            panic!("peer answers {answer:?} to {command:?}");
        };
        Ok(value)
    }

    /// Sends a command that has no answer but success.
    #[track_caller]
    pub fn execute(&mut self, command: impl AsRef<str>) -> Result<(), String> {
        self.ask(command).map(drop)
    }

    /// Waits for the answer to a command that was sent by [`send`](Self::send).
    #[track_caller]
    pub fn answer_to(&mut self, command: &str) -> Result<String, String> {
        let answer = self.answers.recv_timeout(DEADLINE);
        let answer = answer.unwrap_or_else(|e| panic!("peer does not answer: {command}: {e}"));
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", text) => Ok(text.to_owned()),
            ("err", text) => Err(text.to_owned()),
            _ => panic!("peer answers {answer:?} to {command:?}"),
        }
    }

    /// Sends a command and does not wait for the answer.
    #[track_caller]
    pub fn send(&mut self, command: &str) {
        let sent = self
            .commands
            .as_mut()
            .map(|commands| commands.write_all(format!("{command}\n").as_bytes()));
        assert!(
            matches!(sent, Some(Ok(()))),
            "peer has ended before: {command}"
        );
    }

    /// Returns an answer that has arrived already, if there is one.
    pub fn answered(&self) -> Option<String> {
        self.answers.try_recv().ok()
    }

    /// Ends the process by SIGKILL, waits for its end, and returns its number.
    pub fn kill(mut self) -> u32 {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.pid()
    }
}

/// Lets the process end by itself, so that it drops what it holds.
impl Drop for Peer {
    fn drop(&mut self) {
        self.commands = None;
        // A test that has failed needs no orderly end.
        let timeout = if thread::panicking() {
            Duration::ZERO
        } else {
            DEADLINE
        };
        let end = Instant::now() + timeout;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        // It has ended, unless it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a peer does: executes the commands of its standard input and prints the answers, until there are no
/// more commands.
pub fn serve<E: Display>(mut execute: impl FnMut(&[&str]) -> Result<String, E>) {
    for command in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = command.split(' ').collect();
        println!("{}", answer(execute(&words)));
    }
}

/// Returns the line that answers a command.
pub fn answer(result: Result<String, impl Display>) -> String {
    match result {
        Ok(text) => format!("ok {text}"),
        // Messages of Windows have several lines.
        Err(error) => format!("err {}", error.to_string().replace(['\r', '\n'], " ")),
    }
}

/// Runs a command as another user, 65534, who owns nothing.
pub const AS_OTHER: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

/// Skips the test if this wrapper cannot start commands here.
pub fn can_start_by(wrapper: &[&str]) -> Outcome {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    let reason = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    skip(format!(
        "`{}` does not work here: {reason}",
        wrapper.join(" ")
    ))
}

/// Returns the path of this program.
fn program() -> PathBuf {
    // Without /proc, only the first argument tells it.
    let first = || {
        env::args_os()
            .next()
            .map_or_else(PathBuf::new, PathBuf::from)
    };
    env::current_exe().unwrap_or_else(|_| first())
}

/// Returns the path of a copy of this program that every user can read.
pub fn public_program() -> PathBuf {
    env::temp_dir().join(format!("shmem-test-{}", std::process::id()))
}

/// Creates that copy. To be called while there is a single thread: a program that another thread starts at
/// this time would inherit the copy open for writing, and it could not be executed (ETXTBSY).
pub fn make_public_program() {
    let path = public_program();
    fs::copy(program(), &path).expect("there is room for a copy");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
}

/// Removes the copy.
pub fn remove_public_program() {
    fs::remove_file(public_program()).expect("it was created before");
}
