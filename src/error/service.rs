//! [`ServiceError`]: what can be wrong with a service or its address, with the cure of each.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::message::describe;

/// The environment variable with the address of the service.
pub(crate) const VARIABLE: &str = "SHMEM_SERVICE";

/// What is wrong with a service, or with its address.
///
/// [`Display`](fmt::Display) prints the reason alone. That of [`Error::Service`](crate::Error::Service),
/// which contains it, also names the address, the variable that it comes from, the error number and the cure.
///
/// # Examples
///
/// ```
/// # #[cfg(unix)] {
/// use shmem_providers::error::ServiceError;
/// use shmem_providers::{Error, ShMemService};
///
/// match ShMemService::start_at("") {
///     Err(Error::Service { reason, .. }) => assert_eq!(reason, ServiceError::EmptyPath),
///     other => panic!("{other:?}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceError {
    /// The path is empty.
    EmptyPath,
    /// The path is relative, so each program would understand it differently.
    RelativePath,
    /// The path is relative, and this process has no working directory.
    NoWorkingDirectory,
    /// The path is too long for a socket.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// The path does not end with the name of a file.
    NoFileName,
    /// The path is that of a symbolic link.
    SymbolicLink,
    /// A file or directory belongs to another user.
    OtherUser {
        /// Its path.
        path: String,
        /// The user id of the owner.
        uid: u32,
    },
    /// Other users can rename the entries of a directory on the way to the socket.
    OthersMayRename {
        /// Its path.
        directory: String,
    },
    /// Other users have access to the directory of the socket.
    OpenToOthers {
        /// Its path.
        directory: String,
    },
    /// Something else stands where a directory is needed.
    NotADirectory {
        /// Its path.
        path: String,
    },
    /// The directory exists and cannot be examined.
    NotVisible {
        /// Its path.
        path: String,
    },
    /// The system refused a call.
    Os {
        /// The call.
        call: &'static str,
        /// The path that it was called on.
        path: String,
    },
    /// The system denied access.
    PermissionDenied {
        /// The call.
        call: &'static str,
        /// The path that it was called on.
        path: String,
        /// The deepest component of the path that is visible, if it belongs to another user.
        owner: Option<Box<PathOwner>>,
    },
    /// The file at the address is not a socket. It was left alone.
    NotASocket,
    /// The file with the name of the lock is not a lock. It was left alone.
    NotALock,
    /// Another program listens at the address, and is not a service of this crate.
    OtherProgram,
    /// The directory was replaced by another one during the call.
    Replaced,
    /// None of the default directories can be used.
    NoDirectory {
        /// Those that could be expected to be usable, with the reason for each.
        rejected: Vec<RejectedDirectory>,
    },
    /// Another user runs the service at the address.
    OtherUsersService {
        /// The user id of its process.
        uid: u32,
    },
    /// Another service is running at the address.
    AlreadyServed,
    /// The service did not start within its deadline.
    StartTimedOut,
    /// The thread of the service ended before the service was started.
    ThreadEnded,
    /// The service did not answer within the deadline.
    TimedOut,
    /// The service, and each one that took its place, disconnected until the deadline.
    KeepsDisconnecting,
    /// The service sent something that is not a reply to the request.
    InvalidReply,
    /// The service uses another version of the protocol.
    OtherVersion {
        /// The version.
        version: u8,
    },
    /// The service has reached its limit of clients, or this process has reached its share.
    TooManyClients,
    /// The service has reached its limit of segments, or this process has reached its share.
    TooManySegments,
    /// The service could not send or receive a descriptor until the deadline.
    Busy,
    /// The service did not accept all segments that this process holds within the deadline.
    SlowRegistration,
    /// The service rejected the descriptor of a segment.
    RejectedDescriptor,
    /// Services have sent several descriptors that are still being closed.
    UnclosedDescriptors,
    /// The service has replaced another one, and does not know yet which locks in a segment still exist; or the
    /// segment was registered from a descriptor, so that it may have locks under another id.
    UnknownLocks,
    /// The service no longer has the lock of this participant.
    LostLock,
}

