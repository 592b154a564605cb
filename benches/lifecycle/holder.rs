//! [`Holder`]: another process that has a segment.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use shmem_providers::{ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use crate::rows::SIZE;
use crate::{CHILD, Result};

/// Holds a segment until it is dropped, or this process ends.
pub(crate) struct Holder {
    child: Child,
    pub(crate) id: ShMemId,
}

impl Holder {
    /// Starts a process that attaches to the segment of this id, or makes a new one.
    pub(crate) fn start(id: Option<ShMemId>) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([CHILD, "hold"])
            .args(id.map(|id| id.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut holder = Self {
            child,
            id: ShMemId::default(),
        };
        let mut line = String::new();
        if let Some(stdout) = holder.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        holder.id = ShMemId::from_string(line.trim());
        if holder.id.is_empty() {
            return Err("the other process has no segment".into());
        }
        Ok(holder)
    }

    pub(crate) fn descriptor(&self) -> Result<CString> {
        descriptor(self.child.id(), self.id)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Nobody writes to it, so this is all that it is waiting for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What a holder's process does.
pub(crate) fn hold(id: Option<&str>) -> Result {
    let mut provider = StdShMemProvider::new()?;
    let segment = match id {
        None => provider.new_shmem(SIZE)?,
        Some(id) => provider.shmem_from_id(ShMemId::from_string(id))?,
    };
    println!("{}", segment.id());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where `/proc` shows the memfd with this id among a process's descriptors: what a raw program
/// would have been told instead of the id.
pub(crate) fn descriptor(pid: u32, id: ShMemId) -> Result<CString> {
    let nonce = id.as_str().strip_prefix('m').and_then(|text| text.get(7..));
    let nonce = nonce.ok_or("the default is not memfd here")?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let link = std::fs::read_link(&path).unwrap_or_default();
        if link.to_string_lossy().contains(nonce) {
            return Ok(CString::new(path.into_os_string().into_encoded_bytes())?);
        }
    }
    Err("the segment's descriptor does not show in /proc".into())
}
