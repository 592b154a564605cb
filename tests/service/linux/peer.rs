//! The second process: a client or a host that executes commands, line by line.
//!
//! ```text
//! at PATH                   ok               uses this address from now on
//! make SIZE                 ok ID            creates a segment, which becomes the newest
//! open ID                   ok SIZE          attaches to a segment, which becomes the newest
//! try ID                    ok               attaches to a segment and drops it
//! put OFFSET BYTE           ok               writes to the newest
//! get OFFSET                ok BYTE          reads from the newest
//! drop                      ok               drops the newest
//! host PATH                 ok               starts a service at this address
//! unhost                    ok               stops it
//! cd PATH                   ok               changes the working directory
//! secure                    ok 0 or 1        `AT_SECURE`: whether it has more privileges than its caller
//! user UID                  ok               becomes another user
//! read PATH                 ok TEXT          opens, reads and closes a file
//! root PATH                 ok               changes the root directory
//! exit                                       calls `exit(0)`, without dropping anything
//! limit COUNT               ok               limits its descriptors
//! files                     ok COUNT         counts the descriptors of all its threads
//! …
//! ```
//!
//! [`Commands`] has the common commands as methods.
#![allow(unsafe_code)]

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::{fs, thread};

use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit, setrlimit};
use shmem_providers::{
    MemfdBackend, ServedShMem, ServedShMemProvider, ShMem, ShMemId, ShMemProvider, ShMemService,
};

use super::attack::attackers::attack;
use super::attack::probe;
use super::attack::slow::pretend;
use super::{fork, single_writer, start};
use testkit::peer::{self, Peer};
use testkit::seccomp::forbid;

/// The result of a command in the peer.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// The common commands. Rare ones are sent as text.
pub(crate) trait Commands {
    /// Uses the service at this address from now on.
    fn use_address(&mut self, address: &Path) -> Result<(), String>;

    /// Returns the address that is used.
    fn address(&mut self) -> Result<String, String>;

    /// Creates a segment and returns its id.
    fn make(&mut self, size: usize) -> Result<String, String>;

    /// Attaches to a segment and returns its size.
    fn open(&mut self, id: &(impl Display + ?Sized)) -> Result<usize, String>;

    /// Attaches to a segment and drops it.
    fn try_open(&mut self, id: &(impl Display + ?Sized)) -> Result<(), String>;

    /// Writes a byte of the newest segment.
    fn put(&mut self, offset: usize, byte: u8) -> Result<(), String>;

    /// Reads a byte of the newest segment.
    fn get(&mut self, offset: usize) -> Result<u8, String>;

    /// Drops the newest segment.
    fn drop_newest(&mut self) -> Result<(), String>;

    /// Starts a service at this address.
    fn serve_at(&mut self, address: &Path) -> Result<(), String>;

    /// Stops the service.
    fn stop_serving(&mut self) -> Result<(), String>;

    /// Changes the working directory.
    fn change_directory(&mut self, directory: &Path) -> Result<(), String>;

    /// Counts the open descriptors of the peer.
    fn files(&mut self) -> Result<usize, String>;
}

impl Commands for Peer {
    #[track_caller]
    fn use_address(&mut self, address: &Path) -> Result<(), String> {
        self.execute(format!("at {}", address.display()))
    }

    #[track_caller]
    fn address(&mut self) -> Result<String, String> {
        self.ask("address")
    }

    #[track_caller]
    fn make(&mut self, size: usize) -> Result<String, String> {
        self.ask(format!("make {size}"))
    }

    #[track_caller]
    fn open(&mut self, id: &(impl Display + ?Sized)) -> Result<usize, String> {
        self.ask_for(format!("open {id}"))
    }

