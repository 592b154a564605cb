//! [`Environment`]: the default address and directory of names, as the environment variables of a process
//! determine them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::candidates::{Candidate, Kind};
use super::{Location, Lookup};
use crate::error::AddressOrigin;
use crate::process::{Owner, Published};
use crate::sys::trust;

/// What a process has read from the environment.
///
/// It is never freed. That costs little, because the environment changes rarely, and what has not changed is
/// not stored again.
pub(super) struct Environment {
    /// The process that read it.
    owner: Owner,
    lookup: Lookup,
    /// How to find the directory of names.
    names: Lookup,
    /// Keeps the previous one reachable, so that leak detectors do not report it.
    _previous: Option<&'static Self>,
}

/// What was read last.
static LAST: Published<Environment> = Published::new();

impl Environment {
    /// Reads the environment.
    ///
    /// A forked child takes what its parent read last, if it did: a thread of the parent may have held the
    /// lock of the standard library for the environment during the fork, and then reading it would block
    /// forever.
    pub(super) fn of_this_process() -> &'static Self {
        if let Some(last) = LAST.get() {
            if !last.owner.is_current() {
                return last;
            }
        }
        let lookup = Lookup::from_environment(AddressOrigin::ShMemService);
        let names = Lookup::from_environment(AddressOrigin::ShMemNames);
        let owner = Owner::current();
        loop {
            let previous = LAST.get();
            match previous {
                Some(last) if (&last.lookup, &last.names) == (&lookup, &names) => return last,
                _ => {}
            }
            let new: &'static Self = Box::leak(Box::new(Self {
                owner,
                lookup: lookup.clone(),
                names: names.clone(),
                _previous: previous,
            }));
            if LAST.replace(previous, new) {
                return new;
            }
        }
    }

    /// Returns how to find the default address.
    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Returns how to find the default directory of names.
    #[allow(dead_code, reason = "not every system has names")]
    pub(super) fn names(&self) -> &Lookup {
        &self.names
    }
}

impl fmt::Debug for Published<Environment> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Published")
    }
}

impl Lookup {
    /// Reads the environment, unless this program has more privileges than the user who set it. `chosen` is
    /// the variable that chooses the path.
    fn from_environment(chosen: AddressOrigin) -> Self {
        let is_ignored = trust::has_more_rights();
        let read = |origin: AddressOrigin| {
            let value = origin.variable().and_then(env::var_os);
            value.filter(|value: &OsString| !is_ignored && !value.is_empty())
        };
        if let Some(path) = read(chosen) {
            return Self::Chosen(Location::new(Path::new(&path), chosen));
        }
        let from_variable = |origin, kind| {
            let path: Option<PathBuf> = read(origin).map(Into::into);
            path.map(|path| Candidate::new(path, origin, kind))
        };
        let default = |path: PathBuf, kind| Candidate::new(path, AddressOrigin::Default, kind);
        let mut candidates = Vec::new();
        candidates.extend(from_variable(AddressOrigin::XdgRuntimeDir, Kind::Private));
        candidates.push(default("/run/user".into(), Kind::Sessions));
        let temporary = from_variable(AddressOrigin::Tmpdir, Kind::Shared);
        if !temporary.as_ref().is_some_and(Candidate::is_absolute) {
            // A relative path would differ from program to program.
            let path = if is_ignored || temporary.is_some() {
                "/tmp".into()
            } else {
                env::temp_dir()
            };
            candidates.push(default(path, Kind::Shared));
        }
        candidates.extend(temporary);
        candidates.extend(from_variable(AddressOrigin::Home, Kind::Home));
        Self::Default(candidates)
    }
}
