//! Win32: `CreateFileMapping`, on every Windows.
//!
//! A *section* backed by the page file, under a random name in `Local\`: the names of one session.
//! The kernel frees it with the last handle and view, so nothing can be left behind; its name opens
//! it for as long as somebody has a handle, which is why everyone who attaches keeps one. Nobody can
//! resize a section. Its memory is taken off the system's commit limit when it is made, so that
//! touching a page cannot fail later.
//!
//! How large a section is, Windows tells only of a view, by `VirtualQuery`, and in whole pages. Not
//! chosen: `NtQuerySection`, which is undocumented, and handles duplicated into other processes,
//! which need the right `PROCESS_DUP_HANDLE`.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_INVALID_HANDLE,
    ERROR_NOT_ENOUGH_MEMORY, ERROR_PATH_NOT_FOUND, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::System::Memory::{
    CreateFileMappingA, FILE_MAP_READ, FILE_MAP_WRITE, MEM_COMMIT, MEM_MAPPED,
    MEMORY_BASIC_INFORMATION, MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, OpenFileMappingA,
    PAGE_READWRITE, UnmapViewOfFile, VirtualQuery,
};

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Lifecycle, Request, Snapshots, Sparse,
};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::memory::size::{check_size, mapped_len};
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, OwnedHandle, failed, last_error};
use crate::util::base64;
use crate::util::fixed_str::FixedStr;

/// Makes segments with `CreateFileMapping`, backed by the page file.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel sees to that,
/// so it holds for `TerminateProcess` as well. The id opens it for just as long, whether its creator
/// still runs or not.
///
/// # Security
///
/// A section is made with the default access rights of its creator: the same user, the system, and
/// administrators if its creator is one. Who runs under another user is refused by the kernel, and
/// what another user owns is refused here, even if it is open to us; with an administrator's full rights,
/// what is made belongs to all administrators (`GetKernelObjectSecurity`, `TokenOwner`). Nobody can resize a segment, and what is attached is checked to be memory that is there.
///
/// # Platform notes
///
/// The id is `w` and 18 random characters, and names the section in `Local\`, which all processes of
/// the same session share: of one log-on, or, for services, of session 0. To share across sessions,
/// choose a name in `Global\` with [`new_shmem_with_id`](Self::new_shmem_with_id): every session sees
/// it, and to make one needs the privilege `SeCreateGlobalPrivilege`, which administrators and
/// services have. To open one needs no privilege, but the same user.
///
/// Sizes are told in whole pages: [`shmem_from_id`](crate::ShMemProvider::shmem_from_id) of a segment
/// of 5000 bytes attaches to 8192, the rest of which are zeros at first, and as many may be asked
/// for. To attach to just as many as there were asked for, pass on the
/// [description](crate::ShMem::description), not the id alone.
///
/// Handles are not inherited by children.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemProvider, Win32ShMemProvider};
///
/// let mut provider = Win32ShMemProvider::new()?;
/// let mut segment = provider.new_shmem(65536)?;
/// segment[0] = 1;
/// let again = provider.shmem_from_id(segment.id())?; // in any process of this session and user
/// assert_eq!((again[0], again.len()), (1, 65536));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type Win32ShMemProvider = Provider<Win32Backend>;

/// A segment of [`Win32ShMemProvider`].
pub type Win32ShMem = Segment<Win32Backend>;

/// The backend of [`Win32ShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Win32Backend;

/// How many random names are tried. A single one of 108 bits that exists means that something is
/// wrong.
const TRIES: usize = 4;

/// To read and to write.
const READ_WRITE: u32 = FILE_MAP_READ | FILE_MAP_WRITE;

/// To be told the owner (`winnt.h`).
const READ_CONTROL: u32 = 0x0002_0000;

/// The names of one session.
const LOCAL: &str = r"Local\";

/// The names of all sessions.
const GLOBAL: &str = r"Global\";

