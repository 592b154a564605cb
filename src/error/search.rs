//! [`Search`]: what a search for the holders of a segment looked at, and what it could not see.

use core::fmt;

/// What was searched when no holder of a segment was found, and what could not be searched.
///
/// [`Display`](fmt::Display) prints both, the likely reason, and what to do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Search {
    /// How many processes of this user were searched.
    pub processes: u32,
    /// How many processes of this user did not let this process look at their descriptors.
    pub closed: u32,
    reasons: Reasons,
    /// There are processes outside of the pid namespace that `/proc` shows, which cannot be seen.
    pub other_namespaces: bool,
    /// `/proc` is mounted with `hidepid`: it does not show processes that this process may not
    /// trace.
    pub hidden_processes: bool,
    /// The search ran out of time: it ends after a few seconds.
    pub stopped: bool,
}

impl Search {
    /// Returns, for each reason why processes did not let this process look, the first of these
    /// processes (its number in `/proc`) and the reason.
    pub fn reasons(&self) -> impl Iterator<Item = (u32, Denial)> {
        let Reasons {
            first,
            group,
            own_group,
            more,
        } = self.reasons;
        let kinds = [
            Denial::Ids { group, own_group },
            Denial::Undumpable,
            Denial::Capabilities { more },
            Denial::UserNamespace,
            Denial::Lease,
            Denial::Unknown,
        ];
        first
            .into_iter()
            .zip(kinds)
            .filter(|&(process, _)| process != 0)
    }

    /// Records a process that does not let this process look at its descriptors.
    pub(crate) fn note_closed(&mut self, process: u32, reason: Denial) {
        self.closed = self.closed.saturating_add(1);
        let kind = match reason {
            Denial::Ids { .. } => 0,
            Denial::Undumpable => 1,
            Denial::Capabilities { .. } => 2,
            Denial::UserNamespace => 3,
            Denial::Lease => 4,
            Denial::Unknown => 5,
        };
        let Some(first @ 0) = self.reasons.first.get_mut(kind) else {
            return;
        };
        *first = process;
        match reason {
            Denial::Ids { group, own_group } => {
                (self.reasons.group, self.reasons.own_group) = (group, own_group);
            }
            Denial::Capabilities { more } => self.reasons.more = more,
            _ => {}
        }
    }

    /// Returns `true` if everything was searched: then no process of this user holds the segment.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.closed == 0 && !self.other_namespaces && !self.hidden_processes && !self.stopped
    }
}

/// Why a process of the same user does not let this process look at its descriptors, as far as this
/// can be found out.
///
/// The rules are those of `ptrace(2)`, section "Ptrace access mode checking".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// Its user or group ids differ from those of this process, although it has the same effective
    /// user.
    Ids {
        /// Its effective group.
        group: u32,
        /// The effective group of this process.
        own_group: u32,
    },
    /// It made itself undumpable, changed its user or group, or may not read its own program file.
    Undumpable,
    /// It has capabilities that this process does not have.
    Capabilities {
        /// These capabilities, one bit for each (`capabilities(7)`).
        more: u64,
    },
    /// It runs in another user namespace.
    UserNamespace,
    /// It holds a lease on the segment (`fcntl(2)`, `F_SETLEASE`), as a pool does that is about to
    /// reuse it.
    Lease,
    /// None of the above: a security module, or a user namespace that looks like the one of this
    /// process.
    Unknown,
}

/// For each kind of [`Denial`] the first process, or 0, and the details.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reasons {
    first: [u32; 6],
    group: u32,
    own_group: u32,
    more: u64,
}

/// What helps in all of these cases.
pub(crate) const CURES: &str = "pass the descriptor to a program that you start (`ShMem::inherit`), \
                                share the segment through `StdServedShMemProvider` (with \
                                SHMEM_SERVICE set to the same path on both sides), or create it \
                                with `UnixShMemProvider` (System V) or `FileShMemProvider` (a file \
                                below TMPDIR), whose segments need no access to the process";

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = Count(self.processes, "process", "processes");
        write!(f, "searched {processes} of this user")?;
        if self.is_complete() {
            return Ok(());
        }
        f.write_str("; not seen: ")?;
        let mut separator = "";
        if self.closed > 0 {
            let closed = Count(self.closed, "process", "processes");
            write!(f, "{closed} of this user that this one may not look into (")?;
            for (process, reason) in self.reasons() {
                write!(f, "{separator}process {process}: {reason}")?;
                separator = "; ";
            }
            f.write_str(")")?;
            separator = ", and ";
        }
        let mut unseen = |f: &mut fmt::Formatter<'_>, what: &str| {
            let result = write!(f, "{separator}{what}");
            separator = ", and ";
            result
        };
        if self.hidden_processes {
            unseen(
                f,
                "processes that /proc hides, because it is mounted with `hidepid`: those with \
                     another group, more capabilities, or PR_SET_DUMPABLE off",
            )?;
        }
        if self.other_namespaces {
            unseen(f, "processes outside of this pid namespace (containers)")?;
        }
        if self.stopped {
            unseen(f, "the rest, because the search ran out of time")?;
        }
        write!(f, ". If one of them holds it, {CURES}")
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ids { group, own_group } if group != own_group => write!(
                f,
                "it runs with group {group} and this process with group {own_group} (`newgrp`, \
                 systemd `Group=`): run both with the same primary group"
            ),
            Self::Ids { .. } => {
                f.write_str("its real or saved user or group differs from that of this process")
            }
            Self::Undumpable => f.write_str(
                "it is undumpable: it called prctl(PR_SET_DUMPABLE), changed its user or group, \
                 or was executed from a file that its user may not read",
            ),
            Self::Capabilities { more } => write!(
                f,
                "it has capabilities that this process does not have ({more:#x}; `setcap`, \
                 systemd `AmbientCapabilities=`)"
            ),
            Self::UserNamespace => f.write_str("it runs in another user namespace"),
            Self::Lease => f.write_str(
                "it holds a lease on the segment, as a `ShMemPool` does while it zeroes a segment to \
                 reuse it: at that moment the id names nothing that can be opened",
            ),
            Self::Unknown => f.write_str(
                "its user, group, capabilities and dumpable flag do not explain it: a security \
                 module (Landlock, AppArmor, SELinux, Yama) or another user namespace does",
            ),
        }
    }
}

/// A number of things, followed by the singular or plural of their name.
struct Count(u32, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, many) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { many })
    }
}
