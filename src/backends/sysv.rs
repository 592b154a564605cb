//! System V shared memory: `shmget(2)`, `shmat(2)`, `shmctl(2)`, on every Unix but Android.
//!
//! The kernel knows a segment by a number, and so does everyone who was told it: targets in the
//! manner of AFL read it, in decimal, from `__AFL_SHM_ID`. By itself a segment stays until it is
//! removed, which is how programs that crashed have left so many. On Linux it is removed here as
//! soon as its creator has attached it: the kernel keeps it for as long as anybody is attached, and
//! lets others attach by the number until then (`shmctl(2)`, section `IPC_RMID` on Linux).
//! Elsewhere its creator removes it when it drops it.
//!
//! Needs no descriptor and no file system. Not chosen: `ftok(3)` keys, which can collide.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::Errno;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, ExclusiveLock, Expected, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, OptionStatus, Priority, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, attachments, failed, failed_for, last_errno, limits, sysv};

/// Makes segments with `shmget(2)`.
///
/// The id is the shmid in decimal: what AFL-style targets read from `__AFL_SHM_ID`.
///
/// # Lifetime
///
/// On Linux a segment lives until the last process that has it attached drops it or ends; the
/// kernel sees to that, so it holds for SIGKILL as well. The id opens it for just as long. One thing
/// can be left behind: a creator that is killed between the system call that makes the segment and
/// the second one after it, which marks it for removal, leaves it, unknown to anybody. The next
/// process of the same user that makes a System V segment removes it.
///
/// Elsewhere the process that made a segment removes it when it drops it. From then on its id opens
/// it no more, though who is attached stays so; and if the creator is killed, the segment stays.
///
/// # Security
///
/// Only processes of the same user get in: by permissions, and whoever attaches compares both the
/// owner and the creator with itself, because a creator can set the owner to any user. A segment of
/// the same user that group or others may write to is refused as well. Segments cannot be resized.
///
/// An id is a number, and the same number names another segment, or none, in another IPC namespace
/// (a container, `unshare --ipc`). Attaching with the size that the segment was made with, as
/// [`shmem_from_description`](crate::ShMemProvider::shmem_from_description) does, fails if the other
/// segment is smaller; if it is not, nothing tells the two apart. Between namespaces use another
/// provider.
///
/// Segments of huge pages which other programs have made without reserving them (`SHM_HUGETLB` with
/// `SHM_NORESERVE`) would raise SIGBUS when they are touched and no page is free. They get their pages
/// when they are attached, and are refused if there are not enough. What remains: a peer of the same
/// user can take huge pages away from a segment that is attached (`MADV_REMOVE`), and where the system
/// promises no more memory than it has (`vm.overcommit_memory=2`), ordinary segments made with
/// `SHM_NORESERVE` raise SIGBUS when that is used up.
///
/// # Platform notes
///
/// The limits are small on some systems: `kernel.shmmni` (4096 segments), `kernel.shmmax`,
/// `kernel.shmall` on Linux. A segment costs no descriptor. Processes in another IPC namespace do
/// not see it.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemProvider, UnixShMemProvider};
///
/// let mut provider = UnixShMemProvider::new()?;
/// # if let Err(error) = provider.new_shmem(1) {
/// #     eprintln!("skipped: {error}");
/// #     return Ok(());
/// # }
/// let map = provider.new_shmem(65536)?;
/// assert!(map.id().as_int().is_some());
/// assert_eq!(provider.shmem_from_id(map.id())?.len(), 65536);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type CommonUnixShMemProvider = Provider<SystemVBackend>;

/// A segment of [`CommonUnixShMemProvider`].
pub type CommonUnixShMem = Segment<SystemVBackend>;

/// The backend of [`CommonUnixShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemVBackend;

/// The number of a segment. It keeps nothing alive; being attached does.
#[derive(Clone, Copy, Debug)]
pub struct Shmid(c_int);

#[cfg(feature = "std")]
impl Shmid {
    pub(crate) fn number(self) -> c_int {
        self.0
    }
}

/// The system removes a segment that is marked while attached once nobody is attached any more.
pub(crate) const CLEANUP: Cleanup = if sysv::REMOVED_BUT_OPEN {
    Cleanup::Kernel
} else {
    Cleanup::Unlink
};

