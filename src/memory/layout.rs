//! [`SharedLayout`]: types that can be used in place while other processes change them.
#![allow(unsafe_code)]

use core::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicIsize, AtomicU8, AtomicU16, AtomicU32,
    AtomicUsize,
};
#[cfg(target_has_atomic = "64")]
use core::sync::atomic::{AtomicI64, AtomicU64};

/// Types that can be used in place, by reference, while other processes change the same bytes.
///
/// All atomic integers, `AtomicBool`, arrays, and structures of such types have it.
/// [`Access::view`](crate::Access::view) returns references to them,
/// [`Shared::view`](crate::Shared::view) references without a lifetime. With the feature `derive`,
/// `#[derive(SharedLayout)]` implements it for a structure, and checks its representation and its
/// fields.
///
/// Plain integers do not have it: the compiler assumes that a plain value does not change while a
/// reference to it lives, and another process would change it. Read and write plain values as
/// copies, with [`Access::read_at`](crate::ReadAccess::read_at) or, with the feature `zerocopy`, with
/// `Access::read` and `Access::write`. Atomic pointers do not have it either: an address means
/// something else in every process.
///
/// # Safety
///
/// * Any bytes are a valid value of the type.
/// * All bytes, except for padding, belong to atomics, so that other processes may change them at
///   any time.
/// * The layout is the same in every program: `repr(C)` or `repr(transparent)`.
///
/// # Platform notes
///
/// Programs of different widths share a type only if it contains no `AtomicUsize` and no
/// `AtomicIsize`.
///
/// `AtomicBool` reads every byte except 0 as `true`: the standard library stores it as a byte, and
/// compares that with zero. A test of this crate checks it.
///
/// # Examples
///
/// Without the feature `derive`:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider, SharedLayout};
///
/// #[repr(C)]
/// struct Statistics {
///     executions: AtomicU64,
///     crashes: AtomicU64,
/// }
///
/// // SAFETY: the structure is `repr(C)`, and all of its fields are atomic integers.
/// unsafe impl SharedLayout for Statistics {}
///
/// let mut segment = NopShMemProvider.new_shmem(4096)?;
/// let statistics = segment.access().view::<Statistics>(64)?;
/// statistics.executions.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(statistics.crashes.load(Ordering::Relaxed), 0);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "other processes can change `{Self}`, and it does not consist of atomics",
    note = "all atomics, arrays of them, and `repr(C)` structures with `#[derive(SharedLayout)]` can be \
            used in place; copy plain values with `Access::read_at` and `Access::write_at`, or with \
            `Access::read` and `Access::write`"
)]
pub unsafe trait SharedLayout: Send + Sync + Sized {
    /// Tells layouts apart: [`Typed`](crate::Typed) does not open a segment as a type with another
    /// fingerprint.
    ///
    /// Derived implementations combine the names and the fingerprints of the fields. By default it
    /// depends on size and alignment only.
    const FINGERPRINT: u64 =
        fingerprint("", &[size_of::<Self>() as u64, align_of::<Self>() as u64]);
}

/// Combines a name and numbers, such as the fingerprints of fields, into one number: FNV-1a, as it
/// is published, over their bytes.
#[doc(hidden)]
#[must_use]
#[expect(
    clippy::indexing_slicing,
    reason = "a constant function cannot iterate otherwise"
)]
pub const fn fingerprint(name: &str, parts: &[u64]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    let mut hash = BASIS;
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(PRIME);
        at += 1;
    }
    let mut at = 0;
    while at < parts.len() {
        let bytes = parts[at].to_le_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            hash = (hash ^ bytes[byte] as u64).wrapping_mul(PRIME);
            byte += 1;
        }
        at += 1;
    }
    hash
}

macro_rules! atomics {
    ($($atomic:ty)*) => {
        $(
            // SAFETY: it is an atomic integer: any bytes are valid, and its layout is that of the
            // integer.
            unsafe impl SharedLayout for $atomic {
                const FINGERPRINT: u64 = fingerprint(stringify!($atomic), &[]);
            }
        )*
    };
}

atomics! { AtomicU8 AtomicU16 AtomicU32 AtomicUsize AtomicI8 AtomicI16 AtomicI32 AtomicIsize }
#[cfg(target_has_atomic = "64")]
atomics! { AtomicU64 AtomicI64 }

// SAFETY: the standard library stores it as a byte in an `UnsafeCell`, and compares that with zero.
unsafe impl SharedLayout for AtomicBool {
    const FINGERPRINT: u64 = fingerprint("AtomicBool", &[]);
}

// SAFETY: an array consists of its elements, without anything between them.
unsafe impl<T: SharedLayout, const N: usize> SharedLayout for [T; N] {
    const FINGERPRINT: u64 = fingerprint("[]", &[T::FINGERPRINT, N as u64]);
}
