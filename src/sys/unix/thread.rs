//! Threads of ours in other people's processes: they take no signals, and need not share the
//! descriptors.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::ffi::{CStr, c_void};
use core::mem::{self, MaybeUninit};
use core::panic::AssertUnwindSafe;
use core::ptr;
use std::panic;

use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};

/// A thread that goes on by itself when this is dropped.
///
/// Why not one of the standard library? Because those take a lock of the whole process when they start
/// and when they end (`std::sys::…::stack_overflow::thread_info`). If another thread has that lock
/// while the process forks, nobody ever opens it in the child, and there the next thread would wait for
/// ever. With bare ones, a child of a program with threads can be a client and host the service.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: libc::pthread_t,
}

// SAFETY: `pthread_t` is a name for the thread, which any thread may use (POSIX).
unsafe impl Send for Thread {}
// SAFETY: nothing is done through a reference.
unsafe impl Sync for Thread {}

/// What a new thread is given.
struct Start {
    name: &'static CStr,
    work: Box<dyn FnOnce() + Send>,
}

/// Starts a thread that no signal is delivered to: the program's handlers belong to its own
/// threads. If the work panics, the thread ends.
///
/// Of the name, systems show 15 characters.
pub(crate) fn spawn(
    name: &'static CStr,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    /// In bytes. Where it does not do, because the program has more than that in variables of each
    /// thread, the system chooses.
    const STACK: usize = 256 << 10;
    let work = Box::new(work);
    let start = Box::into_raw(Box::new(Start { name, work })).cast();
    let created = create(STACK, start).or_else(|errno| match errno {
        Errno::INVAL => create(0, start),
        _ => Err(errno),
    });
    if created.is_err() {
        // SAFETY: it came from a box, and no thread has it.
        drop(unsafe { Box::from_raw(start.cast::<Start>()) });
    }
    created
}

/// Starts a thread with a stack of so many bytes, or as many as is usual here, for 0. Only if there is
/// one, `start` belongs to it.
fn create(stack: usize, start: *mut c_void) -> io::Result<Thread> {
    let checked = |code| match code {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the pointer is valid for the write of attributes.
    checked(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    let sized = if stack == 0 {
        Ok(())
    } else {
        // SAFETY: they are initialised.
        checked(unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack) })
    };
    let mut handle = MaybeUninit::uninit();
    let created = sized.and_then(|()| {
        // SAFETY: the attributes are initialised, the handle is valid for a write, and `begin` takes
        // what `start` is.
        checked(unsafe {
            libc::pthread_create(handle.as_mut_ptr(), attributes.as_ptr(), begin, start)
        })
    });
    // SAFETY: they are initialised, and not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    created.map(|()| Thread {
        // SAFETY: there is a thread, so its handle was written.
        handle: unsafe { handle.assume_init() },
    })
}

/// What a new thread does.
extern "C" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: it came from a box in `spawn`, which leaves it to this thread.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    block_signals();
    set_name(start.name);
    // The hook of the program has told of a panic, and nobody asks for the result.
    let _ = panic::catch_unwind(AssertUnwindSafe(start.work));
    ptr::null_mut()
}

impl Thread {
    /// Waits until it has ended.
    pub(crate) fn join(self) {
        // SAFETY: the thread was neither joined nor detached: this is the only handle, and it is given
        // up below.
        unsafe { libc::pthread_join(self.handle, ptr::null_mut()) };
        mem::forget(self);
    }

    /// In a forked child, where there is no such thread.
    pub(crate) fn leave_to_parent(self) {
        mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as above; this is the last that is done with the handle.
        unsafe { libc::pthread_detach(self.handle) };
    }
}

/// For who looks at the program from outside.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn set_name(name: &CStr) {
    // Without a name the thread has that of the program.
    let _ = rustix::thread::set_name(name);
}

#[cfg(target_vendor = "apple")]
fn set_name(name: &CStr) {
    // SAFETY: it ends with a zero.
    unsafe { libc::pthread_setname_np(name.as_ptr()) };
}

#[cfg(any(target_os = "dragonfly", target_os = "freebsd", target_os = "openbsd"))]
fn set_name(name: &CStr) {
    // SAFETY: no preconditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: it is the calling thread, and the name ends with a zero.
    unsafe { libc::pthread_set_name_np(this, name.as_ptr()) };
}

/// The others do without, or have calls of other forms.
#[cfg(not(any(
    target_os = "android",
    target_os = "linux",
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "openbsd"
)))]
fn set_name(_name: &CStr) {}

fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for the write of a set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the old one may be null.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}

/// Gives the calling thread a table of descriptors of its own, in which nothing is open but `kept`
/// and, at 0 to 2, `/dev/null`. Returns its own `kept`, under the same number.
///
/// So a child that the program forks inherits nothing of what this thread opens from now on, and
/// this thread keeps nothing open that the program closes. What it must not do any more is to use
/// a descriptor of the program by its number.
///
/// `None` where the system cannot do that, or where it would change what belongs to the program: see
/// [`copies_are_harmless`].
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn own_descriptors(kept: rustix::fd::BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::fd::{AsRawFd, FromRawFd};
    use rustix::fs::{CWD, Mode, OFlags, openat};

    let number = kept.as_raw_fd();
    let first = u32::try_from(number).ok()?;
    if first < 3 || !copies_are_harmless(first) {
        return None;
    }
    if !close_range(first + 1, u32::MAX, true) {
        return None;
    }
    if first > 3 && !close_range(3, first - 1, false) {
        // The same call has worked a moment ago.
        return None;
    }
    // SAFETY: the table of this thread is a copy by now, and its `kept` has no owner yet.
    let kept = unsafe { OwnedFd::from_raw_fd(number) };
    if let Ok(null) = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(super::above_stdio_quietly)
    {
        for standard in 0..3 {
            // SAFETY: no memory is involved; in the table of this thread nobody uses them.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    Some(kept)
}

/// Whether copies of the descriptors of this thread, up to number `last`, can be closed, and nobody
/// notices.
///
/// The kernel tells a file system of each close, not only of the last (`flush`). Then a message queue
/// forgets whom it notifies (`mq_notify(3)`), and file systems in user space (FUSE) or of other machines
/// may let us wait. No file is asked about, because that would wait as well: `/proc` knows the mounts.
/// The kernel copies descriptors in groups of 64, and all of the groups that have some up to `last`.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn copies_are_harmless(last: u32) -> bool {
    use std::fs;

    /// File systems of this machine's kernel, which do nothing of the kind.
    const HARMLESS: &[&str] = &[
        "bcachefs",
        "bpf",
        "btrfs",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "erofs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hugetlbfs",
        "iso9660",
        "jfs",
        "msdos",
        "ntfs3",
        "overlay",
        "proc",
        "ramfs",
        "reiserfs",
        "rootfs",
        "securityfs",
        "squashfs",
        "sysfs",
        "tmpfs",
        "tracefs",
        "udf",
        "vfat",
        "xfs",
        "zfs",
    ];

    let Ok(entries) = fs::read_dir("/proc/thread-self/fd") else {
        return false;
    };
    let mut mounts = None;
    for entry in entries {
        let Ok(entry) = entry else {
            return false;
        };
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if number > (last | 63) {
            continue;
        }
        // What is gone by now is not copied.
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.as_os_str().as_encoded_bytes();
        // Pipes, sockets and the like have no path.
        if !link.starts_with(b"/") || link.starts_with(b"/memfd:") {
            continue;
        }
        let mut info = std::path::PathBuf::from("/proc/thread-self/fdinfo");
        info.push(&name);
        let info = fs::read_to_string(info).unwrap_or_default();
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let mounts = mounts.get_or_insert_with(|| {
            fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()
        });
        let kind = mount.and_then(|mount| kind_of_mount(mounts, mount.trim()));
        if !kind.is_some_and(|kind| HARMLESS.contains(&kind)) {
            return false;
        }
    }
    true
}

/// The kind of file system of a mount: what follows a lone hyphen (`proc_pid_mountinfo(5)`).
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn kind_of_mount<'mounts>(mounts: &'mounts str, number: &str) -> Option<&'mounts str> {
    let mut lines = mounts.lines();
    let line = lines.find(|line| line.split(' ').next() == Some(number))?;
    line.split_once(" - ")?.1.split(' ').next()
}

/// `close_range(2)`, since Linux 5.9; the kernel may unshare the table first. Whether it worked.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn close_range(first: u32, last: u32, unshare: bool) -> bool {
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    let flags = if unshare { CLOSE_RANGE_UNSHARE } else { 0 };
    // SAFETY: either the table is a copy for this thread alone, or it is made one by the call. No
    // code of this thread owns a descriptor in it, but the one that is spared.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// Elsewhere threads share their descriptors.
#[cfg(any(not(target_os = "linux"), shmem_apple_rules))]
pub(crate) fn own_descriptors(_kept: rustix::fd::BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}
