//! System V shared memory: `shmget(2)`, `shmat(2)`, `shmctl(2)`, on every Unix but Android.
//!
//! The kernel knows a segment by a number, which every process of the IPC namespace can use:
//! AFL-style targets read it in decimal from `__AFL_SHM_ID`. Without further steps a segment stays
//! until it is removed, so crashed programs leave segments behind. On Linux this file marks a
//! segment for removal as soon as its creator has attached it: the kernel then frees it with the
//! last attached process, and until then other processes can attach by the number (`shmctl(2)`,
//! section `IPC_RMID` on Linux). On other systems the creator removes a segment when it drops it.
//!
//! No descriptor and no file system is needed. `ftok(3)` keys are not used, because they can
//! collide.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::Errno;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, ExclusiveLock, Expected, Growable, Lifecycle,
    Request, Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{OptionReport, OptionStatus, Priority, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, attachments, failed, failed_for, last_errno, limits, sysv};

/// Creates segments with `shmget(2)`.
///
/// The id is the shmid in decimal, which AFL-style targets read from `__AFL_SHM_ID`.
///
/// # Lifetime
///
/// On Linux a segment lives until the last process that has it attached drops it or ends. The
/// kernel frees it, so this holds for SIGKILL as well. The id opens it for just as long. There is
/// one exception: if the creator is killed between the system call that creates the segment and the
/// second one after it, which marks it for removal, the segment stays, unknown to any process. The
/// next process of the same user that creates a System V segment removes it.
///
/// On other systems the process that created a segment removes it when it drops it. From then on
/// the id no longer opens it, but processes that are attached stay attached. If the creator is
/// killed, the segment stays.
///
/// # Security
///
/// Only processes of the same user get in: by permissions, and because attaching compares both the
/// owner and the creator with this user, as a creator can set the owner to any user. A segment of
/// the same user that group or others may write to is refused too. Segments cannot be resized.
///
/// An id is a number, and in another IPC namespace (a container, `unshare --ipc`) the same number
/// names another segment or none. Attaching with the size of the segment, as
/// [`shmem_from_description`](crate::ShMemProvider::shmem_from_description) does, fails if the
/// other segment is smaller; otherwise the two cannot be told apart. Use another provider between
/// namespaces.
///
/// Segments of huge pages that another program created without reserving them (`SHM_HUGETLB` with
/// `SHM_NORESERVE`) would raise SIGBUS when they are touched while no page is free. Attaching
/// allocates all their pages, and fails if there are not enough. Two risks remain: a peer of the
/// same user can free huge pages of an attached segment (`MADV_REMOVE`), and where the system does
/// not overcommit memory (`vm.overcommit_memory=2`), ordinary segments created with `SHM_NORESERVE`
/// raise SIGBUS when the memory is used up.
///
/// # Platform notes
///
/// The limits are small on some systems: `kernel.shmmni` (4096 segments), `kernel.shmmax` and
/// `kernel.shmall` on Linux. A segment takes no descriptor. Processes in another IPC namespace do
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

/// The number of a segment. It does not keep the segment alive; the attachment does.
#[derive(Clone, Copy, Debug)]
pub struct Shmid(c_int);

#[cfg(feature = "std")]
impl Shmid {
    pub(crate) fn number(self) -> c_int {
        self.0
    }
}

/// On systems where a segment that is marked for removal can still be attached, it is marked at
/// once, and the kernel removes it with its last attachment.
pub(crate) const CLEANUP: Cleanup = if sysv::REMOVED_BUT_OPEN {
    Cleanup::Kernel
} else {
    Cleanup::Unlink
};

