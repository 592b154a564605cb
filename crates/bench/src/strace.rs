//! Counts system calls: runs a program under `strace`, in whose log marks tell which calls belong to what.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};

use crate::Result;

/// No path starts with this. Asking for one leaves a line in the log.
const MARK: &str = "/mark of the benchmark ";

/// Runs the operation between two marks. The label must not contain quotation marks.
pub fn between_marks<T>(label: &str, operation: impl FnOnce() -> T) -> T {
    let [before, after] = [label, ""].map(|label| format!("{MARK}{label}"));
    let _ = access(&before, Access::EXISTS);
    let result = operation();
    let _ = access(&after, Access::EXISTS);
    result
}

/// Whose calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Those of the thread that set the marks.
    Caller,
    /// Those of all other threads and processes in that time.
    Others,
}

/// The names of the calls between marks.
#[derive(Debug)]
pub struct Calls {
    /// A list for each time that an operation was run.
    lists: HashMap<(String, Side), Vec<Vec<String>>>,
}

impl Calls {
    /// Runs this program with these arguments under `strace`, with all processes that it starts, and
    /// returns the calls between its marks.
    pub fn of_this_program<I>(arguments: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .arg(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => "strace not found".into(),
                _ => format!("strace: {error}"),
            })?;
        let calls = Self::parse(&std::fs::read_to_string(log).unwrap_or_default());
        if calls.lists.is_empty() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(message.lines().next().unwrap_or("strace has no log").into());
        }
        Ok(calls)
    }

    /// Parses a log, each line of which is the number of a thread and a call.
    fn parse(log: &str) -> Self {
        let mut lists = HashMap::<_, Vec<Vec<String>>>::new();
        let mut current = None;
        for line in log.lines() {
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            let label = call.split_once(MARK);
            if let Some(label) = label.and_then(|(_, rest)| rest.split('"').next()) {
                current = (!label.is_empty()).then_some((label, thread));
                if current.is_some() {
                    for side in [Side::Caller, Side::Others] {
                        let lists = lists.entry((label.into(), side)).or_default();
                        lists.push(Vec::new());
                    }
                }
            } else if let (Some((label, caller)), Some((name, _))) = (current, call.split_once('('))
            {
                let name = name.trim_start();
                let side = if thread == caller {
                    Side::Caller
                } else {
                    Side::Others
                };
                // Not the second line of a call that was interrupted in the log by those of another thread.
                let is_start = name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                let lists = lists.entry((label.into(), side)).or_default();
                if let Some(names) = lists.last_mut().filter(|_| is_start) {
                    names.push(name.into());
                }
            }
        }
        Self { lists }
    }

    /// Returns the shortest list of calls under a label: that of a process whose caches are filled.
    #[must_use]
    pub fn shortest(&self, label: &str, side: Side) -> Option<&[String]> {
        let lists = self.lists.get(&(label.to_owned(), side))?;
        lists
            .iter()
            .min_by_key(|names| names.len())
            .map(Vec::as_slice)
    }

    /// Returns the number and the names of the calls in [`shortest`](Self::shortest).
    #[must_use]
    pub fn summary(&self, label: &str, side: Side) -> Option<String> {
        let names = self.shortest(label, side)?;
        Some(format!("{}: {}", names.len(), names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Calls, Side};

    #[test]
    fn calls_between_marks_belong_to_their_thread() {
        let calls = Calls::parse(
            "10    access(\"/mark of the benchmark create\", F_OK) = -1 ENOENT (No such file)\n\
             10    memfd_create(\"x\", 0) = 3\n\
             11    epoll_wait(4 <unfinished ...>\n\
             10    mmap(NULL, 4096) = 0x7f\n\
             11    <... epoll_wait resumed>[]) = 1\n\
             10    access(\"/mark of the benchmark \", F_OK) = -1 ENOENT (No such file)\n\
             10    close(3) = 0\n",
        );
        let summary = |side| calls.summary("create", side).expect("it has a list");
        assert_eq!(summary(Side::Caller), "2: memfd_create, mmap");
        assert_eq!(summary(Side::Others), "1: epoll_wait");
        assert_eq!(calls.shortest("drop", Side::Caller), None);
    }
}
