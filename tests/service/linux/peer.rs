//! What the second process does.
//!
//! ```text
//! at PATH                   ok               the address from now on
//! make SIZE                 ok ID            the segment becomes the newest
//! open ID                   ok SIZE          the segment becomes the newest
//! put OFFSET BYTE           ok               of the newest
//! get OFFSET                ok BYTE          of the newest
//! drop                      ok               the newest
//! host PATH                 ok               serves there
//! unhost                    ok               stops
//! cd PATH                   ok               changes the working directory
//! secure                    ok 0 or 1        whether the kernel says that it has more rights than its user
//! user UID                  ok               becomes another user
//! read PATH                 ok TEXT          opens and closes a file
//! root PATH                 ok               changes the root directory
//! exit                                       as `exit(0)` does, while a service is running
//! limit COUNT               ok               descriptors that it may have from now on
//! files                     ok COUNT         descriptors of all threads together
//! …
//! ```
#![allow(unsafe_code)]

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit, setrlimit};
use shmem_providers::{
    MemfdBackend, ServedShMem, ServedShMemProvider, ShMem, ShMemId, ShMemProvider, ShMemService,
};

use super::attack::attackers::attack;
use super::attack::knock;
use super::attack::slow::pretend;
use super::{fork, start};
use testkit::seccomp::forbid;

/// What a command comes to.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

pub(crate) type Provider = ServedShMemProvider<MemfdBackend>;
pub(crate) type Segment = ServedShMem<MemfdBackend>;

/// What a peer has.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) segments: Vec<Segment>,
    pub(crate) provider: Provider,
    service: Option<ShMemService>,
}

/// What the second process does until its orders end.
pub(crate) fn serve() {
    let mut state = State::default();
    for order in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = order.split(' ').collect();
        match state.obey(&words) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("err {error}"),
        }
    }
}

impl State {
    fn obey(&mut self, order: &[&str]) -> Answer {
        match *order {
            ["at", path] => self.provider = Provider::at(path),
            ["make", size] => return self.make(size.parse()?),
            ["open", id] => {
                let segment = self.provider.shmem_from_id(ShMemId::from_string(id))?;
                let size = segment.len();
                self.segments.push(segment);
                return Ok(size.to_string());
            }
            ["try", id] => {
                self.provider.shmem_from_id(ShMemId::from_string(id))?;
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
                // SAFETY: no memory is involved.
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
                // SAFETY: no preconditions.
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
            // Until killed: makes, opens and drops segments, and says so if something is wrong.
            ["churn", path] => loop {
                let other = &mut Provider::at(path);
                for _ in 0..100 {
                    let mut made = self.provider.new_shmem(4096)?;
                    made[4095] = 1;
                    assert_eq!(other.shmem_from_id(made.id())?[4095], 1);
                }
            },
            ["forbid", ref calls @ ..] => return forbid(calls),
            ["fork", what] => return fork::obey(self, what),
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
            ["in-silent"] => return start::in_silent_folder(),
            ["threads"] => return threads(),
            ["memory"] => return memory(),
            ["knock", path] => return knock(path),
            ["wait"] => thread::sleep(Duration::from_millis(100)),
            _ => return Err(format!("unknown order {order:?}").into()),
        }
        Ok(String::new())
    }

    pub(crate) fn make(&mut self, size: usize) -> Answer {
        let segment = self.provider.new_shmem(size)?;
        let id = segment.id().to_string();
        self.segments.push(segment);
        Ok(id)
    }

    /// So many threads make a segment at once.
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
        Ok(format!("{failed} failed"))
    }

    fn newest(&mut self) -> Result<&mut Segment, &'static str> {
        self.segments.last_mut().ok_or("no segment")
    }
}

/// The names of the threads of this process.
fn threads() -> Answer {
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        // It may have ended meanwhile.
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.push(name.trim().to_owned());
    }
    Ok(names.join(" "))
}

/// How much memory this process has, in KiB.
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

/// The descriptors of this process, those of threads that have a table of their own included, but not
/// what the standard streams lead to.
fn files() -> Result<Vec<OpenFile>, Box<dyn Error>> {
    let mut tables: Vec<Vec<(String, String)>> = Vec::new();
    // Threads end and descriptors are closed while this looks: what is gone is passed over.
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        let mut table = Vec::new();
        let folder = task.path();
        let Ok(entries) = fs::read_dir(folder.join("fd")) else {
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
            let Ok(info) = fs::read_to_string(folder.join("fdinfo").join(&number)) else {
                continue;
            };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            table.push((link, flags.unwrap_or_default().trim().to_owned()));
        }
        table.sort();
        // Threads that share a table show the same.
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

/// The process that serves at this address, as the lock tells.
pub(crate) fn host_of(address: &Path) -> Option<u32> {
    let lock = fs::File::open(format!("{}.lock", address.display())).ok()?;
    // rustix has no `F_GETLK`.
    // SAFETY: all zeros are a value of it.
    let mut found: libc::flock = unsafe { std::mem::zeroed() };
    found.l_type = libc::c_short::try_from(libc::F_WRLCK).ok()?;
    // SAFETY: the pointer is valid for reads and writes of a lock.
    let asked = unsafe { libc::fcntl(lock.as_raw_fd(), libc::F_GETLK, &raw mut found) };
    (asked == 0 && found.l_pid > 0).then(|| found.l_pid.unsigned_abs())
}
