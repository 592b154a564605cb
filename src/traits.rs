//! The two traits: [`ShMem`], a segment, and [`ShMemProvider`], which makes and opens segments.
#![allow(unsafe_code)]

use core::fmt::Debug;
use core::ops::DerefMut;

use crate::error::Error;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;

/// A segment of shared memory, mapped into this process.
///
/// # The contract of the slice
///
/// A segment dereferences to `[u8]`, because that is what most of its users need: fill it, hand
/// over the id, wait until the other side is done, read. It is up to you that while a reference
/// into the slice lives
///
/// * no other process, and no other mapping of the same segment in this one, **writes** the bytes
///   it covers;
/// * if it is a `&mut`, no other process and no other mapping **reads** them either.
///
/// Rust cannot check this across processes, and breaking it is undefined behaviour in the process
/// that holds the reference: the compiler may read a byte twice and rely on getting the same value.
/// **Safe code can break it**: two segments of one id in the same process are two `&mut [u8]` to the
/// same memory, and no call was `unsafe`. The interface of version 0.16, which `LibAFL` is written
/// against, demands `DerefMut`, so this crate cannot mark it.
/// So pass bytes back and forth by something that both sides wait for (a pipe, a socket, an exit
/// status, an atomic in another part of the segment). Where both sides work at once, use
/// [`access`](Self::access), which is sound whatever the others do: copies in and out, and atomics in
/// place.
///
/// What no peer can break is the memory itself: a slice of `len()` bytes stays mapped for as long
/// as the segment lives, and no access to it ends in SIGBUS. There are three exceptions:
///
/// * **POSIX segments**: a peer can shrink the file, or give back a page of it, which is missing then
///   if `/dev/shm` is full. See [`MmapShMemProvider`](crate::MmapShMemProvider).
/// * **Huge pages that were set aside** (`ShMemOptions::try_huge_pages`): a peer can give back a page
///   of such a segment (`FALLOC_FL_PUNCH_HOLE`, `MADV_REMOVE`), and if none is free when it is
///   accessed next, that is a SIGBUS. Attaching makes sure that every page is there, and is
///   [`Error::Foreign`] if one is missing. What a peer does later cannot be prevented: the seals that
///   would prevent it also prevent writing.
/// * **No memory left** in the machine: pages are allocated when they are first touched. Where the
///   system promises no more than it has (Linux, `vm.overcommit_memory=2`), a page that it cannot
///   promise is a SIGBUS; elsewhere the kernel ends a process to get memory. `ShMemOptions::prefault`
///   allocates all pages when a segment is made, and says whether it could.
///
/// # Safety
///
/// Who implements this trait ensures that `deref` and `deref_mut` lead to the same memory each
/// time, that its address is a multiple of 8, and that it stays valid for as long as the segment is
/// borrowed. Others put structures with atomics into it and rely on that.
///
/// # Examples
///
/// ```
/// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
///
/// let mut segment = NopShMemProvider.new_shmem(12)?;
/// segment.fill(1);
/// assert_eq!(segment.iter().sum::<u8>(), 12);
/// assert!(segment.as_ptr_of::<[u64; 1]>().is_some());
/// assert!(segment.as_ptr_of::<[u64; 2]>().is_none());
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub unsafe trait ShMem: Sized + Debug + DerefMut<Target = [u8]> {
    /// The id that opens this segment in another process.
    fn id(&self) -> ShMemId;

    /// How many bytes the segment has. No reference to them is made.
    fn len(&self) -> usize {
        (**self).len()
    }

    /// Whether the segment has no bytes, because it was released.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Id and size, to be sent to a process that shall attach.
    fn description(&self) -> ShMemDescription {
        ShMemDescription {
            size: self.len(),
            id: self.id(),
        }
    }

    /// The bytes, to be accessed while other processes write them.
    ///
    /// # Examples
    ///
    /// No slice of the same segment can live meanwhile:
    ///
    /// ```compile_fail,E0502
    /// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
    ///
    /// let mut segment = NopShMemProvider.new_shmem(8)?;
    /// let slice = &segment[..];
    /// segment.access().fill(1);
    /// assert_eq!(slice, [0; 8]);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    fn access(&mut self) -> Access<'_> {
        Access::from(&mut **self)
    }

    /// The start of the segment as a pointer to `T`, or `None` if `T` does not fit or is not
    /// aligned there.
    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        let start = self.as_ptr().cast::<T>();
        (size_of::<T>() <= self.len() && start.is_aligned()).then_some(start)
    }

    /// The start of the segment as a pointer to `T` for writing, or `None` if `T` does not fit or
    /// is not aligned there.
    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        let start = self.as_mut_ptr().cast::<T>();
        (size_of::<T>() <= self.len() && start.is_aligned()).then_some(start)
    }

    /// Puts the id and the size into the environment of a program that is yet to be started, as the
    /// variables `env_name` and `env_name` with `_SIZE` behind it.
    ///
    /// The program attaches with [`ShMemProvider::existing_from_env`]. Keep the segment until it
    /// has: the command holds nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Environment`] if no variable can have that name: it is empty, or contains `=` or a zero
    /// byte.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::process::Command;
    /// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
    ///
    /// let mut provider = StdShMemProvider::new()?;
    /// let segment = provider.new_shmem(64)?;
    /// let mut command = Command::new("env");
    /// segment.hand_over(&mut command, "PICTURE")?;
    ///
    /// let printed = command.output()?.stdout;
    /// assert!(String::from_utf8_lossy(&printed).contains("PICTURE_SIZE=64"));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "std")]
    fn hand_over(&self, command: &mut std::process::Command, env_name: &str) -> Result<(), Error> {
        command.envs(crate::handover::variables(self.description(), env_name)?);
        Ok(())
    }

    /// Puts the id and the size into the environment of this process, as the variables `env_name`
    /// and `env_name` with `_SIZE` behind it, so that every program it starts from now on inherits
    /// them.
    ///
    /// # Errors
    ///
    /// As [`hand_over`](Self::hand_over), which is the better way wherever the program is started
    /// with a
    /// [`Command`](std::process::Command).
    ///
    /// # Safety
    ///
    /// As [`std::env::set_var`]: except on Windows, no other thread may read or write the
    /// environment meanwhile, not even by functions of the C library that do so (`getaddrinfo`,
    /// `localtime`, …).
    #[cfg(feature = "std")]
    unsafe fn write_to_env(&self, env_name: &str) -> Result<(), Error> {
        for (name, value) in crate::handover::variables(self.description(), env_name)? {
            // SAFETY: demanded from the caller.
            unsafe { std::env::set_var(name, value) };
        }
        Ok(())
    }
}

