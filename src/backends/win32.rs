//! Win32: `CreateFileMapping`, on every Windows.
//!
//! A *section* is backed by the page file and has a random name in `Local\`, the namespace of one
//! session. The kernel frees it with the last handle and view, so nothing can be left behind. Its
//! name opens it for as long as a process has a handle, so every process that attaches keeps one. A
//! section cannot be resized. Its memory counts against the system's commit limit from its
//! creation, so that touching a page cannot fail later.
//!
//! Windows reports the size of a section only for a view, with `VirtualQuery`, and in whole pages.
//! Alternatives that are not used: `NtQuerySection`, which is undocumented, and handles duplicated
//! into other processes, which need the access right `PROCESS_DUP_HANDLE`.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};
#[cfg(feature = "std")]
use std::os::windows::io::{AsHandle, BorrowedHandle};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, ERROR_INVALID_HANDLE,
    ERROR_NOT_ENOUGH_MEMORY, ERROR_PATH_NOT_FOUND, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::System::Memory::{
    CreateFileMappingA, FILE_MAP_READ, FILE_MAP_WRITE, MEM_COMMIT, MEM_MAPPED,
    MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, OpenFileMappingA, PAGE_READONLY, PAGE_READWRITE,
    SEC_COMMIT, SEC_RESERVE, UnmapViewOfFile,
};

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Growable, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::{Mapping, Protection};
use crate::memory::size::{check_size, mapped_len};
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::views::{self, SectionName};
use crate::sys::{self, OwnedHandle, failed, growth, last_error};
use crate::util::base64;
use crate::util::fixed_str::FixedStr;

/// Creates segments with `CreateFileMapping`, backed by the page file.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it drops it or ends. The kernel frees it, so
/// this holds for `TerminateProcess` as well. The id opens it for just as long, whether or not its
/// creator still runs.
///
/// # Security
///
/// A section has the default access rights of its creator: the same user, the system, and
/// administrators if its creator is one. The kernel refuses other users. This crate refuses
/// sections that another user owns, even if this process may open them. What a process with full
/// administrator rights creates belongs to all administrators (`GetKernelObjectSecurity`,
/// `TokenOwner`). A segment cannot be resized, and attaching checks that its memory is committed.
///
/// # Platform notes
///
/// The id is `w` and 18 random characters, and names the section in `Local\`, which all processes
/// of the same session share: those of one log-on, or, for services, of session 0. To share across
/// sessions, choose a name in `Global\` with [`new_shmem_with_id`](Self::new_shmem_with_id): every
/// session sees it. Creating one needs the privilege `SeCreateGlobalPrivilege`, which
/// administrators and services have. Opening one needs no privilege, but the same user.
///
/// Windows reports sizes in whole pages. [`shmem_from_id`](crate::ShMemProvider::shmem_from_id) for
/// a segment of 5000 bytes attaches to 8192 bytes, the rest of which are zero at first, and up to
/// 8192 can be asked for. To attach to exactly the size that was asked for, hand over the
/// [description](crate::ShMem::description) instead of the id alone.
///
/// Child processes do not inherit the handles.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemProvider, Win32ShMemProvider};
///
/// let mut provider = Win32ShMemProvider::new()?;
/// let mut segment = provider.new_shmem(65536)?;
/// segment[0] = 1;
/// let attached = provider.shmem_from_id(segment.id())?; // in any process of this session and user
/// assert_eq!((attached[0], attached.len()), (1, 65536));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type Win32ShMemProvider = Provider<Win32Backend>;

/// A segment of [`Win32ShMemProvider`].
pub type Win32ShMem = Segment<Win32Backend>;

/// The backend of [`Win32ShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Win32Backend;

/// An open section.
#[derive(Debug)]
pub struct Section {
    handle: OwnedHandle,
    id: ShMemId,
}

/// How many random names are tried. If even one name of 108 random bits exists already, something
/// is wrong.
const TRIES: usize = 4;

/// Returns the access right to a section, and that of its views.
fn access(protection: Protection) -> u32 {
    match protection {
        Protection::ReadWrite => FILE_MAP_READ | FILE_MAP_WRITE,
        Protection::Read => FILE_MAP_READ,
    }
}

/// Returns the protection of the pages of such a view.
fn pages(protection: Protection) -> u32 {
    match protection {
        Protection::ReadWrite => PAGE_READWRITE,
        Protection::Read => PAGE_READONLY,
    }
}

/// Access to the owner (`winnt.h`).
const READ_CONTROL: u32 = 0x0002_0000;

/// The namespace of one session.
const LOCAL: &str = r"Local\";

/// The namespace of all sessions.
const GLOBAL: &str = r"Global\";

