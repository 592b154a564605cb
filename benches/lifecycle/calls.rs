//! Counts system calls: strace sees them, and marks say what they belong to.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};

use crate::{CHILD, Result};

/// What [`rows::splits`](crate::rows::splits) takes apart.
pub(crate) const MECHANISMS: [&str; 4] = ["default", "memfd", "System V", "POSIX"];

/// The parts it finds.
pub(crate) const PARTS: [&str; 3] = ["create", "attach", "drop"];

/// What marks a part.
pub(crate) fn part_label(part: &str, mechanism: &str) -> String {
    format!("{part}: {mechanism}")
}

/// No such file exists: whoever asks for it means to be seen asking.
const MARK: &str = "/mark of the benchmark ";

/// The names of the calls between marks, each time they were passed.
pub(crate) struct Calls(HashMap<String, Vec<Vec<String>>>);

/// Runs the operation between marks that bear the label. It has no quotation marks.
pub(crate) fn between_marks<T>(label: &str, operation: impl FnOnce() -> T) -> T {
    let [before, after] = [label, ""].map(|label| format!("{MARK}{label}"));
    let _ = access(&before, Access::EXISTS);
    let result = operation();
    let _ = access(&after, Access::EXISTS);
    result
}

/// Runs everything once more in a process under strace. If that cannot be, says why.
pub(crate) fn traced(filter: Option<&str>) -> Result<Calls, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("strace")
        .arg("-qq")
        .arg(program)
        .args([CHILD, "trace"])
        .args(filter)
        .stdout(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "strace not found".into(),
            _ => format!("strace: {error}"),
        })?;
    let log = String::from_utf8_lossy(&output.stderr);
    let calls = Calls::parse(&log);
    if calls.0.is_empty() {
        return Err(log.lines().next().unwrap_or("strace says nothing").into());
    }
    Ok(calls)
}

impl Calls {
    fn parse(log: &str) -> Self {
        let mut all = HashMap::<_, Vec<_>>::new();
        let mut current: Option<(&str, Vec<String>)> = None;
        for line in log.lines() {
            let label = line
                .split_once(MARK)
                .and_then(|(_, rest)| rest.split('"').next());
            if let Some(label) = label {
                if let Some((label, calls)) = current.take() {
                    all.entry(label.into()).or_default().push(calls);
                }
                current = (!label.is_empty()).then_some((label, Vec::new()));
            } else if let (Some((_, calls)), Some((name, _))) = (&mut current, line.split_once('('))
            {
                calls.push(name.into());
            }
        }
        Self(all)
    }

    /// The calls under this label. The shortest list is that of a process which has nothing to
    /// fetch or to fill.
    pub(crate) fn of(&self, label: &str) -> Option<&[String]> {
        let lists = self.0.get(label)?;
        lists
            .iter()
            .min_by_key(|calls| calls.len())
            .map(Vec::as_slice)
    }
}