impl Backend for SystemVBackend {
    type Handle = Shmid;

    fn create(&self, request: Request<'_>) -> Result<Created<Shmid>> {
        let Request { size, options, .. } = request;
        let mut report = options.without_required().refused(&UNSUPPORTED)?;
        let huge = options.huge_pages.map(|(pages, priority)| {
            let made = sysv::huge(pages).and_then(|flags| created(get(size, flags)?, size));
            (made, priority)
        });
        let made = match huge {
            Some((Ok(made), _)) => {
                report.huge_pages = OptionStatus::Granted;
                made
            }
            Some((Err(error), Priority::Required)) => return Err(error),
            Some((Err(error), Priority::BestEffort)) => {
                report.huge_pages = OptionStatus::Refused(error);
                created(get_after_cleaning(size)?, size)?
            }
            None => created(get_after_cleaning(size)?, size)?,
        };
        let mut made = made.filled_with(request.content);
        let options = options.without_huge_pages();
        sys::apply_options(&mut made.mapping, options, &mut report);
        Ok(Created { report, ..made })
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<Shmid> {
        match id.kind() {
            IdKind::SystemV { shmid } => Ok(Shmid(shmid)),
            _ => Err(id.invalid("the id of a System V segment is a decimal number")),
        }
    }

    fn duplicate(&self, handle: &Shmid) -> Result<Shmid> {
        Ok(*handle)
    }

    fn map(&self, handle: &Shmid, attach: Attach) -> Result<(Mapping, OptionReport)> {
        let mut report = attach.options.refused(&UNSUPPORTED)?;
        let id = ShMemId::from_int(handle.0);
        // Another user's segment is not even attached to.
        facts(*handle, id)?;
        let mapping = shmat(*handle, Subject::Id(id))?;
        // The number could have been given to another segment since. Now that one of that number is
        // attached, it keeps the number until it is detached, so this is what the facts are of.
        let len = facts(*handle, id)?.mapped_len(attach.len)?;
        // SAFETY: the segment that is attached has at least `len` bytes, and `detach` asks for none.
        let mut mapping = unsafe { mapping.with_len(len) };
        sys::populate_or_refuse(&mapping)?;
        let options = attach.options.without_huge_pages();
        sys::apply_options(&mut mapping, options, &mut report);
        Ok((mapping, report))
    }

    fn unlink(&self, handle: &Shmid, id: &ShMemId) -> Result<()> {
        // Somebody may have removed it, and the number may have been given to another segment.
        let (_, stat) = sysv::ask(handle.0, sysv::IPC_STAT)
            .map_err(|errno| refused("shmctl(IPC_STAT)", errno, *id))?;
        sysv::check_owner(&stat)?;
        if stat.shm_cpid != rustix::process::getpid().as_raw_nonzero().get() {
            return Err(Error::Gone { id: *id });
        }
        sysv::remove(handle.0).map_err(|errno| refused("shmctl(IPC_RMID)", errno, *id))
    }
}

impl Lifecycle for SystemVBackend {}

impl Exclusive for SystemVBackend {
    fn supports_exclusive(&self, _handle: &Shmid) -> bool {
        CLEANUP == Cleanup::Kernel
    }

    fn try_lock_exclusive(&self, handle: &Shmid) -> Option<ExclusiveLock> {
        if CLEANUP != Cleanup::Kernel {
            return None;
        }
        attachments::exclusive(handle.0).map(ExclusiveLock)
    }

