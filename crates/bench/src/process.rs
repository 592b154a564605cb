//! Second processes: [`Holder`], another process that holds a segment.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use crate::{Result, SIZE, raw};

/// Precedes the arguments of a holder's process.
const TASK: &str = "--hold";

/// Another process that holds a segment of [`SIZE`] bytes. It ends when this is dropped, or with this
/// process.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    id: ShMemId,
}

impl Holder {
    /// Starts a process of this program that attaches to the segment with this id, or creates a segment, and
    /// opens `files` files besides.
    pub fn start(id: Option<ShMemId>, files: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([TASK, &files.to_string()])
            .args(id.map(|id| id.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let id = ShMemId::from_string(line.trim());
        let holder = Self { child, id };
        if id.is_empty() {
            return Err("the other process has no segment".into());
        }
        Ok(holder)
    }

    /// Does what a holder's process does, if these are the arguments of one.
    #[must_use]
    pub fn run(arguments: &[&str]) -> Option<Result> {
        match *arguments {
            [TASK, files] => Some(hold(None, files)),
            [TASK, files, id] => Some(hold(Some(ShMemId::from_string(id)), files)),
            _ => None,
        }
    }

    /// Returns the id of the segment.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.id
    }

    /// Returns the path by which a raw program would open the segment.
    pub fn path(&self) -> Result<CString> {
        raw::path_of_memfd(self.child.id(), self.id.as_str())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The process ends when its standard input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn hold(id: Option<ShMemId>, files: &str) -> Result {
    let files: u32 = files.parse()?;
    let mut provider = StdShMemProvider::new()?;
    let segment = match id {
        None => provider.new_shmem(SIZE)?,
        Some(id) => provider.shmem_from_id(id)?,
    };
    let open_files: Vec<_> = (0..files).map(|_| File::open("/dev/null")).collect();
    println!("{}", segment.id());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(open_files);
    Ok(())
}

/// Raises the limit of descriptors of this process as far as it may without privileges, and returns it:
/// `None` if there is none.
pub fn raise_descriptor_limit() -> Result<Option<u64>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(maximum)
}
