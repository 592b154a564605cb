//! [`Format`]: what a segment states about its content, in its first bytes.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::error::{Error, Result, TypeMismatch};
use crate::memory::access::Access;
use crate::memory::layout::SharedLayout;

/// A kind of content and the version of its layout.
pub(crate) struct Format {
    magic: u32,
    version: u32,
}

/// What a header starts with.
#[repr(C)]
pub(crate) struct Prefix {
    /// Written last.
    magic: AtomicU32,
    version: AtomicU32,
}

// SAFETY: the structure is `repr(C)`, and all of its fields are atomic integers.
unsafe impl SharedLayout for Prefix {}

impl Format {
    pub(crate) const fn new(magic: [u8; 4], version: u32) -> Self {
        Self {
            magic: u32::from_ne_bytes(magic),
            version,
        }
    }

    /// Succeeds if the bytes start with this format. Everything that was written before it is visible then.
    pub(crate) fn check(&self, access: Access<'_>) -> Result<(), TypeMismatch> {
        let prefix = access.view::<Prefix>(0);
        let prefix = prefix.map_err(|_| TypeMismatch::NotTyped)?;
        if prefix.magic.load(Acquire) != self.magic {
            return Err(TypeMismatch::NotTyped);
        }
        let found = prefix.version.load(Relaxed);
        if found != self.version {
            return Err(TypeMismatch::Version { found });
        }
        Ok(())
    }

    /// States that the bytes have this format, once everything else is written.
    pub(crate) fn state(&self, access: Access<'_>) -> Result<(), Error> {
        let prefix = access.view::<Prefix>(0)?;
        prefix.version.store(self.version, Relaxed);
        prefix.magic.store(self.magic, Release);
        Ok(())
    }
}