/// Makes segments, and opens those that other processes have made.
///
/// Providers are cheap to make and to clone, and hold no segment: each segment stands for itself.
pub trait ShMemProvider: Clone + Default + Debug {
    /// The segments of this provider.
    type ShMem: ShMem;

    /// A provider.
    ///
    /// # Errors
    ///
    /// Where a provider needs something of the system, that it is not there.
    fn new() -> Result<Self, Error>;

    /// Makes a segment of `map_size` zero bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] if the size is zero or over `isize::MAX`, otherwise [`Error::Os`] with the
    /// limit that was hit. Nothing is left behind.
    ///
    /// # Lifetime
    ///
    /// The segment lives until the last process that holds it drops it or ends, however it ends.
    /// What differs from this is said in the documentation of the provider.
    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error>;

    /// Attaches to all of a segment. Its size is asked of the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`], [`Error::Gone`], [`Error::OtherUser`] or [`Error::Foreign`] for ids that do
    /// not lead to a segment, [`Error::Os`] if the system refuses for another reason. All providers of
    /// this crate have this method. The default, for those that were written for 0.16, returns
    /// [`Error::Unsupported`].
    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        let _ = id;
        Err(Error::Unsupported {
            what: "this provider does not implement shmem_from_id, so it cannot ask for the size of \
                   a segment: attach with shmem_from_id_and_size",
        })?
    }

    /// Attaches to the first `size` bytes of a segment. Less than it has is allowed.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the segment has less, [`Error::InvalidSize`] if `size` is no size, otherwise
    /// as [`shmem_from_id`](Self::shmem_from_id).
    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error>;

    /// Attaches to the segment described.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](Self::shmem_from_id_and_size).
    fn shmem_from_description(
        &mut self,
        description: ShMemDescription,
    ) -> Result<Self::ShMem, Error> {
        self.shmem_from_id_and_size(description.id, description.size)
    }

    /// Maps a segment that this process holds once more: another holder, at another address.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](Self::shmem_from_id_and_size).
    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        self.shmem_from_description(mapping.description())
    }

    /// Makes a segment that holds `value`.
    ///
    /// Another process finds it with [`as_ptr_of`](ShMem::as_ptr_of). References and pointers in it
    /// mean nothing there, and its destructor is never run.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](Self::new_shmem) (a type of size zero included), and [`Error::Misaligned`]
    /// if the type wants more than the alignment of a page.
    fn new_on_shmem<T: Sized + 'static>(&mut self, value: T) -> Result<Self::ShMem, Error> {
        let mut segment = self.uninit_on_shmem::<T>()?;
        match segment.as_mut_ptr_of::<T>() {
            // SAFETY: the pointer was checked for size and alignment, the segment is new, and
            // nobody else knows it.
            Some(place) => unsafe { place.write(value) },
            None => {
                return Err(Error::Misaligned {
                    align: align_of::<T>(),
                })?;
            }
        }
        Ok(segment)
    }

    /// Makes a segment with room for a `T`, all of it zero bytes.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](Self::new_shmem), and [`Error::Misaligned`] as
    /// [`new_on_shmem`](Self::new_on_shmem).
    fn uninit_on_shmem<T: Sized + 'static>(&mut self) -> Result<Self::ShMem, Error> {
        let segment = self.new_shmem(size_of::<T>())?;
        match segment.as_ptr_of::<T>() {
            Some(_) => Ok(segment),
            None => Err(Error::Misaligned {
                align: align_of::<T>(),
            })?,
        }
    }

    /// Attaches to the segment that [`hand_over`](ShMem::hand_over) or
    /// [`write_to_env`](ShMem::write_to_env) put into the environment under this name.
    ///
    /// If there is no variable for the size, all of the segment is mapped.
    ///
    /// # Errors
    ///
    /// [`Error::Environment`] if the variable of the id is missing, or if one of the two cannot be
    /// understood; otherwise [`Error::FromEnvironment`], with the error of
    /// [`shmem_from_id_and_size`](Self::shmem_from_id_and_size) in it.
    #[cfg(feature = "std")]
    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        let attached = match crate::handover::read(env_name)? {
            (id, Some(size)) => self.shmem_from_id_and_size(id, size),
            (id, None) => self.shmem_from_id(id),
        };
        attached.map_err(|error| crate::handover::named(env_name, error))
    }

    /// To be called before a `fork()`, and [`post_fork`](Self::post_fork) after it on both sides, by
    /// the same thread, also after a `fork()` that failed. Between the two, the thread leaves this
    /// provider and its segments alone.
    ///
    /// Providers that need nothing for it do nothing. Those that do something have the other threads
    /// of this process wait meanwhile.
    ///
    /// # Errors
    ///
    /// Of providers that do something: that it failed. Then do not fork.
    fn pre_fork(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// To be called after a `fork()`, in the parent and in the child.
    ///
    /// # Errors
    ///
    /// Of providers that do something: that it failed.
    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        let _ = is_child;
        Ok(())
    }

    /// Gives up this process's hold of a segment, as dropping it does.
    ///
    /// Of segments of this crate, what is left in `shmem` keeps its id and has no bytes. The default does
    /// nothing: then the hold is given up when the segment is dropped.
    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        let _ = shmem;
    }
}