    #[track_caller]
    fn try_open(&mut self, id: &(impl Display + ?Sized)) -> Result<(), String> {
        self.execute(format!("try {id}"))
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
    fn drop_newest(&mut self) -> Result<(), String> {
        self.execute("drop")
    }

    #[track_caller]
    fn serve_at(&mut self, address: &Path) -> Result<(), String> {
        self.execute(format!("host {}", address.display()))
    }

    #[track_caller]
    fn stop_serving(&mut self) -> Result<(), String> {
        self.execute("unhost")
    }

    #[track_caller]
    fn change_directory(&mut self, directory: &Path) -> Result<(), String> {
        self.execute(format!("cd {}", directory.display()))
    }

    #[track_caller]
    fn files(&mut self) -> Result<usize, String> {
        self.ask_for("files")
    }
}

pub(crate) type Provider = ServedShMemProvider<MemfdBackend>;
pub(crate) type Segment = ServedShMem<MemfdBackend>;

/// The state of a peer.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) segments: Vec<Segment>,
    pub(crate) provider: Provider,
    service: Option<ShMemService>,
    single_writer: single_writer::Held,
}

/// Executes commands until there are no more.
pub(crate) fn serve() {
    let mut state = State::default();
    peer::serve(|command| state.execute(command));
}

impl State {
    fn execute(&mut self, command: &[&str]) -> Answer {
        match *command {
            ["at", path] => self.provider = Provider::at(path),
            ["make", size] => return self.make(size.parse()?),
            ["open", id] => {
                let segment = self.provider.shmem_from_id(ShMemId::from_string(id))?;
                let size = segment.len();
                self.segments.push(segment);
                return Ok(size.to_string());
            }
            ["try", id] => {
                let _ = self.provider.shmem_from_id(ShMemId::from_string(id))?;
            }
            ["put", offset, byte] => self
                .newest()?
                .access()
                .write_at(offset.parse()?, &[byte.parse()?])?,
            ["get", offset] => {
                let mut byte = [0];
                self.newest()?
                    .access()
                    .read_at(offset.parse()?, &mut byte)?;
                return Ok(byte[0].to_string());
            }
            ["drop"] => drop(self.segments.pop()),
            ["host", path] => self.service = Some(ShMemService::start_at(path)?),
            ["host"] => self.service = Some(ShMemService::start()?),
            ["limit", files] => {
                let mut limit = getrlimit(Resource::Nofile);
                limit.current = Some(files.parse()?);
                setrlimit(Resource::Nofile, limit)?;
            }
            ["unhost"] => self.service = None,
            ["cd", path] => std::env::set_current_dir(path)?,
            ["user", user] => {
                // SAFETY: the call accesses no memory.
                if unsafe { libc::setuid(user.parse()?) } != 0 {
                    return Err(io::Error::last_os_error().into());
                }
            }
            ["read", path] => return Ok(fs::read_to_string(path)?),
            ["root", path] => {
                rustix::process::chroot(path)?;
                std::env::set_current_dir("/")?;
            }
            ["secure"] => {
                // SAFETY: the call has no preconditions.
                return Ok(unsafe { libc::getauxval(libc::AT_SECURE) }.to_string());
            }
            ["exit"] => std::process::exit(0),
            ["address"] => return Ok(self.provider.address()?.display().to_string()),
            ["files"] => return Ok(files()?.len().to_string()),
            ["inherited"] => {
                let inherited = files()?.into_iter().filter(|file| !file.close_on_exec);
                let links: Vec<_> = inherited.map(|file| file.link).collect();
                return Ok(links.join(" "));
            }
            ["mappings"] => {
                let maps = fs::read_to_string("/proc/self/maps")?;
                let of_segments = maps.lines().filter(|line| line.contains("/memfd:shmem-"));
                return Ok(of_segments.count().to_string());
            }
            // Creates, opens and drops segments until it is killed. Panics if a segment is wrong.
            ["churn", path] => loop {
                let other = &mut Provider::at(path);
                for _ in 0..100 {
                    let mut made = self.provider.new_shmem(4096)?;
                    made[4095] = 1;
                    assert_eq!(other.shmem_from_id(made.id())?[4095], 1);
                }
            },
            ["forbid", ref calls @ ..] => return forbid(calls),
            ["fork", what] => return fork::execute(self, what),
            ["attack", how, path] => return attack(how, Path::new(path)),
            ["pretend", how, path] => return pretend(how, Path::new(path)),
            ["crowd", count] => return self.crowd(count.parse()?),
            ["full"] => {
                while let Ok(file) = fs::File::open("/dev/null") {
                    std::mem::forget(file);
                }
            }
            ["lock", path] => lock(path)?,
            ["notified", path] => return start::notified(Path::new(path)),
            ["beside-silent", path] => return start::beside_silent_file(Path::new(path)),
            ["in-silent"] => return start::in_silent_directory(),
            ["single-writer", ref command @ ..] => {
                let address = self.provider.address()?;
                return single_writer::execute(&mut self.single_writer, &address, command);
            }
            ["threads"] => return threads(),
            ["memory"] => return memory(),
            ["probe", path] => return probe(Path::new(path)),
            _ => return Err(format!("unknown command {command:?}").into()),
        }
        Ok(String::new())
    }

