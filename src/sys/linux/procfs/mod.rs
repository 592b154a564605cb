//! `/proc` (`proc(5)`): texts and numbers from its files, and how much of the system it shows.
//!
//! [`processes`] finds descriptors of other processes.

pub(crate) mod object;
pub(crate) mod processes;
mod tables;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::{Errno, read};

use crate::util::fixed_str::FixedStr;

/// The link of the initial pid namespace, with its inode (`PROC_PID_INIT_INO`, which never
/// changes).
const INITIAL_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// Returns the id of this process in `/proc`, or `None` if `/proc` is not mounted or does not show
/// it.
///
/// If `/proc` belongs to an outer pid namespace, this is not what `getpid` returns, but the id that
/// other processes find in the same `/proc`.
pub(crate) fn own_pid() -> Option<u32> {
    let mut link = [0; 16];
    let len = readlinkat_raw(CWD, "/proc/self", &mut link).ok()?;
    core::str::from_utf8(link.get(..len)?).ok()?.parse().ok()
}

/// Returns `true` if this process is in the initial pid namespace, so that `/proc` shows all
/// processes.
fn is_initial_pid_namespace() -> bool {
    let mut link = [0; 32];
    let len = readlinkat_raw(CWD, "/proc/self/ns/pid", &mut link).unwrap_or(0);
    link.get(..len) == Some(INITIAL_PID_NAMESPACE)
}

/// Returns `true` if `/proc` is mounted with `hidepid`, so that it hides processes that this one
/// may not trace, or if that is not known.
fn hides_processes() -> bool {
    let Ok(file) = openat(
        CWD,
        "/proc/self/mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    // `… /proc … - proc proc rw,hidepid=invisible`. The last mount at a path is the visible one.
    let mut hides = false;
    let mut line = FixedStr::<512>::joined(&[]);
    let mut part = [0; 1024];
    loop {
        let len = match read(&file, &mut part) {
            Ok(0) => return hides,
            Ok(len) => len,
            Err(Errno::INTR) => continue,
            Err(_) => return true,
        };
        for &byte in part.get(..len).unwrap_or_default() {
            if byte != b'\n' {
                line.push_truncated(&[byte]);
                continue;
            }
            let text = core::str::from_utf8(line.as_bytes()).unwrap_or_default();
            if text.split(' ').nth(4) == Some("/proc") {
                hides = text.split_once(" - ").is_some_and(|(_, source)| {
                    let option = source
                        .rsplit([' ', ','])
                        .find_map(|option| option.strip_prefix("hidepid="));
                    !matches!(option, None | Some("0" | "off"))
                });
            }
            line = FixedStr::joined(&[]);
        }
    }
}

/// Reads a file of `/proc` that contains a single number.
pub(crate) fn number(path: &str) -> Option<u64> {
    text(path, &mut [0; 32])?.trim().parse().ok()
}

/// Reads the beginning of a file of `/proc`.
pub(crate) fn text<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    text_of(openat(CWD, path, flags, Mode::empty()).ok()?, buffer)
}

fn text_of(file: OwnedFd, buffer: &mut [u8]) -> Option<&str> {
    let len = read(file, &mut *buffer).ok()?;
    let text = buffer.get(..len)?;
    // A longer text may be cut in the middle of a character.
    let whole = match core::str::from_utf8(text) {
        Ok(text) => return Some(text),
        Err(error) => error.valid_up_to(),
    };
    core::str::from_utf8(text.get(..whole)?).ok()
}

/// Parses the name of a directory entry as a number.
fn number_of(name: &[u8]) -> Option<u32> {
    core::str::from_utf8(name).ok()?.parse().ok()
}
