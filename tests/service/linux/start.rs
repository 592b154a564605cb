//! Starting a service does not disturb the program that it is started in.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shmem_providers::ShMemService;

use super::lifetime::{TestDir, eventually_has_files};
use super::peer::{Answer, Commands, host_of};
use testkit::peer::{Peer, can_start_by};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, natively, skip};

/// Creates a message queue of this process, whose name is removed.
fn message_queue() -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let name = CString::new(format!("/shmem-test-{}", std::process::id()))?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: the name ends with a zero, and the attributes may be null.
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
    // SAFETY: on Linux a queue is a descriptor, and this one is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(queue) })
}

/// Registers for a notification. Returns `false` if there is a registration already.
fn notify(queue: &OwnedFd) -> Result<bool, io::Error> {
    // SAFETY: all zeros are a valid value of this type.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_NONE;
    // The crate libc does not have the function for every C library.
    // SAFETY: the pointer is valid for reads of the kernel's `sigevent`.
    match unsafe { libc::syscall(libc::SYS_mq_notify, queue.as_raw_fd(), &raw const event) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
            error => Err(error),
        },
    }
}

/// What a peer does: returns whether its registration exists while a service runs, and afterwards.
pub(crate) fn notified(address: &Path) -> Answer {
    let queue = message_queue()?;
    if !notify(&queue)? {
        return Err("the queue has a registration already".into());
    }
    let service = ShMemService::start_at(address)?;
    let during = !notify(&queue)?;
    drop(service);
    Ok(format!("{during} {}", !notify(&queue)?))
}

pub(crate) fn notifications_of_message_queues_stay() -> Outcome {
    natively("where there may be no message queues")?;
    let dir = TestDir::new()?;
    let mut peer = Peer::start();
    match peer.ask(format!("notified {}", dir.address.display())) {
        Err(reason) if reason.contains("not implemented") => return skip(reason),
        answer => assert_eq!(answer, Ok("true true".into())),
    }
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

/// Closing any descriptor of the file would release the lock (`fcntl(2)`, `F_SETLK`).
pub(crate) fn record_locks_stay() -> Outcome {
    let dir = TestDir::new()?;
    let mut peer = Peer::start();
    // A lock like that of a service, where there is no service.
    let directory = tempfile::tempdir()?;
    let locked = directory.path().join("locked");
    peer.execute(format!("lock {}.lock", locked.display()))?;
    assert_eq!(host_of(&locked), Some(peer.pid()));
    for _ in 0..3 {
        peer.serve_at(&dir.address)?;
        assert_eq!(host_of(&locked), Some(peer.pid()));
        peer.stop_serving()?;
        assert_eq!(host_of(&locked), Some(peer.pid()));
    }
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

/// The service has to watch its socket, which `fs.epoll.max_user_watches` limits.
pub(crate) fn too_many_watches_is_an_error_that_names_the_limit() -> Outcome {
    if cfg!(shmem_apple_rules) {
        return skip("other systems have no epoll");
    }
    let dir = TestDir::new()?;
    let mut peer = Peer::start();
    forbid_in(&mut peer, "ENOSPC", "epoll_ctl")?;
    let error = peer.serve_at(&dir.address).expect_err("nothing is watched");
    assert!(error.contains("fs.epoll.max_user_watches is "), "{error}");
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

/// How long a silent file system delays an answer.
const SILENCE: Duration = Duration::from_secs(12);

/// The server of a file system in user space. When this process ends, so do the file system and all calls
/// that wait for it.
struct Silent {
    server: libc::pid_t,
}

impl Drop for Silent {
    fn drop(&mut self) {
        // SAFETY: the call accesses no memory. The number is that of our child, which was not waited for.
        unsafe { libc::kill(self.server, libc::SIGKILL) };
        // SAFETY: the pointer to the status may be null.
        unsafe { libc::waitpid(self.server, std::ptr::null_mut(), 0) };
    }
}

/// Mounts a file system that delays most answers: a single file, which opens at once and takes long to
/// close, or a directory, in which a lookup takes long.
fn mount_silent(path: &Path, is_directory: bool) -> Result<Silent, Box<dyn std::error::Error>> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mode = if is_directory { "40000" } else { "100000" };
    let number = device.as_raw_fd();
    let options = CString::new(format!("fd={number},rootmode={mode},user_id=0,group_id=0"))?;
    let target = CString::new(path.as_os_str().as_encoded_bytes())?;
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
    // SAFETY: the peer has no other thread that changes what the child uses.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            // The server ends with its parent, and after a minute at the latest.
            // SAFETY: the call accesses no memory.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: the call has no preconditions.
            unsafe { libc::alarm(60) };
            let _ = serve_silently(device, is_directory);
            // SAFETY: the call has no preconditions.
            unsafe { libc::_exit(0) }
        }
        server => Ok(Silent { server }),
    }
}

