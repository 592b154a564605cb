//! The directory of names: one that was chosen, or that of the service.

use alloc::boxed::Box;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::candidates::{check_is_closed, create, no_directory};
use super::environment::Environment;
use super::{Location, Lookup, Problem, lossy};
use crate::error::{AddressOrigin, Error, NamedError, ServiceError};
use crate::sys::user::check_user;

/// Returns the path of the directory of names, which no other user can write to or redirect. Creates it if it
/// does not exist. It is checked each time.
pub(crate) fn directory_of_names(chosen: Option<&Path>) -> Result<PathBuf, Error> {
    check_user()?;
    let given;
    let lookup = match chosen {
        None => Environment::of_this_process().names(),
        Some(path) => {
            given = Lookup::Chosen(Location::new(path, AddressOrigin::Program));
            &given
        }
    };
    let found = match lookup {
        Lookup::Chosen(location) => match chosen_directory(location) {
            Ok(()) => Ok(location.path.clone()),
            Err(problem) => Err((location.clone(), problem)),
        },
        // The directory of the service, whose names differ from those of entries.
        Lookup::Default(candidates) => {
            let mut rejected = alloc::vec::Vec::new();
            let found = candidates
                .iter()
                .find_map(|candidate| match candidate.locate() {
                    Ok(location) => location.path.parent().map(Path::to_path_buf),
                    Err(problem) => {
                        rejected.push((candidate, problem));
                        None
                    }
                });
            found.ok_or_else(|| no_directory(rejected))
        }
    };
    found.map_err(|(location, problem)| Error::Named {
        name: alloc::string::String::new(),
        reason: NamedError::Directory {
            path: lossy(&location.path),
            origin: location.origin,
            reason: Box::new(problem.reason),
            errno: problem.errno,
        },
    })
}

fn chosen_directory(location: &Location) -> Result<(), Problem> {
    if location.path.as_os_str().is_empty() {
        return Err(ServiceError::EmptyPath.into());
    }
    if !location.path.is_absolute() {
        return Err(ServiceError::NoWorkingDirectory.into());
    }
    create(&location.path)?;
    // Others may read it: what is in it is accessible to this user only.
    check_is_closed(&location.path, Mode::WGRP | Mode::WOTH)
}
