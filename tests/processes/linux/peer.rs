//! The second process: a program that executes commands, line by line.
//!
//! ```text
//! make MECHANISM SIZE       ok ID            creates a segment, which becomes the newest
//! open ID [SIZE]            ok SIZE          attaches to a segment, which becomes the newest
//! env NAME                  ok SIZE          the same, from the environment
//! put OFFSET BYTE           ok               writes to the newest
//! get OFFSET                ok BYTE          reads from the newest
//! drop                      ok               drops the newest
//! …
//! ```
//!
//! The answer to each command is one line, `ok` or `err` and a text. [`Commands`] has the common commands as
//! methods.
#![allow(unsafe_code)]

use std::any::Any;
use std::error::Error;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{
    Mechanism, MmapShMem, ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider,
};

use super::{
    descriptors, files, fork, hostile, inherit, init, limits, lookup, posix, sharing, stdio, sysv,
};
pub(crate) use testkit::peer::{
    Peer, answer, can_start_by, make_public_program, public_program, remove_public_program,
};
use testkit::seccomp::forbid;
use testkit::{lacking, open_files, system_v_segments};

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// The common commands. Rare ones are sent as text.
pub(crate) trait Commands {
    /// Creates a segment and returns its id.
    fn make(&mut self, mechanism: &str, size: usize) -> Result<String, String>;

    /// Creates a POSIX segment with a chosen name.
    fn make_named(&mut self, name: &str, size: usize) -> Result<(), String>;

    /// Attaches to a segment and returns its size.
    fn open(&mut self, id: &(impl Display + ?Sized)) -> Result<usize, String>;

    /// Attaches to the start of a segment and returns the size of that.
    fn open_part(&mut self, id: &(impl Display + ?Sized), size: usize) -> Result<usize, String>;

    /// Attaches to the segment in a variable of the environment and returns its size.
    fn open_from_env(&mut self, name: &str) -> Result<usize, String>;

    /// Writes a byte of the newest segment.
    fn put(&mut self, offset: usize, byte: u8) -> Result<(), String>;

    /// Reads a byte of the newest segment.
    fn get(&mut self, offset: usize) -> Result<u8, String>;

    /// Clones the newest segment and returns its size. The clone becomes the newest.
    fn clone_newest(&mut self) -> Result<usize, String>;

    /// Drops the newest segment.
    fn drop_newest(&mut self) -> Result<(), String>;

    /// Removes orphaned POSIX names and returns how many there were.
    fn remove_orphans(&mut self) -> Result<usize, String>;

    /// Counts the open descriptors of the peer.
    fn files(&mut self) -> Result<usize, String>;

    /// Counts the names in `/dev/shm`.
    fn names(&mut self) -> Result<usize, String>;

    /// Counts the System V segments of the peer's IPC namespace.
    fn segments(&mut self) -> Result<usize, String>;
}

impl Commands for Peer {
    #[track_caller]
    fn make(&mut self, mechanism: &str, size: usize) -> Result<String, String> {
        self.ask(format!("make {mechanism} {size}"))
    }

    #[track_caller]
    fn make_named(&mut self, name: &str, size: usize) -> Result<(), String> {
        self.execute(format!("posix make {name} {size}"))
    }

    #[track_caller]
    fn open(&mut self, id: &(impl Display + ?Sized)) -> Result<usize, String> {
        self.ask_for(format!("open {id}"))
    }

    #[track_caller]
    fn open_part(&mut self, id: &(impl Display + ?Sized), size: usize) -> Result<usize, String> {
        self.ask_for(format!("open {id} {size}"))
    }

    #[track_caller]
    fn open_from_env(&mut self, name: &str) -> Result<usize, String> {
        self.ask_for(format!("env {name}"))
    }

    #[track_caller]
    fn put(&mut self, offset: usize, byte: u8) -> Result<(), String> {
        self.execute(format!("put {offset} {byte}"))
    }

    #[track_caller]
    fn get(&mut self, offset: usize) -> Result<u8, String> {
        self.ask_for(format!("get {offset}"))
    }

    #[track_caller]
    fn clone_newest(&mut self) -> Result<usize, String> {
        self.ask_for("clone")
    }

    #[track_caller]
    fn drop_newest(&mut self) -> Result<(), String> {
        self.execute("drop")
    }