/// Answers the requests of `fuse(4)`.
fn serve_silently(mut device: File, is_directory: bool) -> io::Result<()> {
    const INIT: u32 = 26;
    const OPEN: u32 = 14;
    const GETATTR: u32 = 3;
    let mut request = vec![0; 1 << 17];
    loop {
        let len = device.read(&mut request)?;
        assert!(len >= 40);
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
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
                let mode: u32 = if is_directory { 0o40755 } else { 0o100_644 };
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
        // This fails once the file system is gone.
        device.write_all(&[head, body].concat())?;
    }
}

/// What a peer does: starts a service while it has a file open that takes long to close. Returns the time that
/// start and stop take, in milliseconds.
pub(crate) fn beside_silent_file(address: &Path) -> Answer {
    let path = std::env::temp_dir().join(format!("shmem-silent-{}", std::process::id()));
    File::create(&path)?;
    let mounted = mount_silent(&path, false);
    let answer = mounted.and_then(|silent| {
        let file = File::open(&path)?;
        let start = Instant::now();
        let service = ShMemService::start_at(address)?;
        drop(service);
        let time = start.elapsed();
        drop(silent);
        drop(file);
        Ok(time.as_millis().to_string())
    });
    detach(&path)?;
    fs::remove_file(&path)?;
    answer
}

/// What a peer does: starts a service in a silent directory. Returns the time until the error, in milliseconds,
/// and the error.
pub(crate) fn in_silent_directory() -> Answer {
    let path = std::env::temp_dir().join(format!("shmem-silent-{}", std::process::id()));
    fs::create_dir(&path)?;
    let mounted = mount_silent(&path, true);
    let answer = mounted.and_then(|_silent| {
        let start = Instant::now();
        let error = ShMemService::start_at(path.join("service")).err();
        let time = start.elapsed();
        let error = error.ok_or("a service has started there")?;
        Ok(format!("{} {error}", time.as_millis()))
    });
    detach(&path)?;
    // The service's thread, which may get its answer only now, uses the directory until it ends.
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir(&path) {
        if Instant::now() > end {
            return Err(error.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    answer
}

fn detach(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let target = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the string ends with a zero.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    Ok(())
}

/// Starts a peer in a mount namespace of its own.
fn peer_that_mounts() -> Outcome<Peer> {
    natively("which has no namespaces")?;
    let wrapper = ["unshare", "--mount"];
    can_start_by(&wrapper)?;
    if let Err(error) = File::open("/dev/fuse") {
        return skip(format!("/dev/fuse: {error}"));
    }
    Ok(Peer::start_by(&wrapper))
}

pub(crate) fn start_does_not_wait_for_a_silent_file() -> Outcome {
    let mut peer = peer_that_mounts()?;
    let dir = TestDir::new()?;
    let time: u128 = peer.ask_for(format!("beside-silent {}", dir.address.display()))?;
    assert!(time < 6000, "{time} ms");
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn start_in_a_silent_directory_is_an_error() -> Outcome {
    let mut peer = peer_that_mounts()?;
    let dir = TestDir::new()?;
    let before = peer.files()?;
    let answer = peer.ask("in-silent")?;
    let (time, error) = answer.split_once(' ').ok_or("there is no error")?;
    assert!(time.parse::<u128>()? < 8000, "{answer}");
    assert!(error.contains("in time"), "{answer}");
    // When the thread gets an answer after all, it ends and leaves nothing.
    thread::sleep(SILENCE);
    peer.serve_at(&dir.address)?;
    peer.stop_serving()?;
    eventually_has_files(&mut peer, before);
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}
