//! The descriptor tables of the tasks of one process.
#![allow(unsafe_code)]

use rustix::process::getpid;

use super::own_pid;

/// The descriptor tables of one process that have been examined.
pub(super) struct Tables {
    /// One task for each table.
    seen: [Option<u32>; 4],
    /// The ids in `/proc` are those that `kcmp` takes.
    comparable: bool,
}

impl Tables {
    /// Starts with the table of the main thread.
    pub(super) fn starting_with(pid: u32) -> Self {
        let own = u32::try_from(getpid().as_raw_nonzero().get()).ok();
        Self {
            seen: [Some(pid), None, None, None],
            comparable: own.is_some() && own == own_pid(),
        }
    }

    /// Returns `true` if the task's table has not been examined, or if that is not known. Remembers
    /// it then.
    pub(super) fn is_new(&mut self, task: u32) -> bool {
        if self.seen.contains(&Some(task)) {
            return false;
        }
        if !self.comparable {
            return true;
        }
        let mut known = self.seen.iter().flatten();
        if known.any(|&other| have_one_table(task, other)) {
            return false;
        }
        if let Some(free) = self.seen.iter_mut().find(|seen| seen.is_none()) {
            *free = Some(task);
        }
        true
    }
}

/// Returns `true` if two tasks certainly share one descriptor table (`kcmp(2)`).
fn have_one_table(one: u32, other: u32) -> bool {
    /// `KCMP_FILES`.
    const FILES: libc::c_long = 2;
    #[allow(
        clippy::cast_lossless,
        clippy::cast_possible_wrap,
        reason = "a task id has at most 22 bits, and the type differs between machines"
    )]
    let (one, other) = (one as libc::c_long, other as libc::c_long);
    // SAFETY: the call takes only integers, and changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0, 0) == 0 }
}
