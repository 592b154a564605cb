//! Small types that know nothing of shared memory.

#[cfg(any(unix, windows))]
pub(crate) mod base64;
pub(crate) mod fixed_str;
