//! What starting a service does to the program that it is started in: nothing.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::ShMemService;

use super::lifetime::{Place, eventually};
use super::peer::{Answer, host_of};
use testkit::peer::{Peer, can_start_by};
use testkit::{Outcome, natively, skip};

/// A message queue of this process, which nobody else can open.
fn message_queue() -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let name = CString::new(format!("/shmem-test-{}", std::process::id()))?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: the name ends with a zero; no attributes are the usual ones.
    let queue = unsafe {
        libc::mq_open(
            name.as_ptr(),
            flags,
            0o600,
            std::ptr::null::<libc::mq_attr>(),
        )
    };
    if queue < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the name ends with a zero.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    // SAFETY: on Linux it is a descriptor, and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(queue) })
}

/// Asks to be notified. `false` if somebody is already.
fn notify(queue: &OwnedFd) -> Result<bool, io::Error> {
    // SAFETY: all zeros are a value of it.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_NONE;
    // The crate libc does not have the function for every C library.
    // SAFETY: the pointer is valid for reads of an event, which is the kernel's.
    match unsafe { libc::syscall(libc::SYS_mq_notify, queue.as_raw_fd(), &raw const event) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
            error => Err(error),
        },
    }
}

/// What a peer does: whether its notification is there while a service runs, and afterwards.
pub(crate) fn notified(address: &Path) -> Answer {
    let queue = message_queue()?;
    if !notify(&queue)? {
        return Err("somebody else is notified".into());
    }
    let service = ShMemService::start_at(address)?;
    let during = !notify(&queue)?;
    drop(service);
    Ok(format!("{during} {}", !notify(&queue)?))
}

pub(crate) fn notifications_of_message_queues_stay() -> Outcome {
    natively("there may be no message queues")?;
    let place = Place::new()?;
    let mut peer = Peer::start();
    let told = peer.ask(format!("notified {}", place.address.display()));
    match told {
        Err(why) if why.contains("not implemented") => return skip(why),
        told => assert_eq!(told, Ok("true true".into())),
    }
    drop(peer);
    place.assert_nothing_left();
    Ok(())
}

/// `fcntl(2)`, `F_SETLK`: closing any descriptor of the file would release it.
pub(crate) fn record_locks_stay() -> Outcome {
    let place = Place::new()?;
    let mut peer = Peer::start();
    // Another lock, of the kind by which a host is known, where nobody serves.
    let folder = tempfile::tempdir()?;
    let locked = folder.path().join("locked");
    peer.ask(format!("lock {}.lock", locked.display()))?;
    assert_eq!(host_of(&locked), Some(peer.pid()));
    for _ in 0..3 {
        peer.ask(format!("host {}", place.address.display()))?;
        assert_eq!(host_of(&locked), Some(peer.pid()));
        peer.ask("unhost")?;
        assert_eq!(host_of(&locked), Some(peer.pid()));
    }
    drop(peer);
    place.assert_nothing_left();
    Ok(())
}

/// How long the file system below does not answer at most.
const SILENCE: Duration = Duration::from_secs(12);

/// A file system in user space that is served by a process of its own. It ends with that process, and so
/// does the wait of everybody who waits for an answer, whatever becomes of this one.
struct Silent {
    server: libc::pid_t,
}

impl Drop for Silent {
    fn drop(&mut self) {
        // SAFETY: it is a child of this process, and was not waited for.
        unsafe { libc::kill(self.server, libc::SIGKILL) };
        // SAFETY: the status is not asked for.
        unsafe { libc::waitpid(self.server, std::ptr::null_mut(), 0) };
    }
}

/// Mounts a file system that answers when it is opened, and not soon when it is closed: a single file, or a
/// folder in which nothing is found soon.
fn mount_silent(place: &Path, is_folder: bool) -> Result<Silent, Box<dyn std::error::Error>> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mode = if is_folder { "40000" } else { "100000" };
    let number = device.as_raw_fd();
    let options = CString::new(format!("fd={number},rootmode={mode},user_id=0,group_id=0"))?;
    let target = CString::new(place.as_os_str().as_encoded_bytes())?;
    // SAFETY: all strings end with a zero.
    let mounted = unsafe {
        libc::mount(
            c"silent".as_ptr(),
            target.as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    if mounted != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the child uses nothing that another thread could have been changing: there is none that
    // matters to it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            // It ends with its parent, and after a minute at the latest.
            // SAFETY: no memory is concerned.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::alarm(60) };
            let _ = serve_silently(device, is_folder);
            // SAFETY: the process ends without looking back.
            unsafe { libc::_exit(0) }
        }
        server => Ok(Silent { server }),
    }
}

