//! The limit that a call ran into, and its value: one function for each kind of object. These
//! systems report only the resource limits of the process.

use rustix::io::Errno;

use crate::error::limit::Limit;
use crate::sys::rlimits;
#[cfg(feature = "std")]
pub(crate) use crate::sys::rlimits::open_files;
pub(crate) use crate::sys::rlimits::{check_file_size, for_descriptor};

pub(crate) use self::unknown as for_dev_shm;
#[cfg(not(target_os = "haiku"))]
pub(crate) use self::unknown as for_system_v;
#[cfg(feature = "std")]
pub(crate) use self::unknown as for_thread;
#[cfg(feature = "std")]
pub(crate) use self::unknown as for_watches;

/// The limits on new mappings (`mmap`, `shmat`).
pub(crate) fn for_mapping(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOMEM => rlimits::address_space(),
        _ => None,
    }
}

/// Returns `None`: it is not known which limits of the system there are.
pub(crate) fn unknown(_errno: Errno) -> Option<Limit> {
    None
}