impl Win32ShMemProvider {
    /// Makes a segment of `map_size` zero bytes under a name of your choice, which is its id as well:
    /// `Local\` or `Global\` and one component, 19 bytes at most all together.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if that is no such name; [`Error::Os`] with `ERROR_ALREADY_EXISTS` if a
    /// section has it, `ERROR_INVALID_HANDLE` if something else has, and with `ERROR_ACCESS_DENIED`
    /// if another user's has or if, for `Global\`, this process does not have the privilege
    /// `SeCreateGlobalPrivilege`; otherwise as [`new_shmem`](crate::ShMemProvider::new_shmem).
    ///
    /// # Security
    ///
    /// A name that others can guess can be taken by other users before you.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMem, ShMemProvider, Win32ShMemProvider};
    ///
    /// let name = format!(r"Local\{}", std::process::id());
    /// let mut provider = Win32ShMemProvider::new()?;
    /// let segment = provider.new_shmem_with_id(4096, &name)?;
    /// assert_eq!(segment.id().as_str(), name);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn new_shmem_with_id(&mut self, map_size: usize, name: &str) -> Result<Win32ShMem> {
        let created = create(ShMemId::from_string(name), check_size(map_size)?)?;
        Ok(Segment::from_created(created, &self.backend))
    }
}

impl Backend for Win32Backend {
    type Handle = OwnedHandle;

