//! Mapped memory: the mapping itself, the ways to read and write it, and the sizes it can have.

pub(crate) mod access;
pub(crate) mod copy;
#[cfg(feature = "std")]
pub(crate) mod cursor;
pub(crate) mod layout;
pub(crate) mod mapping;
pub(crate) mod read_access;
pub(crate) mod read_only;
pub(crate) mod size;