/// The owner of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathOwner {
    /// The path of the file or directory.
    pub path: String,
    /// The user id of its owner.
    pub uid: u32,
}

/// A directory that cannot contain the socket of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedDirectory {
    /// The path of the directory.
    pub path: String,
    /// Where the path comes from.
    pub origin: AddressOrigin,
    /// Why it cannot be used.
    pub reason: ServiceError,
    /// The error number, if the system refused a call.
    pub errno: Option<i32>,
}

/// Where the address of a service, or the directory of names, comes from.
///
/// [`Display`](fmt::Display) prints it as part of a message: `from SHMEM_SERVICE`.
///
/// # Examples
///
/// ```
/// use shmem_providers::error::AddressOrigin;
///
/// assert_eq!(AddressOrigin::ShMemNames.variable(), Some("SHMEM_NAMES"));
/// assert_eq!(AddressOrigin::Default.variable(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressOrigin {
    /// The program passed it to a function of this crate.
    Program,
    /// The environment variable `SHMEM_SERVICE`.
    ShMemService,
    /// The environment variable `SHMEM_NAMES`.
    ShMemNames,
    /// The environment variable `XDG_RUNTIME_DIR`.
    XdgRuntimeDir,
    /// The environment variable `TMPDIR`.
    Tmpdir,
    /// The environment variable `HOME`.
    Home,
    /// The default of this system.
    Default,
}

impl AddressOrigin {
    /// Returns the name of the environment variable, if the address comes from one.
    #[must_use]
    pub const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Program | Self::Default => None,
            Self::ShMemService => Some(VARIABLE),
            Self::ShMemNames => Some(super::named::VARIABLE),
            Self::XdgRuntimeDir => Some("XDG_RUNTIME_DIR"),
            Self::Tmpdir => Some("TMPDIR"),
            Self::Home => Some("HOME"),
        }
    }

    /// Returns what to do about an address that cannot be used.
    const fn cure(self) -> &'static str {
        match self {
            Self::Program => {
                "choose the path of a socket in a directory that only this user can change, or \
                 choose none to use the path in SHMEM_SERVICE"
            }
            _ => {
                "set SHMEM_SERVICE, for all programs that share segments, to the path of a socket in \
                 a directory that only this user can change"
            }
        }
    }
}

impl fmt::Display for AddressOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variable() {
            Some(variable) => write!(f, "from {variable}"),
            None if *self == Self::Program => f.write_str("chosen by the program"),
            None => f.write_str("the default"),
        }
    }
}

impl ServiceError {
    /// Returns `true` if the address has to be changed, `false` if the service at the address does not work
    /// as it should.
    fn is_about_the_address(&self) -> bool {
        !matches!(
            self,
            Self::AlreadyServed
                | Self::StartTimedOut
                | Self::ThreadEnded
                | Self::TimedOut
                | Self::KeepsDisconnecting
                | Self::InvalidReply
                | Self::OtherVersion { .. }
                | Self::TooManyClients
                | Self::TooManySegments
                | Self::Busy
                | Self::SlowRegistration
                | Self::RejectedDescriptor
                | Self::UnclosedDescriptors
                | Self::UnknownLocks
                | Self::LostLock
        )
    }