    fn create(&self, request: Request<'_>) -> Result<Created<OwnedHandle>> {
        let report = request.options.refused(&UNSUPPORTED)?;
        let size = request.size;
        let mut taken = failed(
            "CreateFileMapping",
            ERROR_ALREADY_EXISTS,
            Subject::Bytes(size),
        );
        for _ in 0..TRIES {
            match create(random_id()?, size) {
                Err(error) if error.raw_os_error() == Some(sys::errno(ERROR_ALREADY_EXISTS)) => {
                    taken = error;
                }
                done => {
                    let created = Created { report, ..done? };
                    return Ok(created.filled_with(request.content));
                }
            }
        }
        Err(taken)
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<OwnedHandle> {
        let name = Name::of(id)?;
        // SAFETY: the name ends with a zero.
        let raw = unsafe { OpenFileMappingA(READ_WRITE | READ_CONTROL, 0, name.as_ptr()) };
        let error = last_error();
        // SAFETY: it is null, or a new handle that is ours.
        let handle = unsafe { OwnedHandle::from_raw(raw) };
        let handle = handle.ok_or_else(|| match error {
            ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND => Error::Gone { id: *id },
            ERROR_ACCESS_DENIED => Error::OtherUser { owner: None },
            ERROR_INVALID_HANDLE => Error::Foreign {
                found: "it is no section",
            },
            _ => failed("OpenFileMapping", error, Subject::Id(*id)),
        })?;
        // The name may have been taken since it was ours, by somebody who lets us in.
        if sys::is_ours(&handle)? {
            Ok(handle)
        } else {
            Err(Error::OtherUser { owner: None })
        }
    }

    fn duplicate(&self, handle: &OwnedHandle) -> Result<OwnedHandle> {
        handle.duplicate()
    }

    fn map(&self, handle: &OwnedHandle, attach: Attach) -> Result<(Mapping, OptionReport)> {
        let report = attach.options.refused(&UNSUPPORTED)?;
        let (mapping, size) = map_all(handle, Subject::Nothing)?;
        let len = mapped_len(size as u64, attach.len)?;
        // SAFETY: as many bytes are mapped, and `unmap` asks for no length.
        let mapping = unsafe { mapping.with_len(len) };
        Ok((mapping, report))
    }

    fn unlink(&self, _handle: &OwnedHandle, _id: &ShMemId) -> Result<()> {
        Ok(())
    }
}

impl Lifecycle for Win32Backend {}

impl Exclusive for Win32Backend {}

impl Sparse for Win32Backend {}

impl Snapshots for Win32Backend {}

/// A segment with this id. After an error there is none, unless there was one before.
fn create(id: ShMemId, size: usize) -> Result<Created<OwnedHandle>> {
    let name = Name::of(&id)?;
    let [high, low] = [(size as u64) >> 32, (size as u64) & u64::from(u32::MAX)]
        .map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    sys::forget_last_error();
    // SAFETY: the name ends with a zero, and the attributes may be null.
    let raw = unsafe {
        CreateFileMappingA(
            INVALID_HANDLE_VALUE,
            ptr::null(),
            PAGE_READWRITE,
            high,
            low,
            name.as_ptr(),
        )
    };
    let error = last_error();
    // SAFETY: it is null, or a new handle that is ours.
    let handle = unsafe { OwnedHandle::from_raw(raw) };
    // For a name that exists there is a handle as well: to what somebody else has made.
    let handle = handle
        .filter(|_| error != ERROR_ALREADY_EXISTS)
        .ok_or_else(|| refused(error, &id, size))?;
    let (mapping, _) = map_all(&handle, Subject::Bytes(size))?;
    // SAFETY: the kernel has made the section with at least `size` bytes, and `unmap` asks for no
    // length.
    let mapping = unsafe { mapping.with_len(size) };
    Ok(Created {
        handle,
        id,
        mapping,
        cleanup: Cleanup::Kernel,
        report: OptionReport::default(),
    })
}

/// The error for a section that could not be made.
fn refused(error: u32, id: &ShMemId, size: usize) -> Error {
    match failed("CreateFileMapping", error, Subject::Bytes(size)) {
        Error::Os {
            call,
            errno,
            subject,
            ..
        } if error == ERROR_ACCESS_DENIED && id.as_str().starts_with(GLOBAL) => Error::Os {
            call,
            errno,
            subject,
            limit: Some(Limit::Privilege {
                name: "SeCreateGlobalPrivilege",
            }),
        },
        other => other,
    }
}

/// Maps all of a section, and says how much that is, in bytes: the length of the mapping is zero
/// until the caller has chosen.
fn map_all(handle: &OwnedHandle, subject: Subject) -> Result<(Mapping, usize)> {
    // SAFETY: the handle is open, and the kernel chooses the address, so no other memory of this
    // process is touched.
    let view = unsafe { MapViewOfFile(handle.as_raw(), READ_WRITE, 0, 0, 0) };
    let error = last_error();
    let base = NonNull::new(view.Value.cast::<u8>())
        .ok_or_else(|| failed("MapViewOfFile", error, subject))?;
    // SAFETY: the view is new and ours, and its address a multiple of 64 KiB.
    let mapping = unsafe { Mapping::from_raw(base, 0, unmap) };

    let mut facts = MaybeUninit::<MEMORY_BASIC_INFORMATION>::zeroed();
    // SAFETY: the pointer is valid for the write of as many bytes.
    let written = unsafe {
        VirtualQuery(
            base.as_ptr().cast(),
            facts.as_mut_ptr(),
            size_of::<MEMORY_BASIC_INFORMATION>(),
        )
    };
    if written == 0 {
        return Err(failed("VirtualQuery", last_error(), subject));
    }
    // SAFETY: all zeros are a value of it, and so is what was written.
    let facts = unsafe { facts.assume_init() };
    // A program, or a section whose memory is only reserved: to touch it could fail.
    if facts.Type != MEM_MAPPED || facts.State != MEM_COMMIT || facts.Protect != PAGE_READWRITE {
        return Err(Error::Foreign {
            found: "its memory is not there to be read and written",
        });
    }
    if isize::try_from(facts.RegionSize).is_err() {
        return Err(failed("MapViewOfFile", ERROR_NOT_ENOUGH_MEMORY, subject));
    }
    Ok((mapping, facts.RegionSize))
}

/// Gives back what [`map_all`] mapped.
///
/// # Safety
///
/// `base` is where a view starts, and nobody refers to it any more.
unsafe fn unmap(base: NonNull<u8>, _len: usize) {
    let view = MEMORY_MAPPED_VIEW_ADDRESS {
        Value: base.as_ptr().cast(),
    };
    // SAFETY: demanded from the caller. A failure would mean that it was not mapped; there is
    // nothing to be done about that here.
    unsafe { UnmapViewOfFile(view) };
}

/// What the kernel calls a section, with a zero behind it.
struct Name {
    text: FixedStr<32>,
}

impl Name {
    fn of(id: &ShMemId) -> Result<Self> {
        let text = id.as_str();
        if id.kind() != IdKind::Section {
            return Err(id.invalid(
                "the id of a section is `w` and 18 characters of base64url, or a name in Local\\ or \
                 Global\\",
            ));
        }
        let space = if text.starts_with('w') { LOCAL } else { "" };
        Ok(Self {
            text: FixedStr::joined(&[space.as_bytes(), text.as_bytes(), b"\0"]),
        })
    }

    fn as_ptr(&self) -> *const u8 {
        self.text.as_bytes().as_ptr()
    }
}

/// 108 random bits.
fn random_id() -> Result<ShMemId> {
    let (high, low) = (sys::nonce()?, sys::nonce()?);
    let digits: ([u8; 7], [u8; 11]) = (base64::digits(high), base64::digits(low));
    Ok(ShMemId::joined(&[b"w", &digits.0, &digits.1]))
}