    pub(crate) fn make(&mut self, size: usize) -> Answer {
        let segment = self.provider.new_shmem(size)?;
        let id = segment.id().to_string();
        self.segments.push(segment);
        Ok(id)
    }

    /// Creates a segment on each of `count` threads at the same time. Returns how many of them failed.
    fn crowd(&mut self, count: usize) -> Answer {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let mut provider = self.provider.clone();
                thread::spawn(move || provider.new_shmem(100).is_err())
            })
            .collect();
        let mut failed = 0;
        for thread in threads {
            failed += usize::from(thread.join().map_err(|_| "a panic")?);
        }
        Ok(failed.to_string())
    }

    fn newest(&mut self) -> Result<&mut Segment, &'static str> {
        self.segments.last_mut().ok_or("no segment")
    }
}

/// Returns the names of the threads of this process.
fn threads() -> Answer {
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        // The thread may have ended.
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.push(name.trim().to_owned());
    }
    Ok(names.join(" "))
}

/// Returns the resident memory of this process in KiB.
fn memory() -> Answer {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").to_owned())
}

struct OpenFile {
    link: String,
    close_on_exec: bool,
}

/// Returns the descriptors of this process, including those of threads that have a table of their own, but
/// not the standard streams.
fn files() -> Result<Vec<OpenFile>, Box<dyn Error>> {
    let mut tables: Vec<Vec<(String, String)>> = Vec::new();
    // Threads end and descriptors are closed at the same time, so what does not exist any more is skipped.
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        let mut table = Vec::new();
        let directory = task.path();
        let Ok(entries) = fs::read_dir(directory.join("fd")) else {
            continue;
        };
        for entry in entries.flatten() {
            let number = entry.file_name().to_string_lossy().into_owned();
            let Ok(link) = fs::read_link(entry.path()) else {
                continue;
            };
            let link = link.display().to_string();
            if number.len() == 1 && "012".contains(&number) || link.starts_with("/proc/") {
                continue;
            }
            let Ok(info) = fs::read_to_string(directory.join("fdinfo").join(&number)) else {
                continue;
            };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            table.push((link, flags.unwrap_or_default().trim().to_owned()));
        }
        table.sort();
        // Threads that share a table list the same descriptors.
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    let open = tables.into_iter().flatten().map(|(link, flags)| {
        let flags = u32::from_str_radix(&flags, 8).unwrap_or(0);
        OpenFile {
            link,
            close_on_exec: flags & OFlags::CLOEXEC.bits() != 0,
        }
    });
    Ok(open.collect())
}

/// Locks a file until this process ends.
fn lock(path: &str) -> Result<(), Box<dyn Error>> {
    let file = fs::File::create(path)?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::fcntl_lock(&file, exclusive)?;
    std::mem::forget(file);
    Ok(())
}

/// Returns the number of the process that serves at this address: the owner of the lock.
pub(crate) fn host_of(address: &Path) -> Option<u32> {
    let lock = fs::File::open(format!("{}.lock", address.display())).ok()?;
    // rustix has no `F_GETLK`.
    // SAFETY: all zeros are a valid value of this type.
    let mut found: libc::flock = unsafe { std::mem::zeroed() };
    found.l_type = libc::c_short::try_from(libc::F_WRLCK).ok()?;
    // SAFETY: the pointer is valid for reads and writes of a `flock`.
    let done = unsafe { libc::fcntl(lock.as_raw_fd(), libc::F_GETLK, &raw mut found) };
    (done == 0 && found.l_pid > 0).then(|| found.l_pid.unsigned_abs())
}
