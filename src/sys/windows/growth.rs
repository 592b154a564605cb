//! Sections that can grow: created with `SEC_RESERVE`, and committed in part (`VirtualAlloc`).
//!
//! Behind the reserved bytes are a page with the number of committed bytes, and one that is never committed.
//! The system reports which pages are committed, and no process can take that back, so the last two pages
//! show that a section can grow, whatever its content is.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ops::Range;

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_READWRITE, VirtualAlloc, VirtualQuery,
};

use crate::error::{Error, Result, Subject};
use crate::memory::mapping::Mapping;
use crate::memory::size::{check_size, mapped_len};
use crate::sys::{failed, last_error};

/// The size of a page of every machine that Windows runs on.
const PAGE: usize = 4096;

/// The two pages behind the reserved bytes.
const TAIL: usize = 2 * PAGE;

/// Returns the size of a section that can grow to `max` bytes, or somewhat more.
pub(crate) fn section_size(max: usize) -> Result<usize> {
    let whole_pages = max.checked_next_multiple_of(PAGE);
    let size = whole_pages.and_then(|reserved| reserved.checked_add(TAIL));
    size.and_then(|size| check_size(size).ok())
        .ok_or(Error::InvalidSize { size: max })
}

/// Commits the first `size` bytes of a view of a new section, all of whose `whole` bytes are mapped.
pub(crate) fn create(view: Mapping, whole: usize, size: usize) -> Result<Mapping> {
    let mut mapping = growable(view, whole);
    commit(&mapping, 0..size)?;
    commit(&mapping, mapping.reserved()..mapping.mapped())?;
    mapping.publish(size);
    // SAFETY: the bytes were committed above, and are within the reservation, as the caller ensures.
    unsafe { mapping.show(size) };
    Ok(mapping)
}

/// Limits a view of [`whole_view`] to the `asked` number of bytes, or to those that are committed.
pub(crate) fn attach(view: Mapping, whole: usize, asked: Option<usize>) -> Result<Mapping> {
    let mut mapping = growable(view, whole);
    let len = mapped_len(mapping.committed() as u64, asked)?;
    grow(&mut mapping, len)?;
    Ok(mapping)
}

/// Limits a view of [`whole_view`] that can only be read. `committed` is how many bytes from its start on
/// the system reports as committed.
pub(crate) fn attach_for_reading(
    view: Mapping,
    whole: usize,
    committed: usize,
    asked: Option<usize>,
) -> Result<Mapping> {
    let mut mapping = growable(view, whole);
    let len = mapped_len(mapping.committed().min(committed) as u64, asked)?;
    // SAFETY: these bytes are committed, and no process can take that back.
    unsafe { mapping.show(len) };
    Ok(mapping)
}

/// Commits `len` bytes, which are within the reservation, unless they are committed already, and makes the
/// mapping cover them.
pub(crate) fn grow(mapping: &mut Mapping, len: usize) -> Result<()> {
    commit(mapping, mapping.len()..len)?;
    mapping.publish(len);
    // SAFETY: all bytes up to `len` are committed now, and no process can take that back.
    unsafe { mapping.show(len) };
    Ok(())
}

fn growable(view: Mapping, whole: usize) -> Mapping {
    // SAFETY: the view has `whole` bytes, and unmapping it does not depend on the length.
    let view = unsafe { view.with_len(whole.saturating_sub(PAGE)) };
    // SAFETY: the view now ends with a page behind the reservation, which is committed before it is used.
    unsafe { view.growable(whole.saturating_sub(TAIL)) }
}

/// Commits pages. Those that are committed already stay as they are.
fn commit(view: &Mapping, range: Range<usize>) -> Result<()> {
    let start = view.base().as_ptr().wrapping_add(range.start);
    // SAFETY: the range is part of the view, and the content of committed pages does not change.
    let done = unsafe { VirtualAlloc(start.cast(), range.len(), MEM_COMMIT, PAGE_READWRITE) };
    if done.is_null() {
        return Err(failed(
            "VirtualAlloc",
            last_error(),
            Subject::Bytes(range.len()),
        ));
    }
    Ok(())
}

/// Returns the size of the whole view that starts at `base` if its section can grow.
pub(crate) fn whole_view(base: *const u8) -> Option<usize> {
    /// More parts than that with the same state have not been committed by this crate.
    const MAX_PARTS: usize = 16;

    let part = |offset: usize| {
        region(base.wrapping_add(offset))
            .filter(|region| region.AllocationBase.cast_const() == base.cast())
    };
    let mut whole = 0;
    for _ in 0..MAX_PARTS {
        match part(whole) {
            Some(region) => whole += region.RegionSize,
            None => break,
        }
    }
    let state = |offset| part(offset).map(|region| region.State);
    let is_growable = whole > TAIL
        && state(whole - TAIL) == Some(MEM_COMMIT)
        && state(whole - PAGE) == Some(MEM_RESERVE);
    is_growable.then_some(whole)
}

/// Returns what the system reports about the pages that start at this address and have the same state.
pub(crate) fn region(address: *const u8) -> Option<MEMORY_BASIC_INFORMATION> {
    let mut info = MaybeUninit::<MEMORY_BASIC_INFORMATION>::zeroed();
    // SAFETY: `info` is valid for writing the size that is passed.
    let written = unsafe {
        VirtualQuery(
            address.cast(),
            info.as_mut_ptr(),
            size_of::<MEMORY_BASIC_INFORMATION>(),
        )
    };
    // SAFETY: zeros are a valid value of the type, and so is what `VirtualQuery` writes.
    (written != 0).then(|| unsafe { info.assume_init() })
}
