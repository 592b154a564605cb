//! Small types that know nothing of shared memory.

pub(crate) mod base64;
pub(crate) mod fixed_str;
