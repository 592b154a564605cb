//! Which paths can be trusted: those that no other user can redirect.

use alloc::vec::Vec;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, FileType, Mode, Stat};
use rustix::io::Errno;

use super::user::is_me;
pub(crate) use crate::sys::has_more_rights;

/// The most symbolic links that the kernel follows in a path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A path that is not trusted.
#[derive(Debug)]
pub(crate) struct Untrusted {
    /// The component that is not trusted.
    pub(crate) path: PathBuf,
    pub(crate) reason: Reason,
}

/// What is wrong with a component of a path.
#[derive(Debug)]
pub(crate) enum Reason {
    /// It belongs to another user, with this id.
    Owner(u32),
    /// Other users may rename its entries.
    Writable,
    /// It is not a directory.
    NotADirectory,
    /// The call on it failed.
    Os(&'static str, Errno),
}

/// What a trusted path leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// A directory.
    Directory { owner: u32 },
    /// The last component does not exist.
    Nothing,
    /// A component cannot be examined: a directory cannot be searched, or a security module forbids
    /// it.
    Unknown,
}

/// Checks that no other user can redirect an absolute path.
///
/// Every directory and symbolic link on the way, including the last one, has to belong to this user
/// or to the system. None may be in a directory that others may write to and that lacks the sticky
/// bit: they could rename it. Each component is safe because those above it are, so the same path
/// can then be passed to calls that take no directory descriptor (`bind`, `connect`).
pub(crate) fn check(path: &Path) -> Result<Found, Untrusted> {
    let root = fs::lstat("/").ok();
    let system = root.map(|root| root.st_uid);
    let mut here = PathBuf::from("/");
    let mut last = root;
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == OsStr::new("..") {
            here.pop();
            last = fs::lstat(&here).ok();
            continue;
        }
        let untrusted = |path: &Path, reason| {
            let path = path.into();
            Err(Untrusted { path, reason })
        };
        if last.as_ref().is_some_and(others_may_rename) {
            return untrusted(&here, Reason::Writable);
        }
        let next = here.join(name);
        let stat = match fs::lstat(&next) {
            Ok(stat) => stat,
            // Not an error here: the call that uses the path reports it.
            Err(Errno::ACCESS | Errno::PERM) => {
                (here, last) = (next, None);
                continue;
            }
            Err(Errno::NOENT) if rest.is_empty() => return Ok(Found::Nothing),
            Err(errno) => return untrusted(&next, Reason::Os("lstat", errno)),
        };
        let owner = stat.st_uid;
        // The owner of `/` can redirect every path anyway. In a user namespace it need not be 0.
        if !is_me(owner) && !is_of_system(owner) && Some(owner) != system {
            return untrusted(&next, Reason::Owner(owner));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (here, last) = (next, Some(stat)),
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return untrusted(&next, Reason::Os("lstat", Errno::LOOP));
                }
                let target = match fs::readlink(&next, Vec::new()) {
                    Ok(target) => PathBuf::from(OsString::from_vec(target.into_bytes())),
                    Err(errno) => return untrusted(&next, Reason::Os("readlink", errno)),
                };
                if target.is_absolute() {
                    (here, last) = ("/".into(), root);
                }
                rest.extend(parts(&target));
            }
            _ => return untrusted(&next, Reason::NotADirectory),
        }
    }
    Ok(last.map_or(Found::Unknown, |directory| Found::Directory {
        owner: directory.st_uid,
    }))
}

/// Returns `true` for users and groups of the system itself: root, and on Android those below 10000
/// (`AID_APP_START` in `android_filesystem_config.h`), because `/data` belongs to user 1000.
fn is_of_system(id: u32) -> bool {
    if cfg!(target_os = "android") {
        id < 10_000
    } else {
        id == 0
    }
}

/// Returns the components of a path below the root, in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.into()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut parts: Vec<OsString> = parts.collect();
    parts.reverse();
    parts
}

/// Returns `true` if other users may rename the entries of this directory.
fn others_may_rename(directory: &Stat) -> bool {
    let mode = Mode::from_raw_mode(directory.st_mode);
    // On many systems each user has a private group with the same id.
    let group = directory.st_gid;
    let private = is_of_system(group) || group == directory.st_uid;
    !mode.contains(Mode::SVTX)
        && (mode.contains(Mode::WOTH) || mode.contains(Mode::WGRP) && !private)
}
