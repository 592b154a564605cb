//! Hand-over through the environment: `NAME` holds the id, `NAME_SIZE` the size in bytes.
//! `inherit.rs` adds a variable for a descriptor.
#![allow(unreachable_pub, reason = "public to the package in libafl/")]

use alloc::format;
use alloc::string::{String, ToString};
use std::env::{self, VarError};

use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;

/// Why there is no segment in the environment.
const NOT_SET: &str = "it is not set: start this program with a `Command` to which `ShMem::hand_over` or \
                       `ShMem::inherit` has added it";

/// Returns the two variables with their values.
///
/// # Errors
///
/// [`Error::Environment`] if no variable can have this name.
pub fn variables(description: ShMemDescription, name: &str) -> Result<[(String, String); 2]> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(problem(
            name,
            "a name is not empty and contains neither `=` nor a zero byte",
        ));
    }
    Ok([
        (name.to_string(), description.id.to_string()),
        (size_name(name), description.size.to_string()),
    ])
}

/// Returns the id and the size. The variable for the size may be missing.
///
/// # Errors
///
/// [`Error::Environment`] if there is no variable for the id, or if one of the two cannot be parsed.
pub fn read(name: &str) -> Result<(ShMemId, Option<usize>)> {
    let id = value(name)?.ok_or_else(|| problem(name, NOT_SET))?;
    let size_name = size_name(name);
    let size = match value(&size_name)? {
        None => None,
        Some(text) => match text.parse() {
            Ok(size) => Some(size),
            Err(_) => return Err(problem(&size_name, "it is not a number of bytes")),
        },
    };
    Ok((ShMemId::from_string(&id), size))
}

/// Returns the error together with the variable that caused it, and with the reason why an inherited
/// descriptor was not used.
pub(crate) fn named(name: &str, error: Error, inherited: Option<Error>) -> Error {
    let name = match error {
        Error::TooLarge { .. } | Error::InvalidSize { .. } => size_name(name),
        _ => name.to_string(),
    };
    Error::FromEnvironment {
        name,
        error: error.into(),
        inherited: inherited.map(Into::into),
    }
}

fn size_name(name: &str) -> String {
    format!("{name}_SIZE")
}

/// Returns the name of the variable for an inherited descriptor (`inherit.rs`).
pub(crate) fn fd_name(name: &str) -> String {
    format!("{name}_FD")
}

pub(crate) fn value(name: &str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(problem(name, "it is not UTF-8")),
    }
}

pub(crate) fn problem(name: &str, problem: &'static str) -> Error {
    Error::Environment {
        name: name.to_string(),
        problem,
    }
}
