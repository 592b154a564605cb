//! The messages of [`Error`]: [`Display`](fmt::Display) and [`Debug`](fmt::Debug).

use core::fmt;

use crate::error::search::CURES;
#[cfg(feature = "std")]
use crate::error::service;
use crate::error::{Error, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;

impl fmt::Display for Error {
    #[expect(clippy::too_many_lines, reason = "one sentence for each error")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os {
                call,
                errno,
                subject,
                limit,
            } => {
                write!(f, "{call}{subject}: ")?;
                describe(f, *errno)?;
                limit.map_or(Ok(()), |limit| write!(f, "; {limit}"))
            }
            Self::InvalidSize { size: 0 } => f.write_str("a segment cannot have zero bytes"),
            Self::InvalidSize { size } => {
                write!(
                    f,
                    "a segment cannot have {size} bytes: the maximum is {}",
                    isize::MAX
                )
            }
            Self::TooLarge { asked, actual } => write!(
                f,
                "{asked} bytes were asked for, but the segment has {actual}; ask for less, or \
                 attach without a size to get all of it"
            ),
            Self::NotReserved { asked, reserved } => write!(
                f,
                "{asked} bytes were asked for, but address space is reserved for {reserved}: create the \
                 segment with `ShMemOptions::reserve`, for the largest size that it will need"
            ),
            Self::InvalidId { id, problem } => write!(f, "id {id:?} names no segment: {problem}"),
            Self::Gone { id } => gone(f, id),
            Self::NotFound { id, search } => {
                write!(
                    f,
                    "no holder of segment {} was found: {search}",
                    Escaped(id)
                )
            }
            Self::Released { id } => {
                write!(f, "this process has released segment {}", Escaped(id))
            }
            #[cfg(feature = "std")]
            Self::NotServed { id, address } => write!(
                f,
                "the service at {address:?} knows no holder of segment {}: its last holder is \
                 gone, or it was created at another address (set SHMEM_SERVICE to the same path on \
                 both sides)",
                Escaped(id)
            ),
            Self::Denied {
                id,
                process,
                reason,
            } => write!(
                f,
                "process {process} of this user, which the id {} names, does not let this process \
                 open its descriptors: {reason}. Otherwise, {CURES}",
                Escaped(id)
            ),
            #[cfg(feature = "std")]
            Self::NoDoorbell {
                process,
                denial: None,
            } => write!(
                f,
                "process {process} has no doorbell with this id: it has ended or has dropped it"
            ),
            #[cfg(feature = "std")]
            Self::NoDoorbell {
                process,
                denial: Some(reason),
            } => write!(
                f,
                "process {process} of this user does not let this process open its doorbell: {reason}. \
                 Otherwise, pass the descriptor `Doorbell::ringer_fd` to `Ringer::from_fd`"
            ),
            Self::OtherUser { owner } => {
                f.write_str(
                    "the segment, or the process that the id names, belongs to another user",
                )?;
                owner.map_or(Ok(()), |uid| write!(f, " (uid {uid})"))?;
                f.write_str(
                    "; segments are shared within one user: run both processes as the same user",
                )
            }
            Self::Foreign { found } => {
                write!(
                    f,
                    "the id or descriptor leads to something that cannot be mapped safely: {found}"
                )
            }
            Self::OutOfBounds { offset, len, size } => {
                write!(
                    f,
                    "{len} bytes at offset {offset} reach beyond the end of the segment, which has \
                     {size} bytes"
                )
            }
            Self::Misaligned { align } => {
                write!(
                    f,
                    "the address is not a multiple of {align}, which the type needs"
                )
            }
            Self::WrongType { id, mismatch } => write!(
                f,
                "segment {} does not contain a value of this type: {mismatch}",
                Escaped(id)
            ),
            Self::Corrupt { what } => write!(
                f,
                "the channel cannot be used any more: {what}. A process has overwritten it, or there were two \
                 writers or two readers; create another one"
            ),
            Self::Lapped { attempts } => write!(
                f,
                "values were published faster than one could be copied, in all of {attempts} attempts: \
                 create more slots, or publish less often"
            ),
            Self::RingTooLarge { capacity, max } => write!(
                f,
                "a ring cannot have {capacity} bytes: the maximum is {max}"
            ),
            Self::MessageTooLong { len, max } => write!(
                f,
                "a message of {len} bytes does not fit into {max} bytes; a ring takes messages of up to half of \
                 its capacity, less 8 bytes"
            ),
            #[cfg(feature = "zerocopy")]
            Self::InvalidValue => {
                f.write_str("the bytes in the segment are not a valid value of the type")
            }
            #[cfg(feature = "std")]
            Self::Environment { name, problem } => {
                write!(f, "environment variable {name:?}: {problem}")
            }
            #[cfg(feature = "std")]
            Self::FromEnvironment {
                name,
                error,
                inherited,
            } => {
                write!(
                    f,
                    "environment variable {name:?}: {}{error}",
                    Dropped(error)
                )?;
                inherited
                    .as_ref()
                    .map_or(Ok(()), |error| write!(f, "; {error}"))
            }
            #[cfg(feature = "std")]
            Self::Service {
                address,
                origin,
                reason,
                errno,
            } => service::write(f, address, *origin, reason, *errno),
            #[cfg(feature = "std")]
            Self::Directory {
                path,
                problem,
                owner,
            } => {
                write!(f, "{path:?} is not safe for segments: it {problem}")?;
                owner.map_or(Ok(()), |uid| write!(f, " (uid {uid})"))?;
                f.write_str(
                    "; set TMPDIR to a directory that only this user can change, the same one in all \
                     processes that share segments",
                )
            }
            #[cfg(feature = "std")]
            Self::Named { name, reason } if name.is_empty() => write!(f, "names: {reason}"),
            #[cfg(feature = "std")]
            Self::Named { name, reason } => write!(f, "name {name:?}: {reason}"),
            #[cfg(feature = "std")]
            Self::NoSlot { slots } => write!(
                f,
                "all {slots} slots are taken by living participants: use `Slots` with a larger number, or let \
                 the threads of a process share one `Presence`"
            ),
            #[cfg(feature = "std")]
            Self::ForkPending => f.write_str(
                "another thread has called pre_fork, and has not called post_fork or used the \
                 provider since, for ten seconds; it has to call post_fork after fork(), in the \
                 parent and in the child, even if fork() failed",
            ),
            Self::Unsupported { what } => f.write_str(what),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Bytes(size) => write!(f, " ({size} bytes)"),
            Self::Id(id) => write!(f, " (id {})", Escaped(id)),
        }
    }
}

