//! `/proc`: other processes' descriptors, and our own, as others see them.

use core::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::text::Text;

/// How a segment's descriptor is opened. Until it is open nobody knows whether it is one: the
/// number may lead to a terminal, a pipe or a leased file by now, and with these flags none of them
/// makes us wait. A device acts on being opened, and a file system in user space (FUSE) can still let
/// us wait; to look first, through `O_PATH`, would take two more calls each time.
const READ_WRITE: OFlags = OFlags::RDWR
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// How many bytes of directory entries are read at once.
const ENTRIES: usize = 4096;

/// The longest link that is compared. A longer one is cut, and equals none of ours.
const LINK: usize = 64;

/// The number of this process in `/proc`, if that is mounted and shows it.
///
/// Where `/proc` belongs to an outer pid namespace, this is not what `getpid` says, but what a
/// process that looks into the same `/proc` will find.
pub(super) fn own_pid() -> Option<u32> {
    let mut link = [0; 16];
    let len = readlinkat_raw(CWD, "/proc/self", &mut link).ok()?;
    core::str::from_utf8(link.get(..len)?).ok()?.parse().ok()
}

/// Whether `/proc` is mounted and shows this process.
pub(crate) fn is_mounted() -> bool {
    own_pid().is_some()
}

/// Opens descriptor `number` of process `pid`, if `link` is what it leads to.
///
/// `Ok(None)` if it leads to something else.
pub(crate) fn open(pid: u32, number: u32, link: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let [pid, number] = [pid, number].map(DecInt::new);
    let path = Text::<32>::joined(&[b"/proc/", pid.as_bytes(), b"/fd/", number.as_bytes()]);
    confirmed(
        openat(CWD, path.as_bytes(), READ_WRITE, Mode::empty())?,
        link,
    )
}

/// Opens a descriptor that leads to `link`, of whichever process has one.
///
/// Processes that do not let us look are passed over, and so is what `is_genuine` does not take for
/// it: names can be forged.
pub(crate) fn find(
    link: &[u8],
    is_genuine: impl Fn(&OwnedFd) -> bool,
) -> Result<Option<OwnedFd>, Errno> {
    let processes = openat(CWD, "/proc", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(&processes, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_str() else {
            continue;
        };
        if !pid.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let descriptors = Text::<32>::joined(&[pid.as_bytes(), b"/fd"]);
        let descriptors = match openat(&processes, descriptors.as_bytes(), DIRECTORY, Mode::empty())
        {
            Ok(descriptors) => descriptors,
            Err(errno) => {
                out_of_resources(errno)?;
                continue;
            }
        };
        if let Some(found) = find_among(&descriptors, link, &is_genuine)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The same among the descriptors of this process.
pub(crate) fn find_here(
    link: &[u8],
    is_genuine: impl Fn(&OwnedFd) -> bool,
) -> Result<Option<OwnedFd>, Errno> {
    let descriptors = openat(CWD, "/proc/self/fd", DIRECTORY, Mode::empty())?;
    find_among(&descriptors, link, is_genuine)
}

/// The same among the descriptors of one process.
fn find_among(
    descriptors: &OwnedFd,
    link: &[u8],
    is_genuine: impl Fn(&OwnedFd) -> bool,
) -> Result<Option<OwnedFd>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(descriptors, &mut buffer);
    while let Some(entry) = entries.next() {
        // The process has ended.
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        let mut found = [0; LINK];
        match readlinkat_raw(descriptors, name, &mut found) {
            Ok(len) if found.get(..len) == Some(link) => {}
            _ => continue,
        }
        match openat(descriptors, name, READ_WRITE, Mode::empty()) {
            Ok(fd) => {
                let genuine = confirmed(fd, link)?.filter(|fd| is_genuine(fd));
                if genuine.is_some() {
                    return Ok(genuine);
                }
            }
            Err(errno) => out_of_resources(errno)?,
        }
    }
    Ok(None)
}

/// Passes `fd` on if `link` is what it leads to. Asked of the open descriptor, the answer stays
/// true.
fn confirmed(fd: OwnedFd, link: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let number = DecInt::from_fd(&fd);
    let path = Text::<32>::joined(&[b"/proc/self/fd/", number.as_bytes()]);
    let mut found = [0; LINK];
    let len = readlinkat_raw(CWD, path.as_bytes(), &mut found)?;
    Ok((found.get(..len) == Some(link)).then_some(fd))
}

/// An error that is about us, and not about the process that we look at.
fn out_of_resources(errno: Errno) -> Result<(), Errno> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno),
        _ => Ok(()),
    }
}