    /// Prints the reason. If the service does not work as it should, it is a verb whose subject is the
    /// service.
    #[allow(clippy::too_many_lines, reason = "a list")]
    fn write(&self, f: &mut fmt::Formatter<'_>, errno: Option<i32>) -> fmt::Result {
        let text = match self {
            Self::EmptyPath => "the path is empty",
            Self::RelativePath => "the path is not absolute",
            Self::NoWorkingDirectory => {
                "the path is not absolute, and this process has no working directory"
            }
            Self::TooLong { len, max } => {
                return write!(
                    f,
                    "the path has {len} bytes, and the path of a socket at most {max}"
                );
            }
            Self::NoFileName => "the path does not end with a file name",
            Self::SymbolicLink => {
                "it is a symbolic link, and the path of the socket itself is needed"
            }
            Self::OtherUser { path, uid } => {
                return write!(f, "{path:?} belongs to another user (uid {uid})");
            }
            Self::OthersMayRename { directory } => {
                return write!(
                    f,
                    "other users can rename the entries of {directory:?}, because it is writable \
                     for them and has no sticky bit"
                );
            }
            Self::OpenToOthers { directory } => {
                return write!(
                    f,
                    "{directory:?} is accessible to other users: remove it or chmod 700"
                );
            }
            Self::NotADirectory { path } => return write!(f, "{path:?} is not a directory"),
            Self::NotVisible { path } => {
                return write!(f, "{path:?} is not visible to this process");
            }
            Self::Os { call, path } => {
                write!(f, "{call} {path:?}")?;
                return write_errno(f, errno);
            }
            Self::PermissionDenied { call, path, owner } => {
                write!(f, "{call} {path:?}")?;
                write_errno(f, errno)?;
                if let Some(PathOwner { path, uid }) = owner.as_deref() {
                    return write!(f, "; {path:?} belongs to another user (uid {uid})");
                }
                "; it belongs to this user: its permissions or a security module (AppArmor, SELinux, \
                 Landlock, a sandbox) may forbid it"
            }
            Self::NotASocket => "the file exists and is not a socket; not touching it",
            Self::NotALock => {
                "the file with `.lock` after its name exists and is not a lock; not touching it"
            }
            Self::OtherProgram => {
                "another program listens there, which is not a service of this crate"
            }
            Self::Replaced => "its directory was replaced during the call",
            Self::NoDirectory { rejected } => return write_rejected(f, rejected),
            Self::OtherUsersService { uid } => {
                return write!(f, "the service there belongs to another user (uid {uid})");
            }
            Self::AlreadyServed => "another service is already running there",
            Self::StartTimedOut => {
                "does not start in time: its directory, or a file that this process has open, is on a \
                 file system that does not respond"
            }
            Self::ThreadEnded => "did not start: its thread has ended",
            Self::TimedOut => "does not answer",
            Self::KeepsDisconnecting => "keeps disconnecting",
            Self::InvalidReply => "sent an invalid reply",
            Self::OtherVersion { version } => {
                return write!(
                    f,
                    "uses version {version} of the protocol, which this program does not: build all \
                     programs with the same version of this crate"
                );
            }
            Self::TooManyClients => {
                "has reached its client limit: raise RLIMIT_NOFILE (`ulimit -n`) of the program that \
                 hosts it"
            }
            Self::TooManySegments => {
                "has reached its segment limit: raise RLIMIT_NOFILE (`ulimit -n`) of the program that \
                 hosts it"
            }
            Self::Busy => {
                "is too busy: perhaps too many descriptors of this user were sent and not received \
                 yet; RLIMIT_NOFILE (`ulimit -n`) of the program that hosts it limits these as well"
            }
            Self::SlowRegistration => "is slow to accept the segments that this process holds",
            Self::RejectedDescriptor => {
                "rejected the descriptor: not shared memory of the stated size"
            }
            Self::UnclosedDescriptors => "sent descriptors that take too long to close",
            Self::UnknownLocks => {
                "does not know all locks in the segment: it has replaced a service that has died, and a process \
                 that may have a lock has neither returned nor ended; or the segment was opened by a descriptor, so \
                 that it may have another id. Open it by its id, or create another one"
            }
            Self::LostLock => {
                "has given the slot of this participant to another one: call `Presence::join` again"
            }
        };
        f.write_str(text)
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, None)
    }
}

