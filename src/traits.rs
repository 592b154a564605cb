//! The two traits: [`ShMem`], a segment, and [`ShMemProvider`], which creates and opens segments.
#![allow(unsafe_code)]

use core::fmt::Debug;
use core::ops::DerefMut;

use crate::error::Error;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::memory::read_only::ReadOnly;
#[cfg(feature = "alloc")]
use crate::sharing::Shared;

/// A segment of shared memory, mapped into this process.
///
/// # The contract of the slice
///
/// A segment dereferences to `[u8]`, because most users need just that: fill it, hand over the id, wait
/// until the peer is done, read. The caller ensures that while a reference into the slice lives
///
/// * no other process, and no other mapping of the same segment in this process, **writes** the bytes
///   that it covers;
/// * if it is a `&mut`, no other process and no other mapping **reads** them either.
///
/// Rust cannot check this across processes, and breaking it is undefined behaviour in the process
/// that holds the reference: the compiler may read a byte twice and rely on getting the same value.
/// **Safe code can break it**: two segments of one id in the same process are two `&mut [u8]` to the
/// same memory, and no call was `unsafe`. Version 0.16, for which `LibAFL` is written, requires
/// `DerefMut`, so this crate cannot mark it.
///
/// Coordinate turns by something that both sides wait for: a pipe, a socket, an exit status, an atomic
/// in another part of the segment. Where several holders work at the same time, convert the segment with
/// [`share`](Self::share), or borrow its [`access`](Self::access). Both are sound whatever other processes
/// do: they copy in and out, and have atomics in place.
///
/// No peer can break the memory itself: a slice of `len()` bytes stays mapped for as long as the
/// segment lives, and no access to it raises SIGBUS. There are three exceptions:
///
/// * **POSIX segments** and **files**: a peer can shrink the file, or free a page of it while its file system
///   is full. See [`MmapShMemProvider`](crate::MmapShMemProvider) and
///   [`FileShMemProvider`](crate::FileShMemProvider).
/// * **Reserved huge pages** (`ShMemOptions::try_huge_pages`): a peer can free a page of such a segment
///   (`FALLOC_FL_PUNCH_HOLE`, `MADV_REMOVE`), and the next access raises SIGBUS if no huge page is free.
///   Attaching checks that every page exists, and returns [`Error::Foreign`] if one is missing. It cannot
///   prevent what a peer does later: the seals that would also prevent writing.
/// * **No memory left** in the machine: pages are allocated when they are first touched. Where the
///   system does not overcommit memory (Linux, `vm.overcommit_memory=2`), a page that cannot be allocated
///   raises SIGBUS; elsewhere the kernel kills a process to get memory. `ShMemOptions::prefault` allocates
///   all pages when a segment is created, and reports whether it could.
///
/// # Safety
///
/// `deref`, `deref_mut` and `access` must return the same memory each time. Its address must be a multiple
/// of 8. It must not be part of the value, and must stay valid, at the same address, until the value is
/// dropped or borrowed mutably. Callers place structures with atomics in it and rely on that, and so does
/// [`share`](Self::share): `id`, `len`, `description`, `hand_over` and `inherit` must not read the bytes,
/// so implement `len`, whose default creates a slice, if other processes write them.
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
    /// Returns the id that opens this segment in another process, as long as any process holds it.
    ///
    /// The id does not hold the segment. `provider.new_shmem(64)?.id()` drops the segment at the end of the
    /// statement, and no compiler warning catches that: bind the segment to a variable. (A segment that is
    /// not used at all, as in `provider.new_shmem(64)?;`, is an `unused_must_use`.)
    ///
    /// # Examples
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// use shmem_providers::{ShMemProvider, StdShMemProvider};
    ///
    /// StdShMemProvider::new()?.new_shmem(64)?;
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[must_use]
    fn id(&self) -> ShMemId;

    /// Returns the size of the segment in bytes, without creating a reference to them.
    #[must_use]
    fn len(&self) -> usize {
        (**self).len()
    }

    /// Returns `true` if the segment has no bytes, because it was released.
    #[must_use]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id and the size, to send to a process that is to attach. As the [`id`](Self::id), they do
    /// not hold the segment.
    #[must_use]
    fn description(&self) -> ShMemDescription {
        ShMemDescription {
            size: self.len(),
            id: self.id(),
        }
    }

    /// Returns access to the bytes that is sound while other processes write them.
    ///
    /// # Examples
    ///
    /// No slice of the same segment can live at the same time:
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

    /// Converts the segment into one that several owners in this process use at the same time, without
    /// slices: sound, whatever other processes do.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
    ///
    /// let shared = NopShMemProvider.new_shmem(4096)?.share();
    /// let clone = shared.clone();
    /// std::thread::spawn(move || clone.access().fill(1)).join().unwrap();
    /// assert_eq!(shared.view::<AtomicU64>(0)?.load(Ordering::Relaxed), 0x0101_0101_0101_0101);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[cfg(feature = "alloc")]
    fn share(self) -> Shared<Self> {
        Shared::new(self)
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

    /// Puts the id and the size into the environment of a command, as the variables `env_name` and
    /// `env_name` with `_SIZE` appended.
    ///
    /// The started program attaches with [`ShMemProvider::existing_from_env`]. Keep the segment until it
    /// has attached: the command does not hold the segment, unlike with [`inherit`](Self::inherit).
    ///
    /// # Errors
    ///
    /// [`Error::Environment`] if no variable can have this name: it is empty, or contains `=` or a zero
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
        command.env_remove(crate::handover::fd_name(env_name));
        Ok(())
    }

    /// As [`hand_over`](Self::hand_over), and passes the descriptor of the segment to the program that
    /// the command starts, and to no other.
    ///
    /// The started program attaches with [`ShMemProvider::existing_from_env`], as before. With the
    /// descriptor it needs no `/proc`, no service and no name. So this also works if it is in another pid
    /// namespace or container, if a sandbox hides this process from it, and if this process is not
    /// dumpable. Programs between the two, such as `unshare` or `bwrap`, have to leave the descriptor
    /// open. If one of them closes it, the started program attaches by the id.
    ///
    /// The variable `env_name` with `_FD` appended tells the number of the descriptor, and the device and
    /// the inode of the segment. The started program takes the descriptor over if it is that of the
    /// segment, once; what it starts itself does not inherit it. A program that does not attach keeps it
    /// open, and passes it on to what it starts.
    ///
    /// # Lifetime
    ///
    /// The command holds the segment until the command is dropped, each program that it has started until
    /// that ends or drops what it has attached to. A segment without a descriptor is held by neither: keep
    /// it until the program has attached.
    ///
    /// # Errors
    ///
    /// As [`hand_over`](Self::hand_over), and [`Error::Os`] if this process has no descriptor left.
    ///
    /// # Platform notes
    ///
    /// Segments without a descriptor (System V, Windows, [`NopShMemProvider`](crate::NopShMemProvider)) are
    /// only handed over. The default provider creates System V segments where memfd is not available, and in
    /// a process that is not dumpable. For a program in another IPC namespace, use `MemfdShMemProvider` or
    /// `FileShMemProvider` instead. On Windows, a handle that can be inherited is inherited by every program that is
    /// started at the same time, and stable Rust cannot limit that to one. Elsewhere, commands that pass a
    /// descriptor are started by `fork` instead of `posix_spawn` or `vfork`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::process::Command;
    /// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "test -e /proc/self/fd/${PICTURE_FD%%:*}"]);
    /// StdShMemProvider::new()?.shmem_from_bytes(b"a picture")?.inherit(&mut command, "PICTURE")?;
    /// // The command holds the segment now.
    /// assert!(command.status()?.success());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "std")]
    fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<(), Error> {
        self.hand_over(command, env_name)
    }

    /// Returns the descriptor of the segment, for [`sync::Presence`](crate::sync::Presence).
    #[cfg(all(any(unix, windows), feature = "std"))]
    #[doc(hidden)]
    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        None
    }

    /// Puts the id and the size into the environment of this process, as the variables `env_name`
    /// and `env_name` with `_SIZE` appended. Every program that it starts from now on inherits them.
    ///
    /// For a program that is started with a [`Command`](std::process::Command), use
    /// [`hand_over`](Self::hand_over), which is safe.
    ///
    /// # Errors
    ///
    /// As [`hand_over`](Self::hand_over).
    ///
    /// # Safety
    ///
    /// As [`std::env::set_var`]: except on Windows, no other thread may read or write the environment at
    /// the same time, not even through functions of the C library (`getaddrinfo`, `localtime`, …).
    #[cfg(feature = "std")]
    unsafe fn write_to_env(&self, env_name: &str) -> Result<(), Error> {
        for (name, value) in crate::handover::variables(self.description(), env_name)? {
            // SAFETY: the caller ensures that no other thread uses the environment.
            unsafe { std::env::set_var(name, value) };
        }
        // SAFETY: as above.
        unsafe { std::env::remove_var(crate::handover::fd_name(env_name)) };
        Ok(())
    }
}