impl Win32ShMemProvider {
    /// Creates a segment of `map_size` zero bytes under a name of your choice, which is also its
    /// id: `Local\` or `Global\` and one component, at most 19 bytes together.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the name does not have this form. [`Error::Os`] with
    /// `ERROR_ALREADY_EXISTS` if a section has the name; with `ERROR_INVALID_HANDLE` if another
    /// kind of object has it; with `ERROR_ACCESS_DENIED` if an object of another user has it, or
    /// if, for `Global\`, this process lacks the privilege `SeCreateGlobalPrivilege`. Otherwise as
    /// [`new_shmem`](crate::ShMemProvider::new_shmem).
    ///
    /// # Security
    ///
    /// Other users can create a name that they can guess before you do.
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
        let created = create(ShMemId::from_string(name), check_size(map_size)?, None)?;
        Ok(Segment::from_created(created, &self.backend))
    }
}

impl Backend for Win32Backend {
    type Handle = Section;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<Section>> {
        let Request { size, options, .. } = request;
        options.without_reservation().refuse(&UNSUPPORTED, report)?;
        let max = options.reserve.map(|max| max.max(size));
        let mut taken = failed(
            "CreateFileMapping",
            ERROR_ALREADY_EXISTS,
            Subject::Bytes(size),
        );
        for _ in 0..TRIES {
            match create(random_id()?, size, max) {
                Err(error) if error.raw_os_error() == Some(sys::errno(ERROR_ALREADY_EXISTS)) => {
                    taken = error;
                }
                result => return Ok(result?.filled_with(request.content)),
            }
        }
        Err(taken)
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<Section> {
        let name = Name::of(id)?;
        let access = access(expected.protection) | READ_CONTROL;
        // SAFETY: `name` ends with a zero byte.
        let raw = unsafe { OpenFileMappingA(access, 0, name.as_ptr()) };
        let error = last_error();
        // SAFETY: `raw` is null or a new handle that nothing else owns.
        let handle = unsafe { OwnedHandle::from_raw(raw) };
        let handle = handle.ok_or_else(|| match error {
            ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND => Error::Gone { id: *id },
            ERROR_ACCESS_DENIED => Error::OtherUser { owner: None },
            ERROR_INVALID_HANDLE => Error::Foreign {
                found: "it is not a section",
            },
            _ => failed("OpenFileMapping", error, Subject::Id(*id)),
        })?;
        // Another user, who grants access to this one, may have created an object of this name.
        if sys::is_ours(&handle)? {
            Ok(Section { handle, id: *id })
        } else {
            Err(Error::OtherUser { owner: None })
        }
    }

    fn duplicate(&self, section: &Section) -> Result<Section> {
        Ok(Section {
            handle: section.handle.duplicate()?,
            id: section.id,
        })
    }

    fn map(&self, section: &Section, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        let (mapping, size) = map_all(&section.handle, Subject::Nothing, attach.protection)?;
        let mapping = if let Some(whole) = growth::whole_view(mapping.base().as_ptr()) {
            match attach.protection {
                Protection::ReadWrite => growth::attach(mapping, whole, attach.len),
                Protection::Read => growth::attach_for_reading(mapping, whole, size, attach.len),
            }?
        } else {
            let len = mapped_len(size as u64, attach.len)?;
            // SAFETY: at least `len` bytes are mapped, as `mapped_len` ensures, and `unmap` ignores
            // the length.
            unsafe { mapping.with_len(len) }
        };
        remember(&mapping, &Name::of(&section.id)?);
        Ok(mapping)
    }

    fn unlink(&self, _section: &Section, _id: &ShMemId) -> Result<()> {
        Ok(())
    }
}

/// A segment that was [released](crate::ShMemProvider::release_shmem) has no handle any more. Then this
/// returns null, on which every call fails with `ERROR_INVALID_HANDLE`.
///
/// No other program inherits the handle. [`ShMem::inherit`](crate::ShMem::inherit) explains why.
#[cfg(feature = "std")]
impl AsHandle for Win32ShMem {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        let raw = self
            .handle
            .as_ref()
            .map_or(ptr::null_mut(), |section| section.handle.as_raw());
        // SAFETY: the handle stays open as long as the segment is borrowed. Null is permitted.
        unsafe { BorrowedHandle::borrow_raw(raw) }
    }
}

impl Lifecycle for Win32Backend {}

impl Exclusive for Win32Backend {}

impl Sparse for Win32Backend {}

impl Growable for Win32Backend {
    fn grow(&self, _section: &Section, mapping: &mut Mapping, len: usize) -> Result<()> {
        growth::grow(mapping, len)
    }
}

impl Snapshots for Win32Backend {}

