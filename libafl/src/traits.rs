//! The two traits as in 0.16. All segments and providers of the core implement them, and those of a program
//! can.
#![allow(unsafe_code)]

use core::fmt::Debug;
use core::ops::DerefMut;

use libafl_core::Error;
use shmem::{Access, ShMemDescription, ShMemId};

/// A segment of shared memory, mapped into this process.
///
/// Implemented for every segment of the core, whose [`ShMem`](shmem::ShMem) documents the methods and
/// the contract of the slice.
///
/// # Safety
///
/// `deref` and `deref_mut` return the same memory each time, its address is a multiple of 8, and it stays
/// valid for as long as the segment is borrowed.
pub unsafe trait ShMem: Sized + Debug + DerefMut<Target = [u8]> {
    /// Returns the id that opens this segment in another process.
    fn id(&self) -> ShMemId;

    /// Returns the size of the segment in bytes.
    fn len(&self) -> usize {
        (**self).len()
    }

    /// Returns `true` if the segment has no bytes, because it was released.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id and the size, to send to a process that is to attach.
    fn description(&self) -> ShMemDescription {
        ShMemDescription {
            size: self.len(),
            id: self.id(),
        }
    }

    /// Returns access to the bytes that is sound while other processes write them.
    fn access(&mut self) -> Access<'_> {
        Access::from(&mut **self)
    }

    /// Returns the start of the segment as a pointer to `T`, or `None` if `T` does not fit or is not
    /// aligned there.
    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        let start = self.as_ptr().cast::<T>();
        (size_of::<T>() <= self.len() && start.is_aligned()).then_some(start)
    }

    /// Returns the start of the segment as a pointer to `T` for writing, or `None` if `T` does not fit or
    /// is not aligned there.
    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        let start = self.as_mut_ptr().cast::<T>();
        (size_of::<T>() <= self.len() && start.is_aligned()).then_some(start)
    }

    /// Puts the id and the size into the environment of a command.
    ///
    /// # Errors
    ///
    /// As [`hand_over`](shmem::ShMem::hand_over) of the core.
    #[cfg(feature = "std")]
    fn hand_over(&self, command: &mut std::process::Command, env_name: &str) -> Result<(), Error> {
        command.envs(shmem::facade::variables(self.description(), env_name)?);
        Ok(())
    }

    /// Puts the id and the size into the environment of this process.
    ///
    /// # Errors
    ///
    /// As [`write_to_env`](shmem::ShMem::write_to_env) of the core.
    ///
    /// # Safety
    ///
    /// As [`std::env::set_var`].
    #[cfg(feature = "std")]
    unsafe fn write_to_env(&self, env_name: &str) -> Result<(), Error> {
        for (name, value) in shmem::facade::variables(self.description(), env_name)? {
            // SAFETY: demanded from the caller.
            unsafe { std::env::set_var(name, value) };
        }
        Ok(())
    }
}

// SAFETY: `shmem::ShMem` has the same contract.
unsafe impl<S: shmem::ShMem> ShMem for S {
    fn id(&self) -> ShMemId {
        shmem::ShMem::id(self)
    }

    fn len(&self) -> usize {
        shmem::ShMem::len(self)
    }

    fn description(&self) -> ShMemDescription {
        shmem::ShMem::description(self)
    }

    fn access(&mut self) -> Access<'_> {
        shmem::ShMem::access(self)
    }

    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        shmem::ShMem::as_ptr_of(self)
    }

    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        shmem::ShMem::as_mut_ptr_of(self)
    }
}

/// Creates segments, and opens those of other processes.
///
/// Implemented for every provider of the core, whose [`ShMemProvider`](shmem::ShMemProvider) documents the
/// methods and their errors.
#[allow(clippy::missing_errors_doc, reason = "as in the core")]
pub trait ShMemProvider: Clone + Default + Debug {
    /// The segments of this provider.
    type ShMem: ShMem;

    /// Creates a provider.
    fn new() -> Result<Self, Error>;

    /// Creates a segment of `map_size` zero bytes.
    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error>;

    /// Attaches to all of a segment. Providers that were written for 0.16 do not implement this method.
    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        let _ = id;
        Err(Error::unsupported(
            "this provider does not implement shmem_from_id, so it cannot ask for the size of a \
             segment: attach with shmem_from_id_and_size",
        ))
    }

    /// Attaches to the first `size` bytes of a segment.
    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error>;

    /// Attaches to the segment described.
    fn shmem_from_description(
        &mut self,
        description: ShMemDescription,
    ) -> Result<Self::ShMem, Error> {
        self.shmem_from_id_and_size(description.id, description.size)
    }

    /// Maps a segment that this process holds a second time.
    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        self.shmem_from_description(mapping.description())
    }

    /// Creates a segment that contains `value`.
    fn new_on_shmem<T: Sized + 'static>(&mut self, value: T) -> Result<Self::ShMem, Error> {
        let mut segment = self.uninit_on_shmem::<T>()?;
        match segment.as_mut_ptr_of::<T>() {
            // SAFETY: the pointer was checked for size and alignment, and no other process knows the new
            // segment.
            Some(start) => unsafe { start.write(value) },
            None => return Err(misaligned::<T>()),
        }
        Ok(segment)
    }

    /// Creates a segment for a `T`, all of it zero bytes.
    fn uninit_on_shmem<T: Sized + 'static>(&mut self) -> Result<Self::ShMem, Error> {
        let segment = self.new_shmem(size_of::<T>())?;
        match segment.as_ptr_of::<T>() {
            Some(_) => Ok(segment),
            None => Err(misaligned::<T>()),
        }
    }

    /// Attaches to the segment that the environment describes under this name.
    #[cfg(feature = "std")]
    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        match shmem::facade::read(env_name)? {
            (id, Some(size)) => self.shmem_from_id_and_size(id, size),
            (id, None) => self.shmem_from_id(id),
        }
    }

    /// Must be called before a `fork()`.
    fn pre_fork(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Must be called after a `fork()`, in the parent and in the child.
    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        let _ = is_child;
        Ok(())
    }

    /// Releases a segment, as dropping it does.
    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        let _ = shmem;
    }
}

fn misaligned<T>() -> Error {
    shmem::Error::Misaligned {
        align: align_of::<T>(),
    }
    .into()
}

impl<P: shmem::ShMemProvider> ShMemProvider for P {
    type ShMem = P::ShMem;

    fn new() -> Result<Self, Error> {
        Ok(<P as shmem::ShMemProvider>::new()?)
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::new_shmem(self, map_size)?)
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::shmem_from_id(self, id)?)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::shmem_from_id_and_size(
            self, id, size,
        )?)
    }

    fn shmem_from_description(
        &mut self,
        description: ShMemDescription,
    ) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::shmem_from_description(
            self,
            description,
        )?)
    }

    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::clone_ref(self, mapping)?)
    }

    fn new_on_shmem<T: Sized + 'static>(&mut self, value: T) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::new_on_shmem(self, value)?)
    }

    fn uninit_on_shmem<T: Sized + 'static>(&mut self) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::uninit_on_shmem::<T>(self)?)
    }

    #[cfg(feature = "std")]
    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        Ok(shmem::ShMemProvider::existing_from_env(self, env_name)?)
    }

    fn pre_fork(&mut self) -> Result<(), Error> {
        Ok(shmem::ShMemProvider::pre_fork(self)?)
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        Ok(shmem::ShMemProvider::post_fork(self, is_child)?)
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        shmem::ShMemProvider::release_shmem(self, shmem);
    }
}