fn serve_silently(mut device: File, is_folder: bool) -> io::Result<()> {
    const INIT: u32 = 26;
    const OPEN: u32 = 14;
    const GETATTR: u32 = 3;
    let mut request = vec![0; 1 << 17];
    loop {
        let len = device.read(&mut request)?;
        assert!(len >= 40);
        let word = |place: usize| u32::from_ne_bytes(request[place..place + 4].try_into().unwrap());
        let opcode = word(4);
        let unique: [u8; 8] = request[8..16].try_into().unwrap();
        let (error, body) = match opcode {
            INIT => {
                let mut init = vec![0; 64];
                init[..4].copy_from_slice(&7_u32.to_ne_bytes());
                init[4..8].copy_from_slice(&31_u32.to_ne_bytes());
                init[20..24].copy_from_slice(&4096_u32.to_ne_bytes());
                (0, init)
            }
            OPEN => (0, vec![0; 16]),
            GETATTR => {
                let mut attributes = vec![0; 104];
                let mode: u32 = if is_folder { 0o40755 } else { 0o100_644 };
                attributes[76..80].copy_from_slice(&mode.to_ne_bytes());
                attributes[80..84].copy_from_slice(&1_u32.to_ne_bytes());
                (0, attributes)
            }
            _ => {
                thread::sleep(SILENCE);
                (-libc::EIO, Vec::new())
            }
        };
        let len = u32::try_from(16 + body.len()).unwrap();
        let head = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &unique].concat();
        // It is not asked any more, if that fails.
        device.write_all(&[head, body].concat())?;
    }
}

/// What a peer does: starts a service while it has a file open that does not get closed soon.
pub(crate) fn beside_silent_file(address: &Path) -> Answer {
    let place = std::env::temp_dir().join(format!("shmem-silent-{}", std::process::id()));
    File::create(&place)?;
    let mounted = mount_silent(&place, false);
    let told = mounted.and_then(|silent| {
        let file = File::open(&place)?;
        let start = Instant::now();
        let service = ShMemService::start_at(address)?;
        drop(service);
        let time = start.elapsed();
        drop(silent);
        drop(file);
        Ok(time.as_millis().to_string())
    });
    detach(&place)?;
    fs::remove_file(&place)?;
    told
}

/// What a peer does: starts a service in a folder that does not answer.
pub(crate) fn in_silent_folder() -> Answer {
    let place = std::env::temp_dir().join(format!("shmem-silent-{}", std::process::id()));
    fs::create_dir(&place)?;
    let mounted = mount_silent(&place, true);
    let told = mounted.and_then(|_silent| {
        let start = Instant::now();
        let error = ShMemService::start_at(place.join("service")).err();
        let time = start.elapsed();
        let error = error.ok_or("it serves there")?;
        Ok(format!("{} {error}", time.as_millis()))
    });
    detach(&place)?;
    // A thread that gets through only now may have looked for its place there.
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir(&place) {
        if Instant::now() > end {
            return Err(error.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    told
}

fn detach(place: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let target = CString::new(place.as_os_str().as_encoded_bytes())?;
    // SAFETY: the string ends with a zero.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    Ok(())
}

/// A peer that can mount what nobody else sees.
fn peer_that_mounts() -> Outcome<Peer> {
    natively("there are no namespaces")?;
    let wrapper = ["unshare", "--mount"];
    can_start_by(&wrapper)?;
    if let Err(error) = File::open("/dev/fuse") {
        return skip(format!("/dev/fuse: {error}"));
    }
    Ok(Peer::start_by(&wrapper))
}

pub(crate) fn start_does_not_wait_for_a_silent_file() -> Outcome {
    let mut peer = peer_that_mounts()?;
    let place = Place::new()?;
    let told = peer.ask(format!("beside-silent {}", place.address.display()))?;
    let time: u128 = told.parse()?;
    assert!(time < 6000, "{time} ms");
    drop(peer);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn start_in_a_silent_directory_is_an_error() -> Outcome {
    let mut peer = peer_that_mounts()?;
    let place = Place::new()?;
    let before = peer.ask("files")?;
    let told = peer.ask("in-silent")?;
    let (time, error) = told.split_once(' ').ok_or("two words")?;
    assert!(time.parse::<u128>()? < 8000, "{told}");
    assert!(error.contains("in time"), "{told}");
    // When the thread gets through after all, it ends, and nothing of it is left.
    thread::sleep(SILENCE);
    let order = format!("host {}", place.address.display());
    peer.ask(order)?;
    peer.ask("unhost")?;
    eventually(&mut peer, "files", &before);
    drop(peer);
    place.assert_nothing_left();
    Ok(())
}