/// Why a provider does not attach for reading only.
const NOT_READ_ONLY: Error = Error::Unsupported {
    what: "this provider does not implement shmem_from_id_read_only",
};

/// Creates segments, and opens those of other processes.
///
/// Providers are cheap to create and to clone. They hold no segments: dropping a provider leaves its
/// segments valid.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use shmem_providers::{Result, ShMem, ShMemId, ShMemProvider, StdShMemProvider};
///
/// /// Returns the first byte of a segment, with any provider.
/// fn first<P: ShMemProvider>(provider: &mut P, id: ShMemId) -> Result<u8> {
///     let mut byte = [0];
///     provider.shmem_from_id_read_only(id)?.access().read_at(0, &mut byte)?;
///     Ok(byte[0])
/// }
///
/// let mut provider = StdShMemProvider::new()?;
/// let mut segment = provider.new_shmem(64)?;
/// segment[0] = 7;
/// assert_eq!(first(&mut provider, segment.id())?, 7);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub trait ShMemProvider: Clone + Default + Debug {
    /// The segments of this provider.
    type ShMem: ShMem;

    /// Creates a provider.
    ///
    /// # Errors
    ///
    /// If the provider needs something that the system does not have.
    fn new() -> Result<Self, Error>;

    /// Creates a segment of `map_size` zero bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] if the size is zero or larger than `isize::MAX`, otherwise [`Error::Os`] with
    /// the limit that was reached. Nothing is left behind.
    ///
    /// # Lifetime
    ///
    /// The segment lives until the last process that holds it drops it or ends, however it ends.
    /// Providers with another lifetime document it.
    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error>;

    /// Attaches to all of a segment, whose size the operating system reports.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`], [`Error::Gone`], [`Error::NotFound`], [`Error::OtherUser`] or
    /// [`Error::Foreign`] if the id does not lead to a segment, [`Error::Os`] if the system refuses for
    /// another reason. All providers of this crate implement this method. The default, for providers that
    /// were written for 0.16, returns [`Error::Unsupported`].
    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        let _ = id;
        Err(Error::Unsupported {
            what: "this provider does not implement shmem_from_id, so it cannot ask for the size of \
                   a segment: attach with shmem_from_id_and_size",
        })?
    }

    /// Attaches to the first `size` bytes of a segment, which may have more.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the segment is smaller, [`Error::InvalidSize`] if no segment can have this
    /// size, otherwise as [`shmem_from_id`](Self::shmem_from_id).
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

    /// Attaches to all of a segment for reading only.
    ///
    /// This also opens what cannot be attached for writing: segments with a single writer, frozen
    /// segments, and snapshots. [`ReadOnly`] explains what protects the segment from this process.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id`](Self::shmem_from_id). The default, for providers that do not implement
    /// it, returns [`Error::Unsupported`].
    fn shmem_from_id_read_only(&mut self, id: ShMemId) -> Result<ReadOnly<Self::ShMem>, Error> {
        let _ = id;
        Err(NOT_READ_ONLY)
    }

    /// Attaches to the first `size` bytes of a segment for reading only.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](Self::shmem_from_id_and_size) and
    /// [`shmem_from_id_read_only`](Self::shmem_from_id_read_only).
    fn shmem_from_id_and_size_read_only(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<ReadOnly<Self::ShMem>, Error> {
        let _ = (id, size);
        Err(NOT_READ_ONLY)
    }

    /// Maps a segment that this process holds a second time, at another address. The result is a holder of
    /// its own.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id_and_size`](Self::shmem_from_id_and_size).
    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        self.shmem_from_description(mapping.description())
    }

    /// Creates a segment that contains `value`.
    ///
    /// Another process finds it with [`as_ptr_of`](ShMem::as_ptr_of). References and pointers in it are
    /// not valid there, and its destructor never runs.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](Self::new_shmem), also for a type of size zero, and [`Error::Misaligned`] if the
    /// type needs a larger alignment than that of a page.
    fn new_on_shmem<T: Sized + 'static>(&mut self, value: T) -> Result<Self::ShMem, Error> {
        let mut segment = self.uninit_on_shmem::<T>()?;
        match segment.as_mut_ptr_of::<T>() {
            // SAFETY: the pointer was checked for size and alignment, and no other process knows the
            // new segment.
            Some(start) => unsafe { start.write(value) },
            None => {
                return Err(Error::Misaligned {
                    align: align_of::<T>(),
                })?;
            }
        }
        Ok(segment)
    }

    /// Creates a segment of the size of `T`, all of it zero bytes.
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

    /// Attaches to the segment that [`hand_over`](ShMem::hand_over), [`inherit`](ShMem::inherit) or
    /// [`write_to_env`](ShMem::write_to_env) put into the environment under this name.
    ///
    /// Maps the whole segment if there is no variable for the size. The providers of this crate take over
    /// the descriptor that this program has inherited for the segment, if there is one, and otherwise
    /// attach by the id, as they do for every further call. A descriptor that is anything but the segment
    /// is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::Environment`] if the variable of the id is missing, or if it or that of the size cannot be
    /// parsed; otherwise [`Error::FromEnvironment`], which contains the error of
    /// [`shmem_from_id_and_size`](Self::shmem_from_id_and_size), and the reason why the descriptor could
    /// not be used.
    #[cfg(feature = "std")]
    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        let attached = match crate::handover::read(env_name)? {
            (id, Some(size)) => self.shmem_from_id_and_size(id, size),
            (id, None) => self.shmem_from_id(id),
        };
        attached.map_err(|error| crate::handover::named(env_name, error, None))
    }

    /// As [`existing_from_env`](Self::existing_from_env), for reading only.
    ///
    /// # Errors
    ///
    /// As [`existing_from_env`](Self::existing_from_env) and
    /// [`shmem_from_id_read_only`](Self::shmem_from_id_read_only).
    #[cfg(feature = "std")]
    fn existing_from_env_read_only(
        &mut self,
        env_name: &str,
    ) -> Result<ReadOnly<Self::ShMem>, Error> {
        let attached = match crate::handover::read(env_name)? {
            (id, Some(size)) => self.shmem_from_id_and_size_read_only(id, size),
            (id, None) => self.shmem_from_id_read_only(id),
        };
        attached.map_err(|error| crate::handover::named(env_name, error, None))
    }

    /// Prepares a `fork()`. Call it before `fork()`, and [`post_fork`](Self::post_fork) after it on both
    /// sides, by the same thread, even if `fork()` failed. Do not use the provider or its segments in this
    /// thread between the two calls.
    ///
    /// By default this does nothing. Providers with a connection or a lock block the other threads of this
    /// process until [`post_fork`](Self::post_fork).
    ///
    /// # Errors
    ///
    /// If the provider could not prepare. Then do not fork.
    fn pre_fork(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends what [`pre_fork`](Self::pre_fork) has started. Call it after a `fork()`, in the parent and in the
    /// child.
    ///
    /// # Errors
    ///
    /// If the provider cannot be used in this process.
    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        let _ = is_child;
        Ok(())
    }

    /// Releases a segment, as dropping it does.
    ///
    /// Segments of this crate keep their id afterwards and have no bytes. The default does nothing: then
    /// the segment is released when it is dropped.
    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        let _ = shmem;
    }

    /// For names: creates a segment. If it is to be persistent, [`keep_for_name`](Self::keep_for_name) can
    /// make it so.
    #[doc(hidden)]
    fn new_for_name(&mut self, map_size: usize, persistent: bool) -> Result<Self::ShMem, Error> {
        if persistent {
            return Err(Error::Unsupported {
                what: "the segments of this provider end with their last holder, so that none can stay \
                       until it is removed",
            })?;
        }
        self.new_shmem(map_size)
    }

    /// For names: keeps the id valid when the creator drops the segment, until
    /// [`forget_for_name`](Self::forget_for_name) is called. If it is persistent, keeps the memory as well.
    #[doc(hidden)]
    fn keep_for_name(&mut self, shmem: &mut Self::ShMem, persistent: bool) -> Result<(), Error> {
        let _ = (shmem, persistent);
        Ok(())
    }

    /// For names: removes what [`keep_for_name`](Self::keep_for_name) has kept: always, or only if no
    /// process is known to hold the segment.
    #[doc(hidden)]
    fn forget_for_name(id: ShMemId, if_unused: bool) {
        let _ = (id, if_unused);
    }
}
