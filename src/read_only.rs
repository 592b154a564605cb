//! What can be done with a [`ReadOnly`] segment of every provider.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicU8;

#[cfg(feature = "std")]
use crate::error::Result;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::read_access::ReadAccess;
use crate::memory::read_only::ReadOnly;
use crate::traits::ShMem;

impl<S: ShMem> ReadOnly<S> {
    /// Returns the id of the segment.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.segment().id()
    }

    /// Returns the size of the segment in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segment().len()
    }

    /// Always `false`: a segment is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id and the size, to send to a process that is to attach.
    #[must_use]
    pub fn description(&self) -> ShMemDescription {
        self.segment().description()
    }

    /// Returns access to the bytes that is sound while other processes write them.
    ///
    /// # Examples
    ///
    /// Nothing writes through it:
    ///
    /// ```compile_fail,E0599
    /// use shmem_providers::{ReadOnly, ShMem};
    ///
    /// fn write<S: ShMem>(reader: &ReadOnly<S>) {
    ///     reader.access().fill(1);
    /// }
    /// ```
    #[must_use]
    pub fn access(&self) -> ReadAccess<'_> {
        let Some(start) = self.segment().as_ptr_of::<AtomicU8>() else {
            return ReadAccess::new(&[]);
        };
        // SAFETY: `ShMem` promises that `len` bytes stay readable while the segment is borrowed. Other
        // processes write them as if they were atomics, a `ReadAccess` only loads them, and the segment,
        // which a `ReadOnly` never gives out, has no plain references to memory that can change.
        ReadAccess::new(unsafe { core::slice::from_raw_parts(start, self.len()) })
    }

    /// Returns the address of the bytes, for code in other languages. Writing to it is undefined behaviour,
    /// and so is reading it in a way that does not expect other processes to write.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.access().bytes().as_ptr().cast()
    }

    /// Puts the id and the size into the environment of a command, as
    /// [`ShMem::hand_over`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Environment`](crate::Error::Environment) if no variable can have this name.
    #[cfg(feature = "std")]
    pub fn hand_over(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.segment().hand_over(command, env_name)
    }

    /// As [`hand_over`](Self::hand_over), and passes the descriptor to the program, as
    /// [`ShMem::inherit`] does. The program attaches with
    /// [`existing_from_env_read_only`](crate::ShMemProvider::existing_from_env_read_only).
    ///
    /// Where this segment was opened by its id, the descriptor permits reading only. On Linux a process of
    /// the same user can open it again for writing, unless the segment has a
    /// [single writer](crate::ShMemOptions::single_writer).
    ///
    /// # Errors
    ///
    /// As [`ShMem::inherit`].
    #[cfg(feature = "std")]
    pub fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.segment().inherit(command, env_name)
    }
}
