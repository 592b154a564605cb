//! The second process: a program that does what it is told, line by line.
//!
//! ```text
//! make MECHANISM SIZE       ok ID
//! open ID [SIZE]            ok SIZE          the segment becomes the newest
//! env NAME                  ok SIZE          the same, from the environment
//! put OFFSET BYTE           ok               of the newest
//! get OFFSET                ok BYTE          of the newest
//! drop                      ok               the newest
//! …
//! ```
//!
//! Every answer is one line, `ok` or `err` and a text.
#![allow(unsafe_code)]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{Mechanism, ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider};

use crate::support::{Outcome, lacking, open_files, skip, system_v_segments};
use crate::{fork, hostile, seccomp};

/// How long a peer may take for an answer. None of them takes a hundredth of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command comes to.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// A second process.
pub(crate) struct Peer {
    child: Child,
    /// `None` once it is to end.
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Peer {
    /// A fresh program.
    pub(crate) fn start() -> Self {
        Self::started(&mut Self::command())
    }

    /// The same, started by another program that ends in `exec "$@"`: `unshare`, `setpriv`, `sh`, …
    ///
    /// The program file is one that every user can read.
    pub(crate) fn start_by(wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(public_program())
            .arg("peer");
        Self::started(&mut command)
    }

    /// The command of a fresh program, to be changed before it is started.
    pub(crate) fn command() -> Command {
        let mut command = Command::new(program());
        command.arg("peer");
        command
    }

    pub(crate) fn started(command: &mut Command) -> Self {
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits for the answer: `Ok` or `Err` as the peer says. A peer that does
    /// not answer, or is gone, fails the test.
    #[track_caller]
    pub(crate) fn ask(&mut self, order: impl AsRef<str>) -> Result<String, String> {
        let order = order.as_ref();
        self.tell(order);
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
    pub(crate) fn tell(&mut self, order: &str) {
        let told = self
            .orders
            .as_mut()
            .map(|orders| orders.write_all(format!("{order}\n").as_bytes()));
        assert!(matches!(told, Some(Ok(()))), "peer is gone: {order}");
    }

    /// Ends it by SIGKILL, and waits until it has.
    pub(crate) fn kill(mut self) -> u32 {
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
        let end = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        // It has ended, unless it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks that these processes, all of them ended, have left nothing: no System V segment, and no
/// name among `ids`.
#[track_caller]
pub(crate) fn assert_nothing_left(pids: &[u32], ids: &[&str]) {
    assert_eq!(system_v_segments(pids), Vec::<String>::new());
    for id in ids {
        assert!(!crate::support::name_exists(id), "{id} is left in /dev/shm");
        let opened = StdShMemProvider::default().shmem_from_id(ShMemId::from_string(id));
        assert!(opened.is_err(), "{id} can still be opened");
    }
}

/// Whether commands can be run by this wrapper here, or the reason why not, as the outcome of a
/// test.
pub(crate) fn can_start_by(wrapper: &[&str]) -> Result<(), Outcome> {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    let reason = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(skip(format!(
        "`{}` does not work here: {reason}",
        wrapper.join(" ")
    )))
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
pub(crate) fn public_program() -> PathBuf {
    env::temp_dir().join(format!("shmem-test-{}", std::process::id()))
}

/// Makes that copy, before there are other threads: if one of them started a program meanwhile, the
/// copy would be open for writing in there, and could not be executed (ETXTBSY).
pub(crate) fn make_public_program() {
    let place = public_program();
    fs::copy(program(), &place).expect("room for a copy");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// Removes it.
pub(crate) fn remove_public_program() {
    fs::remove_file(public_program()).expect("it was there");
}

/// What the second process does until its orders end.
pub(crate) fn serve() {
    let mut state = State {
        segments: Vec::new(),
        lies: None,
    };
    for order in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = order.split(' ').collect();
        match state.obey(&words) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("err {error}"),
        }
    }
}

pub(crate) struct State {
    pub(crate) segments: Vec<StdShMem>,
    /// What a hostile peer has put in the place of a segment.
    pub(crate) lies: Option<OwnedFd>,
}

impl State {
    fn obey(&mut self, order: &[&str]) -> Answer {
        match *order {
            ["make", mechanism, size] => self.make(mechanism, size.parse()?),
            ["open", id] => {
                self.hold(provider("default")?.shmem_from_id(ShMemId::from_string(id))?)
            }
            ["open", id, size] => {
                let id = ShMemId::from_string(id);
                let size = size.parse()?;
                self.hold(provider("default")?.shmem_from_id_and_size(id, size)?)
            }
            ["env", name] => self.hold(provider("default")?.existing_from_env(name)?),
            ["write-env", name] => {
                // SAFETY: this program has one thread.
                unsafe { self.newest()?.write_to_env(name)? };
                done()
            }
            ["put", offset, byte] => {
                *self.at(offset)? = byte.parse()?;
                done()
            }
            ["get", offset] => Ok(self.at(offset)?.to_string()),
            ["drop"] => {
                drop(self.segments.pop());
                done()
            }
            ["clone"] => {
                let clone = provider("default")?.clone_ref(self.newest()?)?;
                self.hold(clone)
            }
            ["mechanism"] => Ok(format!("{:?}", self.newest()?.mechanism())),
            ["litter", by, mode, count] => {
                fork::litter(by, i32::from_str_radix(mode, 8)?, count.parse()?)
            }
            ["segments"] => {
                let table = fs::read_to_string("/proc/sysvipc/shm")?;
                Ok((table.lines().count() - 1).to_string())
            }
            ["names"] => Ok(fs::read_dir("/dev/shm")?.count().to_string()),
            ["files"] => Ok(open_files().len().to_string()),
            // Until killed: makes and drops segments.
            ["churn", mechanism] => loop {
                self.make(mechanism, 65536)?;
                self.segments.clear();
            },
            ["limit", resource, value] => limit(resource, value.parse()?),
            ["timer", micros] => timer(micros.parse()?),
            ["undumpable"] => {
                rustix::process::set_dumpable_behavior(
                    rustix::process::DumpableBehavior::NotDumpable,
                )?;
                done()
            }
            ["forbid", ref calls @ ..] => seccomp::forbid(calls),
            ["fork", what] => fork::obey(self, what),
            ["become", what, id] => hostile::become_(self, what, id),
            ["next-shmid", number] => {
                fs::write("/proc/sys/kernel/shm_next_id", number)?;
                done()
            }
            ["shrink"] => hostile::shrink(self.newest()?),
            _ => Err(format!("unknown order {order:?}").into()),
        }
    }

    pub(crate) fn make(&mut self, mechanism: &str, size: usize) -> Answer {
        let segment = provider(mechanism)?.new_shmem(size)?;
        let id = segment.id().to_string();
        self.segments.push(segment);
        Ok(id)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what the order returns")]
    fn hold(&mut self, segment: StdShMem) -> Answer {
        let size = segment.len().to_string();
        self.segments.push(segment);
        Ok(size)
    }

    fn newest(&mut self) -> Result<&mut StdShMem, &'static str> {
        self.segments.last_mut().ok_or("no segment")
    }

    fn at(&mut self, offset: &str) -> Result<&mut u8, Box<dyn Error>> {
        let offset: usize = offset.parse()?;
        Ok(self.newest()?.get_mut(offset).ok_or("no such byte")?)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what the order returns")]
fn done() -> Answer {
    Ok(String::new())
}

/// Those of these mechanisms that the host has. What it lacks, the contract reports.
pub(crate) fn here(mechanisms: &[&'static str]) -> Vec<&'static str> {
    let is_here = |mechanism: &&str| match provider(mechanism).map(|mut p| p.new_shmem(1)) {
        Ok(Err(error)) => lacking(&error).is_none(),
        _ => true,
    };
    mechanisms.iter().copied().filter(is_here).collect()
}

/// All mechanisms by their names in orders.
pub(crate) const ALL: &[&str] = &["default", "memfd", "sysv", "posix"];

/// Those whose segments live as long as any holder, whatever becomes of their creator.
pub(crate) const LASTING: &[&str] = &["default", "memfd", "sysv"];

pub(crate) fn provider(mechanism: &str) -> Result<StdShMemProvider, String> {
    Ok(StdShMemProvider::with_mechanism(match mechanism {
        "default" => return Ok(StdShMemProvider::default()),
        "memfd" => Mechanism::Memfd,
        "sysv" => Mechanism::SystemV,
        "posix" => Mechanism::Posix,
        other => return Err(format!("no mechanism {other}")),
    }))
}

/// Raises a signal, which is caught, every so many microseconds.
fn timer(micros: libc::suseconds_t) -> Answer {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, which is safe at any time.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: micros,
    };
    let every = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the first pointer is to a valid value, and the second may be null.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const every, std::ptr::null_mut()) } {
        0 => done(),
        _ => Err(io::Error::last_os_error().into()),
    }
}

/// The limit on descriptors under which so many are free.
fn limit_that_leaves(free: u64) -> u64 {
    // SAFETY: the call changes nothing, and says EBADF for what is not open.
    let is_free = |number: &i32| unsafe { libc::fcntl(*number, libc::F_GETFD) } == -1;
    let beyond = (0..)
        .filter(is_free)
        .nth(usize::try_from(free).unwrap_or(0));
    beyond.map_or(free, |beyond| beyond.unsigned_abs().into())
}

fn limit(resource: &str, value: u64) -> Answer {
    let (resource, value) = match resource {
        "files" => (Resource::Nofile, limit_that_leaves(value)),
        "size" => (Resource::Fsize, value),
        "space" => (Resource::As, value),
        other => return Err(format!("no resource {other}").into()),
    };
    let maximum = getrlimit(resource).maximum;
    setrlimit(
        resource,
        Rlimit {
            current: Some(value),
            maximum,
        },
    )?;
    Ok(value.to_string())
}