/// What helps if a mechanism does not reach from one sandbox or container to another.
const ELSEWHERE: &str =
    "use `StdServedShMemProvider` or `FileShMemProvider`, and share SHMEM_SERVICE or TMPDIR";

/// Writes that nothing has this id, as far as ids of its kind reach.
fn gone(f: &mut fmt::Formatter<'_>, id: &ShMemId) -> fmt::Result {
    let escaped = Escaped(id);
    match id.kind() {
        IdKind::SystemV { .. } => write!(
            f,
            "no System V segment has the number {escaped} in this IPC namespace: its last holder is \
             gone, or it was created in another IPC namespace (container). Between namespaces, {ELSEWHERE}"
        ),
        IdKind::Posix => write!(
            f,
            "no POSIX segment has the name {escaped} here: its creator has removed it, it was never \
             created, or it was created where another /dev/shm is mounted (container). Mount the same one in \
             both, or {ELSEWHERE}"
        ),
        IdKind::File => write!(
            f,
            "no file has the id {escaped} here: its last holder is gone, or it was created where $TMPDIR \
             is another directory or another /tmp is mounted (container). Set TMPDIR to the same \
             directory in all processes that share segments"
        ),
        IdKind::Section => write!(
            f,
            "no process of this session holds segment {escaped}: its last holder is gone, or it was \
             created in another session"
        ),
        _ => write!(f, "no process of this user holds segment {escaped}"),
    }
}

/// The likely reason why a segment that was handed over is not found: the other process dropped it, as
/// a temporary for example.
#[cfg(feature = "std")]
struct Dropped<'a>(&'a Error);

#[cfg(feature = "std")]
impl fmt::Display for Dropped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.0 {
            Error::Gone { id } if matches!(id.kind(), IdKind::Memfd(_)) => {
                "the process that handed it over no longer holds it, so keep the segment until the \
                 child has attached: "
            }
            // It may also be out of reach.
            error if error.is_not_found() => {
                "either the process that handed it over no longer holds it, so keep the segment until \
                 the child has attached, or it is out of reach: "
            }
            _ => "",
        };
        f.write_str(reason)
    }
}

/// An id in a message, escaped so that it cannot send control characters to a terminal.
struct Escaped<'a>(&'a ShMemId);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_str().escape_debug(), f)
    }
}

/// Prints the text of [`Display`](fmt::Display), and with `{:#?}` also the [kind](Error::kind).
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            f.debug_struct("Error")
                .field("kind", &self.kind())
                .field("message", &format_args!("{self}"))
                .finish()
        } else {
            fmt::Display::fmt(self, f)
        }
    }
}

/// Writes the system's description of an error number, if the standard library is available.
pub(crate) fn describe(f: &mut fmt::Formatter<'_>, errno: i32) -> fmt::Result {
    #[cfg(feature = "std")]
    return write!(f, "{}", std::io::Error::from_raw_os_error(errno));
    #[cfg(not(feature = "std"))]
    return write!(f, "os error {errno}");
}
