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
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{
    Mechanism, MmapShMem, ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider,
};

use super::{fork, hostile, init, limits, lookup, posix, stdio, sysv};
pub(crate) use testkit::peer::*;
use testkit::seccomp::forbid;
use testkit::{lacking, open_files, system_v_segments};

/// What a command comes to.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// Checks that these processes, all of them ended, have left nothing: no System V segment, and no
/// name among `ids`.
#[track_caller]
pub(crate) fn assert_nothing_left(pids: &[u32], ids: &[&str]) {
    assert_eq!(system_v_segments(pids), Vec::<String>::new());
    for id in ids {
        assert!(!testkit::name_exists(id), "{id} is left in /dev/shm");
        let opened = StdShMemProvider::default().shmem_from_id(ShMemId::from_string(id));
        assert!(opened.is_err(), "{id} can still be opened");
    }
}

/// What the second process does until its orders end.
pub(crate) fn serve() {
    let mut state = State {
        segments: Vec::new(),
        named: Vec::new(),
        lies: None,
        woken: Arc::default(),
    };
    if !state.serve() {
        return;
    }
    // Another thread goes on, and the main thread ends by itself, as by `pthread_exit`.
    std::thread::spawn(move || {
        println!("ok ");
        state.serve();
        // The process ends with it, and drops what it holds.
        drop(state);
        std::process::exit(0);
    });
    // SAFETY: nothing on this thread's stack is used by another one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

pub(crate) struct State {
    pub(crate) segments: Vec<StdShMem>,
    /// Those with a chosen name; `segments` has each of them as well.
    pub(crate) named: Vec<MmapShMem>,
    /// What a hostile peer has put in the place of a segment.
    pub(crate) lies: Option<OwnedFd>,
    /// Whether somebody has opened the FIFO that a hostile peer has put in the place of a segment.
    pub(crate) woken: Arc<AtomicBool>,
}

impl State {
    /// Obeys until the orders end, or until the main thread is to end: then returns `true`.
    fn serve(&mut self) -> bool {
        for order in io::stdin().lines().map_while(Result::ok) {
            if order == "leave-main" {
                return true;
            }
            let words: Vec<_> = order.split(' ').collect();
            match self.obey(&words) {
                Ok(text) => println!("ok {text}"),
                Err(error) => println!("err {error}"),
            }
        }
        false
    }

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
            ["litter", by, mode, count] => {
                fork::litter(by, i32::from_str_radix(mode, 8)?, count.parse()?)
            }
            ["posix", ref words @ ..] => posix::obey(self, words),
            ["sysv", ref words @ ..] => sysv::obey(words),
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
            ["own-table"] => lookup::in_a_table_of_its_own(self),
            ["forged-fifo", id] => lookup::forge_a_fifo(self, id),
            ["woken"] => Ok(self.woken.load(SeqCst).to_string()),
            ["forbid", ref calls @ ..] => forbid(calls),
            ["fork", what] => fork::obey(self, what),
            ["init", ref what @ ..] => init::obey(self, what),
            ["daemon", ref what @ ..] => stdio::obey(what),
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
    pub(crate) fn hold(&mut self, segment: StdShMem) -> Answer {
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
