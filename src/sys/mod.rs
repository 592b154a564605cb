//! What is shared by the backends of one family of systems: `unix` is common to all Unix systems,
//! `linux` adds what only Linux and Android have, `windows` is for Windows.
//!
//! Apart from the two tables of platforms (`backends/mod.rs` and `platform.rs`), only this
//! directory depends on the target system.

#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux;
#[cfg(feature = "std")]
pub(crate) mod locks;
#[cfg(feature = "std")]
mod passed;
#[allow(dead_code, reason = "most systems poll in some cases only")]
pub(crate) mod polling;
#[cfg(all(
    feature = "std",
    any(
        not(any(target_os = "android", target_os = "linux", windows)),
        shmem_apple_rules,
        shmem_freebsd_rules
    )
))]
pub(crate) mod presence_fallback;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
mod write_witness_fallback;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use self::linux::*;
#[cfg(feature = "std")]
pub(crate) use self::passed::{Passed, Unclaimed};
/// Where nothing can wake a process that waits for a word, and under the rules of other systems on Linux, so
/// that tests run it.
#[cfg(any(
    not(any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "linux",
        target_os = "netbsd",
        target_os = "openbsd",
        target_vendor = "apple",
        windows
    )),
    all(windows, not(feature = "std")),
    shmem_apple_rules,
    shmem_freebsd_rules
))]
pub(crate) use self::polling as futex;
/// Also under the rules of other systems on Linux.
#[cfg(all(
    feature = "std",
    any(
        not(any(target_os = "android", target_os = "linux", windows)),
        shmem_apple_rules,
        shmem_freebsd_rules
    )
))]
pub(crate) use self::presence_fallback as presence;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) use self::random_u64 as nonce;
#[cfg(unix)]
pub(crate) use self::unix::*;
#[cfg(windows)]
pub(crate) use self::windows::*;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) use self::write_witness_fallback::WriteWitness;
use crate::error::{Error, Result, Subject};
#[cfg(feature = "std")]
use crate::id::ShMemId;

/// The descriptor of a segment, in a signature that is the same on every system, and its service's locks, if it
/// has a service.
#[cfg(feature = "std")]
#[derive(Debug)]
#[allow(dead_code, reason = "each system uses one of them")]
pub struct Descriptor<'segment>(
    pub(crate) BorrowedFd<'segment>,
    pub(crate) Option<&'segment dyn locks::Locks>,
);

/// Creates a participant in a segment, in which it locks a byte of the table at this address.
#[cfg(all(
    feature = "std",
    any(target_os = "android", target_os = "linux", windows),
    not(any(shmem_apple_rules, shmem_freebsd_rules))
))]
pub(crate) fn open_presence(
    segment: Option<Descriptor<'_>>,
    id: &ShMemId,
    table: *const u8,
) -> Result<presence::Token> {
    presence::Token::open(segment.map(|segment| segment.0), id, table)
}

/// `true` if the service of a segment keeps the locks of its bytes.
#[cfg(all(unix, feature = "std"))]
pub(crate) const SERVICE_KEEPS_LOCKS: bool = cfg!(any(
    not(any(target_os = "android", target_os = "linux", windows)),
    shmem_apple_rules,
    shmem_freebsd_rules
));

/// Creates a participant in a segment, in which it locks a byte.
#[allow(clippy::needless_pass_by_value, reason = "as on other systems")]
#[cfg(all(
    feature = "std",
    any(
        not(any(target_os = "android", target_os = "linux", windows)),
        shmem_apple_rules,
        shmem_freebsd_rules
    )
))]
pub(crate) fn open_presence(
    segment: Option<Descriptor<'_>>,
    _id: &ShMemId,
    _table: *const u8,
) -> Result<presence::Token> {
    presence::Token::open(segment.as_ref())
}

/// Fills the buffer with random bytes that nobody can predict.
fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::Os {
        call: "getrandom",
        errno: error.raw_os_error().unwrap_or(0),
        subject: Subject::Nothing,
        limit: None,
    })
}

/// Returns a random number that nobody can predict.
pub(crate) fn random_u64() -> Result<u64> {
    let mut number = [0; size_of::<u64>()];
    random(&mut number)?;
    Ok(u64::from_ne_bytes(number))
}
