//! The resource limits of this process: `getrlimit(2)`.

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};

/// The limits of this process that an error number identifies by itself.
pub(crate) fn for_descriptor(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::MFILE => current(Resource::Nofile).map(|limit| Limit::OpenFiles { limit }),
        Errno::FBIG => file_size(),
        _ => None,
    }
}

/// Returns how many descriptors this process may have, or `None` for no limit.
#[cfg(feature = "std")]
pub(crate) fn open_files() -> Option<u64> {
    current(Resource::Nofile)
}

/// Returns an error for a file that is larger than this process may create. The call that sets the
/// size would not only fail but also raise SIGXFSZ, which kills the process (`setrlimit(2)`).
pub(crate) fn check_file_size(size: usize) -> Result<()> {
    match file_size() {
        Some(limit @ Limit::FileSize { limit: bytes }) if size as u64 > bytes => Err(Error::Os {
            call: "ftruncate",
            errno: Errno::FBIG.raw_os_error(),
            subject: Subject::Bytes(size),
            limit: Some(limit),
        }),
        _ => Ok(()),
    }
}

/// Returns the largest file that this process may create, if there is a limit.
fn file_size() -> Option<Limit> {
    current(Resource::Fsize).map(|limit| Limit::FileSize { limit })
}

/// Returns how much address space this process may use, if there is a limit.
#[cfg(not(target_os = "openbsd"))]
pub(in crate::sys) fn address_space() -> Option<Limit> {
    current(Resource::As).map(|limit| Limit::AddressSpace { limit })
}

/// OpenBSD has no such limit.
#[cfg(target_os = "openbsd")]
pub(in crate::sys) fn address_space() -> Option<Limit> {
    None
}

/// Returns the soft limit, or `None` for no limit.
pub(in crate::sys) fn current(resource: Resource) -> Option<u64> {
    getrlimit(resource).current
}