impl Backend for SystemVBackend {
    type Handle = Shmid;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<Shmid>> {
        let Request { size, options, .. } = request;
        if options.reserve.is_some() {
            return Err(FIXED_SIZE);
        }
        options.without_required().refuse(&UNSUPPORTED, report)?;
        let huge = options.huge_pages.map(|(pages, priority)| {
            let created = sysv::huge(pages).and_then(|flags| attach_new(get(size, flags)?, size));
            (created, priority)
        });
        let created = match huge {
            Some((Ok(created), _)) => {
                report.huge_pages = OptionStatus::Granted;
                created
            }
            Some((Err(error), Priority::Required)) => return Err(error),
            Some((Err(error), Priority::BestEffort)) => {
                report.huge_pages = OptionStatus::Refused(error);
                attach_new(get_after_cleaning(size)?, size)?
            }
            None => attach_new(get_after_cleaning(size)?, size)?,
        };
        let mut created = created.filled_with(request.content);
        let options = options.without_huge_pages();
        sys::apply_options(&mut created.mapping, options, report);
        Ok(created)
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

    fn map(&self, handle: &Shmid, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        let id = ShMemId::from_int(handle.0);
        // Checked before attaching, so that a segment of another user is never attached.
        info(*handle, id)?;
        let mapping = shmat(*handle, Subject::Id(id), attach.protection)?;
        // The number can have been given to another segment since the check. An attached segment
        // keeps its number, so the second check is about the segment that is attached.
        let len = info(*handle, id)?.mapped_len(attach.len)?;
        // SAFETY: the attached segment has at least `len` bytes, as `mapped_len` ensures, and
        // `detach` ignores the length.
        let mut mapping = unsafe { mapping.with_len(len) };
        sys::populate_or_refuse(&mapping)?;
        let options = attach.options.without_huge_pages();
        sys::apply_options(&mut mapping, options, report);
        Ok(mapping)
    }

    fn unlink(&self, handle: &Shmid, id: &ShMemId) -> Result<()> {
        // Another process may have removed the segment, and its number may belong to another
        // segment now.
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

impl Growable for SystemVBackend {}

impl Snapshots for SystemVBackend {}

/// Why a segment cannot grow.
const FIXED_SIZE: Error = Error::Unsupported {
    what: "a System V segment has the size that it is created with: use memfd or POSIX segments, which \
           can grow on Linux",
};

/// Attaches a new segment, and marks it for removal where it can still be opened then.
fn attach_new(shmid: Shmid, size: usize) -> Result<Created<Shmid>> {
    let attached = shmat(shmid, Subject::Bytes(size), Protection::ReadWrite);
    if CLEANUP == Cleanup::Kernel || attached.is_err() {
        let removed = sysv::remove(shmid.0);
        // The creator is always allowed to remove its segment. Once it is marked, dropping the
        // mapping frees it.
        removed.map_err(|errno| failed("shmctl(IPC_RMID)", errno, Subject::Bytes(size)))?;
    }
    // SAFETY: the kernel created the segment with at least `size` bytes, and `detach` ignores the
    // length.
    let mapping = unsafe { attached?.with_len(size) };
    Ok(Created {
        handle: shmid,
        id: ShMemId::from_int(shmid.0),
        mapping,
        cleanup: CLEANUP,
    })
}

/// Creates a segment. Once per process, and whenever the system has no more segments, those that
/// killed processes left behind are removed first.
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
        result => result,
    }
}

fn get(size: usize, flags: c_int) -> Result<Shmid> {
    let all = flags | libc::IPC_CREAT | libc::IPC_EXCL | sysv::MODE;
    // SAFETY: no pointer is passed.
    match unsafe { libc::shmget(libc::IPC_PRIVATE, size, all) } {
        -1 => Err(failed_for(
            "shmget",
            last_errno(),
            Subject::Bytes(size),
            |errno| match limits::for_system_v(errno) {
                // Huge pages need a privilege.
                None if flags == 0 => sys::for_unprivileged(errno),
                limit => limit,
            },
        )),
        number => Ok(Shmid(number)),
    }
}

/// Attaches a segment. The length of the mapping is zero until the caller sets it.
fn shmat(shmid: Shmid, subject: Subject, protection: Protection) -> Result<Mapping> {
    let flags = match protection {
        Protection::ReadWrite => 0,
        Protection::Read => sysv::SHM_RDONLY,
    };
    // SAFETY: the kernel chooses an unused address.
    let base = unsafe { libc::shmat(shmid.0, ptr::null(), flags) };
    match NonNull::new(base.cast::<u8>()) {
        Some(base) if base.as_ptr().addr() != usize::MAX => {
            // SAFETY: the attachment is new and nothing else owns it, and its address is a multiple
            // of the page size.
            Ok(unsafe { Mapping::from_raw(base, 0, detach) })
        }
        _ => Err(match (last_errno(), subject) {
            (errno, Subject::Id(id)) => refused("shmat", errno, id),
            (errno, _) => failed_for("shmat", errno, subject, limits::for_mapping),
        }),
    }
}

/// Detaches what [`shmat`] attached.
///
/// # Safety
///
/// As for `shmdt`: `base` is the address of an attached segment, and nothing refers to it any more.
unsafe fn detach(base: NonNull<u8>, _len: usize) {
    attachments::will_detach();
    // SAFETY: the caller ensures that a segment is attached at `base` and that nothing refers to
    // it. The call cannot fail then.
    let _ = unsafe { libc::shmdt(base.as_ptr().cast()) };
}

/// Returns what the system reports about a segment, if it belongs to this user alone.
fn info(shmid: Shmid, id: ShMemId) -> Result<FileInfo> {
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
        mode: 0,
    })
}

/// Returns the error for an id that the system refused.
fn refused(call: &'static str, errno: Errno, id: ShMemId) -> Error {
    match errno {
        Errno::INVAL | Errno::IDRM => Error::Gone { id },
        Errno::ACCESS | Errno::PERM => denied(call, errno, id),
        _ => failed_for(call, errno, Subject::Id(id), limits::for_mapping),
    }
}

/// Returns the error for a segment to which the system denies access, with its owner if the system
/// reports that.
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
        // A security module denies it.
        Ok(()) => failed(call, errno, Subject::Id(id)),
    }
}