/// Creates a segment with this id. After an error the name does not exist, unless it did before.
/// With `max`, which is not lower than `size`, the segment can grow to that.
fn create(id: ShMemId, size: usize, max: Option<usize>) -> Result<Created<Section>> {
    let name = Name::of(&id)?;
    let (whole, kind) = match max {
        Some(max) => (growth::section_size(max)?, SEC_RESERVE),
        None => (size, SEC_COMMIT),
    };
    let [high, low] = [(whole as u64) >> 32, (whole as u64) & u64::from(u32::MAX)]
        .map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    sys::forget_last_error();
    // SAFETY: `name` ends with a zero byte, and the attributes may be null.
    let raw = unsafe {
        CreateFileMappingA(
            INVALID_HANDLE_VALUE,
            ptr::null(),
            PAGE_READWRITE | kind,
            high,
            low,
            name.as_ptr(),
        )
    };
    let error = last_error();
    // SAFETY: `raw` is null or a new handle that nothing else owns.
    let handle = unsafe { OwnedHandle::from_raw(raw) };
    // For a name that exists, the call returns a handle as well, to the existing object.
    let handle = handle
        .filter(|_| error != ERROR_ALREADY_EXISTS)
        .ok_or_else(|| refused(error, &id, size))?;
    let subject = Subject::Bytes(whole);
    let mapping = if max.is_some() {
        growth::create(view(&handle, subject, Protection::ReadWrite)?, whole, size)?
    } else {
        let (mapping, _) = map_all(&handle, subject, Protection::ReadWrite)?;
        // SAFETY: the kernel created the section with at least `size` bytes, and `unmap` ignores the
        // length.
        unsafe { mapping.with_len(size) }
    };
    remember(&mapping, &name);
    Ok(Created {
        handle: Section { handle, id },
        id,
        mapping,
        cleanup: Cleanup::Kernel,
    })
}

/// Returns the error for a section that could not be created.
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

/// Maps a whole section. The length of the mapping is zero until the caller sets it.
fn view(handle: &OwnedHandle, subject: Subject, protection: Protection) -> Result<Mapping> {
    // SAFETY: the handle is open, and the kernel chooses an unused address.
    let view = unsafe { MapViewOfFile(handle.as_raw(), access(protection), 0, 0, 0) };
    let error = last_error();
    let base = NonNull::new(view.Value.cast::<u8>())
        .ok_or_else(|| failed("MapViewOfFile", error, subject))?;
    // SAFETY: the view is new and nothing else owns it, and its address is a multiple of 64 KiB.
    Ok(unsafe { Mapping::from_raw(base, 0, unmap) })
}

/// As [`view`], and returns how many bytes are committed: those of the whole section, unless it can grow.
fn map_all(
    handle: &OwnedHandle,
    subject: Subject,
    protection: Protection,
) -> Result<(Mapping, usize)> {
    let mapping = view(handle, subject, protection)?;
    let info = growth::region(mapping.base().as_ptr())
        .ok_or_else(|| failed("VirtualQuery", last_error(), subject))?;
    // An image, or a section whose memory is only reserved, which cannot be touched safely.
    if info.Type != MEM_MAPPED || info.State != MEM_COMMIT || info.Protect != pages(protection) {
        return Err(Error::Foreign {
            found: "its memory is not committed for reading and writing",
        });
    }
    if isize::try_from(info.RegionSize).is_err() {
        return Err(failed("MapViewOfFile", ERROR_NOT_ENOUGH_MEMORY, subject));
    }
    Ok((mapping, info.RegionSize))
}

/// Enables waiting for words of this view ([`wake`](crate::sync::wake)), until it is unmapped.
fn remember(mapping: &Mapping, name: &Name) {
    views::add(mapping.base().as_ptr(), mapping.mapped(), name.text());
}

/// Unmaps what [`view`] mapped.
///
/// # Safety
///
/// `base` is the start of a view, and nothing refers to it any more.
unsafe fn unmap(base: NonNull<u8>, _len: usize) {
    views::remove(base.as_ptr());
    let view = MEMORY_MAPPED_VIEW_ADDRESS {
        Value: base.as_ptr().cast(),
    };
    // SAFETY: the caller ensures that a view starts at `base` and that nothing refers to it. The
    // call cannot fail then.
    unsafe { UnmapViewOfFile(view) };
}

/// The name of a section in the kernel, with a zero byte at the end.
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
        let namespace = if text.starts_with('w') { LOCAL } else { "" };
        Ok(Self {
            text: FixedStr::joined(&[namespace.as_bytes(), text.as_bytes(), b"\0"]),
        })
    }

    /// Returns the name without the zero byte.
    fn text(&self) -> SectionName {
        let bytes = self.text.as_bytes();
        SectionName::joined(&[bytes.strip_suffix(b"\0").unwrap_or(bytes)])
    }

    fn as_ptr(&self) -> *const u8 {
        self.text.as_bytes().as_ptr()
    }
}

/// Returns an id of 108 random bits.
fn random_id() -> Result<ShMemId> {
    let (high, low) = (sys::nonce()?, sys::nonce()?);
    let digits: ([u8; 7], [u8; 11]) = (base64::digits(high), base64::digits(low));
    Ok(ShMemId::joined(&[b"w", &digits.0, &digits.1]))
}