    fn unlock_exclusive(&self, handle: &Shmid, lock: ExclusiveLock) -> bool {
        attachments::were_exclusive_since(handle.0, lock.0)
    }
}

impl Sparse for SystemVBackend {}

impl Snapshots for SystemVBackend {}

/// Attaches a segment that has just been made, and marks it for removal where that leaves it open.
fn created(shmid: Shmid, size: usize) -> Result<Created<Shmid>> {
    let attached = shmat(shmid, Subject::Bytes(size));
    if CLEANUP == Cleanup::Kernel || attached.is_err() {
        let removed = sysv::remove(shmid.0);
        // Dropping what is attached frees it if the removal went through, and it always does for
        // who has just made it.
        removed.map_err(|errno| failed("shmctl(IPC_RMID)", errno, Subject::Bytes(size)))?;
    }
    // SAFETY: the kernel has made the segment with at least `size` bytes, and `detach` asks for
    // none.
    let mapping = unsafe { attached?.with_len(size) };
    Ok(Created {
        handle: shmid,
        id: ShMemId::from_int(shmid.0),
        mapping,
        cleanup: CLEANUP,
        report: OptionReport::default(),
    })
}

/// A new segment. Once per process, and when there are no more to be had, what was left by
/// processes that were killed is removed before.
fn get_after_cleaning(size: usize) -> Result<Shmid> {
    static CLEANED: AtomicBool = AtomicBool::new(false);

    if !CLEANED.swap(true, Relaxed) {
        sysv::remove_orphans();
    }
    match get(size, 0) {
        Err(error)
            if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
                && sysv::remove_orphans() > 0 =>
        {
            get(size, 0)
        }
        done => done,
    }
}

fn get(size: usize, flags: c_int) -> Result<Shmid> {
    let flags = flags | libc::IPC_CREAT | libc::IPC_EXCL | sysv::MODE;
    // SAFETY: no pointer is passed.
    match unsafe { libc::shmget(libc::IPC_PRIVATE, size, flags) } {
        -1 => Err(failed_for(
            "shmget",
            last_errno(),
            Subject::Bytes(size),
            limits::for_system_v,
        )),
        number => Ok(Shmid(number)),
    }
}

/// Attaches, with a length of zero until the caller knows better.
fn shmat(shmid: Shmid, subject: Subject) -> Result<Mapping> {
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { libc::shmat(shmid.0, ptr::null(), 0) };
    match NonNull::new(base.cast::<u8>()) {
        Some(base) if base.as_ptr().addr() != usize::MAX => {
            // SAFETY: the attachment is new and ours, and its address a multiple of the page size.
            Ok(unsafe { Mapping::from_raw(base, 0, detach) })
        }
        _ => Err(match (last_errno(), subject) {
            (errno, Subject::Id(id)) => refused("shmat", errno, id),
            (errno, _) => failed_for("shmat", errno, subject, limits::for_mapping),
        }),
    }
}

/// Gives back what [`shmat`] got.
///
/// # Safety
///
/// As for `shmdt`: `base` is where a segment is attached, and nobody refers to it any more.
unsafe fn detach(base: NonNull<u8>, _len: usize) {
    attachments::will_detach();
    // SAFETY: demanded from the caller. A failure would mean that it was not attached; there is
    // nothing to be done about that here.
    let _ = unsafe { libc::shmdt(base.as_ptr().cast()) };
}

/// What the system says of a segment, if it belongs to this user alone.
fn facts(shmid: Shmid, id: ShMemId) -> Result<FileInfo> {
    let (_, stat) = sysv::ask(shmid.0, sysv::IPC_STAT)
        .map_err(|errno| refused("shmctl(IPC_STAT)", errno, id))?;
    sysv::check_access(&stat)?;
    Ok(FileInfo {
        #[allow(
            clippy::useless_conversion,
            reason = "the type differs from system to system"
        )]
        size: u64::try_from(stat.shm_segsz).unwrap_or(0),
        block: 0,
        owner: stat.shm_perm.uid,
    })
}

/// The error for an id that the system refused.
fn refused(call: &'static str, errno: Errno, id: ShMemId) -> Error {
    match errno {
        Errno::INVAL | Errno::IDRM => Error::Gone { id },
        Errno::ACCESS | Errno::PERM => denied(call, errno, id),
        _ => failed_for(call, errno, Subject::Id(id), limits::for_mapping),
    }
}

/// The error for a segment to which the system denies access: whose it is, if the system tells that.
fn denied(call: &'static str, errno: Errno, id: ShMemId) -> Error {
    let stat = id.as_int().and_then(sysv::ask_without_permission);
    let Some(stat) = stat else {
        return Error::OtherUser { owner: None };
    };
    match sysv::check_access(&stat) {
        Err(error) => error,
        Ok(()) if sysv::mode(&stat) & 0o600 != 0o600 => Error::Foreign {
            found: "its permissions do not let its owner read and write it",
        },
        // A security module.
        Ok(()) => failed(call, errno, Subject::Id(id)),
    }
}
