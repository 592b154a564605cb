//! Second processes: this test program, started anew with the argument `peer`, which does what it is
//! told, line by line. Every answer is one line, `ok` or `err` and a text.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

#[cfg(unix)]
use rustix::process::Pid;

use crate::{Outcome, skip};

/// How long a peer may take for an answer. None of them takes a hundredth of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A second process.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// `None` once it is to end.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Peer {
    /// A fresh program.
    pub fn start() -> Self {
        Self::started(&mut Self::command())
    }

    /// The same, started by another program that ends in `exec "$@"`: `unshare`, `setpriv`, `sh`, …
    ///
    /// The program file is one that every user can read.
    pub fn start_by(wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(public_program())
            .arg("peer");
        Self::started(&mut command)
    }

    /// The command of a fresh program, to be changed before it is started.
    pub fn command() -> Command {
        let mut command = Command::new(program());
        command.arg("peer");
        command
    }

    /// Starts the command, which has to execute a test program with the argument `peer`.
    pub fn started(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a program can be started");
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            child,
            orders,
            answers,
        }
    }

    /// Returns its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// To send it signals.
    #[cfg(unix)]
    pub fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Gives an order and waits for the answer: `Ok` or `Err` as the peer says. A peer that does
    /// not answer, or is gone, fails the test.
    #[track_caller]
    pub fn ask(&mut self, order: impl AsRef<str>) -> Result<String, String> {
        let order = order.as_ref();
        self.tell(order);
        self.answer_to(order)
    }

    /// Waits for the answer to an order that was given before.
    #[track_caller]
    pub fn answer_to(&mut self, order: &str) -> Result<String, String> {
        let answer = self.answers.recv_timeout(DEADLINE);
        let answer = answer.unwrap_or_else(|e| panic!("peer does not answer: {order}: {e}"));
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", text) => Ok(text.to_owned()),
            ("err", text) => Err(text.to_owned()),
            _ => panic!("peer says {answer:?} to {order:?}"),
        }
    }

    /// Gives an order and does not wait.
    #[track_caller]
    pub fn tell(&mut self, order: &str) {
        let told = self
            .orders
            .as_mut()
            .map(|orders| orders.write_all(format!("{order}\n").as_bytes()));
        assert!(matches!(told, Some(Ok(()))), "peer is gone: {order}");
    }

    /// What it has answered meanwhile to what it was told, if it has.
    pub fn answered(&self) -> Option<String> {
        self.answers.try_recv().ok()
    }

    /// Ends it by SIGKILL, and waits until it has.
    pub fn kill(mut self) -> u32 {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.pid()
    }
}

/// Lets it end by itself, so that it drops what it holds.
impl Drop for Peer {
    fn drop(&mut self) {
        self.orders = None;
        // When a test has failed, nothing needs to be dropped.
        let patience = if thread::panicking() {
            Duration::ZERO
        } else {
            DEADLINE
        };
        let end = Instant::now() + patience;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        // It has ended, unless it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether commands can be run by this wrapper here, or the reason why not, as the outcome of a
/// test.
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

/// This program.
fn program() -> PathBuf {
    // Without /proc it is known by its first argument only.
    let first = || {
        env::args_os()
            .next()
            .map_or_else(PathBuf::new, PathBuf::from)
    };
    env::current_exe().unwrap_or_else(|_| first())
}

/// A copy of this program where every user can read it.
pub fn public_program() -> PathBuf {
    env::temp_dir().join(format!("shmem-test-{}", std::process::id()))
}

/// Makes that copy, before there are other threads: if one of them started a program meanwhile, the
/// copy would be open for writing in there, and could not be executed (ETXTBSY).
pub fn make_public_program() {
    let place = public_program();
    fs::copy(program(), &place).expect("room for a copy");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
}

/// Removes it.
pub fn remove_public_program() {
    fs::remove_file(public_program()).expect("it was there");
}
