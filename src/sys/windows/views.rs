//! Which views of sections this process has, so that the name of a section is found by an address in it.

use alloc::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::util::fixed_str::FixedStr;

/// The name of a section in the kernel, with its namespace.
pub(crate) type SectionName = FixedStr<32>;

struct View {
    len: usize,
    section: SectionName,
}

/// The views, by their addresses.
static VIEWS: RwLock<BTreeMap<usize, View>> = RwLock::new(BTreeMap::new());

/// Remembers a view of `len` bytes.
pub(crate) fn add(base: *const u8, len: usize, section: SectionName) {
    let mut views = VIEWS.write().unwrap_or_else(PoisonError::into_inner);
    views.insert(base.addr(), View { len, section });
}

/// Forgets the view that starts here, if it was remembered. It still exists.
pub(crate) fn remove(base: *const u8) {
    let mut views = VIEWS.write().unwrap_or_else(PoisonError::into_inner);
    views.remove(&base.addr());
}

/// Returns the section of the view that contains this address, and the offset in it.
pub(super) fn find(address: *const u8) -> Option<(SectionName, usize)> {
    let views = VIEWS.read().unwrap_or_else(PoisonError::into_inner);
    let (base, view) = views.range(..=address.addr()).next_back()?;
    let offset = address.addr().checked_sub(*base)?;
    (offset < view.len).then_some((view.section, offset))
}