    #[track_caller]
    fn remove_orphans(&mut self) -> Result<usize, String> {
        self.ask_for("posix remove-orphans")
    }

    #[track_caller]
    fn files(&mut self) -> Result<usize, String> {
        self.ask_for("files")
    }

    #[track_caller]
    fn names(&mut self) -> Result<usize, String> {
        self.ask_for("names")
    }

    #[track_caller]
    fn segments(&mut self) -> Result<usize, String> {
        self.ask_for("segments")
    }
}

/// Attaches until nothing can be attached to any more, and returns the error. `attach` drops what it attaches to.
///
/// A process that another test is starting has copies of the descriptors of this one until it executes its
/// program, which takes a while under valgrind.
#[track_caller]
pub(crate) fn error_when_gone<T, E>(mut attach: impl FnMut() -> Result<T, E>) -> E {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match attach() {
            Err(error) => return error,
            Ok(_) => assert!(Instant::now() < end, "a process holds it"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that these processes, all of which have ended, have left nothing: no System V segment, and none of
/// the segments `ids`.
#[track_caller]
pub(crate) fn assert_nothing_left(pids: &[u32], ids: &[&str]) {
    assert_eq!(system_v_segments(pids), Vec::<String>::new());
    for id in ids {
        assert!(!testkit::name_exists(id), "{id} is left in /dev/shm");
        let opened = StdShMemProvider::default().shmem_from_id(ShMemId::from_string(id));
        assert!(opened.is_err(), "{id} can still be opened");
    }
}

/// Executes commands until there are no more.
pub(crate) fn serve() {
    let mut state = State {
        segments: Vec::new(),
        named: Vec::new(),
        decoy: None,
        others: Vec::new(),
        woken: Arc::default(),
    };
    if !state.serve() {
        return;
    }
    // The main thread ends alone, as by `pthread_exit`, and another thread continues.
    thread::spawn(move || {
        println!("ok ");
        state.serve();
        drop(state);
        std::process::exit(0);
    });
    // SAFETY: nothing on this thread's stack is used by another one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

pub(crate) struct State {
    pub(crate) segments: Vec<StdShMem>,
    /// The creators of segments with a chosen name; `segments` has an attachment of each.
    pub(crate) named: Vec<MmapShMem>,
    /// What a hostile peer has put in the place of a segment.
    pub(crate) decoy: Option<OwnedFd>,
    /// Segments of other providers.
    pub(crate) others: Vec<Box<dyn Any + Send>>,
    /// Set when another process has opened the FIFO of `forged-fifo`.
    pub(crate) woken: Arc<AtomicBool>,
}

impl State {
    /// Executes commands. Returns `true` if the main thread is to end, and `false` if there are no more
    /// commands.
    fn serve(&mut self) -> bool {
        for command in io::stdin().lines().map_while(Result::ok) {
            if command == "leave-main" {
                return true;
            }
            let words: Vec<_> = command.split(' ').collect();
            println!("{}", answer(self.execute(&words)));
        }
        false
    }

    pub(crate) fn execute(&mut self, command: &[&str]) -> Answer {
        match *command {
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
                // SAFETY: this program has a single thread.
                unsafe { self.newest()?.write_to_env(name)? };
                done()
            }
            ["put", offset, byte] => {
                *self.at(offset)? = byte.parse()?;
                done()
            }
            ["get", offset] => Ok(self.at(offset)?.to_string()),
            ["drop"] => {
                let segment = self.segments.pop();
                self.named
                    .retain(|named| Some(named.id()) != segment.as_ref().map(ShMem::id));
                done()
            }
            ["clone"] => {
                let clone = provider("default")?.clone_ref(self.newest()?)?;
                self.hold(clone)
            }
            ["mechanism"] => Ok(format!("{:?}", self.newest()?.mechanism())),
            ["leave-orphans", by, mode, count] => {
                fork::leave_orphans(by, i32::from_str_radix(mode, 8)?, count.parse()?)
            }
            ["posix", ref words @ ..] => posix::execute(self, words),
            ["file", ref words @ ..] => files::execute(words),
            ["sysv", ref words @ ..] => sysv::execute(words),
            ["segments"] => {
                let table = fs::read_to_string("/proc/sysvipc/shm")?;
                Ok((table.lines().count() - 1).to_string())
            }
            ["names"] => Ok(fs::read_dir("/dev/shm")?.count().to_string()),
            ["files"] => Ok(open_files().len().to_string()),
            // Creates and drops segments until it is killed.
            ["churn", mechanism] => loop {
                self.make(mechanism, 65536)?;
                self.segments.clear();
            },
            ["limit", resource, value] => limit(resource, value.parse()?),
            ["lock-all"] => limits::lock_all(),
            ["fill-mappings"] => limits::fill_mappings(),
            ["timer", micros] => timer(micros.parse()?),
            ["undumpable"] => {
                rustix::process::set_dumpable_behavior(
                    rustix::process::DumpableBehavior::NotDumpable,
                )?;
                done()
            }
            ["dumpable"] => {
                rustix::process::set_dumpable_behavior(
                    rustix::process::DumpableBehavior::Dumpable,
                )?;
                done()
            }
            ["user", uid] => lookup::become_user(uid.parse()?),
            ["landlock"] => lookup::restrict(),
            ["own-table"] => lookup::create_in_own_descriptor_table(),
            ["forged-fifo", id] => lookup::forge_fifo(self, id),
            ["woken"] => Ok(self.woken.load(SeqCst).to_string()),
            ["forbid", ref calls @ ..] => forbid(calls),
            ["sharing", ref words @ ..] => sharing::execute(words),
            ["fork", what] => fork::execute(self, what),
            ["init", ref words @ ..] => init::execute(self, words),
            ["daemon", ref words @ ..] => stdio::execute(words),
            ["fd", ref words @ ..] => descriptors::execute(self, words),
            ["inherit", ref words @ ..] => inherit::execute(self, words),
            ["become", what, id] => hostile::replace_segment(self, what, id),
            ["next-shmid", number] => {
                fs::write("/proc/sys/kernel/shm_next_id", number)?;
                done()
            }
            ["shrink"] => hostile::shrink(self.newest()?),
            _ => Err(format!("unknown command {command:?}").into()),
        }
    }

    pub(crate) fn make(&mut self, mechanism: &str, size: usize) -> Answer {
        let segment = provider(mechanism)?.new_shmem(size)?;
        let id = segment.id().to_string();
        self.segments.push(segment);
        Ok(id)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the result of a command")]
    pub(crate) fn hold(&mut self, segment: StdShMem) -> Answer {
        let size = segment.len().to_string();
        self.segments.push(segment);
        Ok(size)
    }

    pub(crate) fn newest(&mut self) -> Result<&mut StdShMem, &'static str> {
        self.segments.last_mut().ok_or("no segment")
    }

    fn at(&mut self, offset: &str) -> Result<&mut u8, Box<dyn Error>> {
        let offset: usize = offset.parse()?;
        Ok(self.newest()?.get_mut(offset).ok_or("no such byte")?)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a command")]
pub(crate) fn done() -> Answer {
    Ok(String::new())
}

/// Returns those of these mechanisms that the host has. The tests of the contract report the others.
pub(crate) fn here(mechanisms: &[&'static str]) -> Vec<&'static str> {
    let is_here = |mechanism: &&str| match provider(mechanism).map(|mut p| p.new_shmem(1)) {
        Ok(Err(error)) => lacking(&error).is_none(),
        _ => true,
    };
    mechanisms.iter().copied().filter(is_here).collect()
}

/// The names of all mechanisms in commands.
pub(crate) const ALL: &[&str] = &["default", "memfd", "sysv", "posix"];

/// The names of the mechanisms whose segments live as long as any holder, also if their creator is killed.
pub(crate) const LASTING: &[&str] = &["default", "memfd", "sysv"];

pub(crate) fn provider(mechanism: &str) -> Result<StdShMemProvider, String> {
    Ok(StdShMemProvider::with_mechanism(match mechanism {
        "default" => return Ok(StdShMemProvider::default()),
        "memfd" => Mechanism::Memfd,
        "sysv" => Mechanism::SystemV,
        "posix" => Mechanism::Posix,
        "file" => Mechanism::File,
        other => return Err(format!("unknown mechanism {other}")),
    }))
}

/// Raises a signal, which is caught, every `micros` microseconds.
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

/// Returns the limit on descriptors that leaves this number of them free.
fn limit_that_leaves(free: u64) -> u64 {
    // SAFETY: the call only reads the flags of a descriptor. If none has that number, it fails by EBADF.
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
        other => return Err(format!("unknown resource {other}").into()),
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