/// Prints [`Error::Service`](crate::Error::Service).
pub(super) fn write(
    f: &mut fmt::Formatter<'_>,
    address: &str,
    origin: AddressOrigin,
    reason: &ServiceError,
    errno: Option<i32>,
) -> fmt::Result {
    match reason {
        ServiceError::AlreadyServed => {
            return write!(
                f,
                "another service is already running at {address:?} ({origin})"
            );
        }
        ServiceError::NoDirectory { .. } => {
            f.write_str("no directory can be used for the service: ")?;
        }
        _ if reason.is_about_the_address() => {
            write!(
                f,
                "the service address {address:?} ({origin}) cannot be used: "
            )?;
        }
        _ => write!(f, "the service at {address:?} ({origin}) ")?,
    }
    reason.write(f, errno)?;
    if reason.is_about_the_address() {
        write!(f, "; {}", origin.cure())?;
    }
    Ok(())
}

/// Prints the reason alone, with the error number.
pub(super) fn write_reason(
    f: &mut fmt::Formatter<'_>,
    reason: &ServiceError,
    errno: Option<i32>,
) -> fmt::Result {
    reason.write(f, errno)
}

/// Prints the directories of [`ServiceError::NoDirectory`], each with its reason.
fn write_rejected(f: &mut fmt::Formatter<'_>, rejected: &[RejectedDirectory]) -> fmt::Result {
    if rejected.is_empty() {
        return f.write_str("there is none");
    }
    for (index, directory) in rejected.iter().enumerate() {
        let RejectedDirectory {
            path,
            origin,
            reason,
            errno,
        } = directory;
        let separator = if index == 0 { "" } else { "; " };
        write!(f, "{separator}{path:?} ({origin}): ")?;
        reason.write(f, *errno)?;
    }
    Ok(())
}

/// Prints the outcome of a refused call.
fn write_errno(f: &mut fmt::Formatter<'_>, errno: Option<i32>) -> fmt::Result {
    let Some(errno) = errno else {
        return f.write_str(" failed");
    };
    f.write_str(": ")?;
    describe(f, errno)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::error::Error;

    fn message(origin: AddressOrigin, reason: ServiceError) -> String {
        let error = Error::Service {
            address: "/run/x".into(),
            origin,
            reason,
            errno: None,
        };
        error.to_string()
    }

    #[test]
    fn a_message_names_address_origin_reason_and_cure() {
        assert_eq!(
            message(AddressOrigin::ShMemService, ServiceError::SymbolicLink),
            "the service address \"/run/x\" (from SHMEM_SERVICE) cannot be used: it is a symbolic link, \
             and the path of the socket itself is needed; set SHMEM_SERVICE, for all programs that share \
             segments, to the path of a socket in a directory that only this user can change"
        );
        assert_eq!(
            message(AddressOrigin::Program, ServiceError::TimedOut),
            "the service at \"/run/x\" (chosen by the program) does not answer"
        );
        assert_eq!(
            message(AddressOrigin::Default, ServiceError::AlreadyServed),
            "another service is already running at \"/run/x\" (the default)"
        );
    }

    #[test]
    fn a_message_names_all_rejected_directories() {
        let rejected = |path: &str, origin, reason| RejectedDirectory {
            path: path.into(),
            origin,
            reason,
            errno: None,
        };
        let other_user = ServiceError::OtherUser {
            path: "/tmp/x".into(),
            uid: 1000,
        };
        let rejected = vec![
            rejected("x", AddressOrigin::Tmpdir, ServiceError::RelativePath),
            rejected("/tmp/x", AddressOrigin::Default, other_user),
        ];
        let message = message(
            AddressOrigin::Tmpdir,
            ServiceError::NoDirectory { rejected },
        );
        let expected = "no directory can be used for the service: \"x\" (from TMPDIR): the path is not \
                        absolute; \"/tmp/x\" (the default): \"/tmp/x\" belongs to another user (uid 1000); \
                        set SHMEM_SERVICE, ";
        assert!(message.starts_with(expected), "{message}");
    }
}
