//! One table of everything that performance is demanded of, beside the raw calls of the same run.
//!
//! ```text
//! make bench-table                             measures; prints the table, and writes the raw data
//! cargo run --release -- --once                runs everything once: does it still work?
//! cargo run --release -- 'from_bytes'          the rows whose name contains the text
//! ```

mod measure;
mod peers;
mod raw;
mod rows;
mod two;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use shmem_providers::{ShMem, ShMemId, ShMemProvider, StdShMemProvider};

use crate::measure::Table;

/// What everything here returns that a host can make fail.
type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["--hold", files] => return hold(None, files.parse()?),
        ["--hold", files, id] => return hold(Some(ShMemId::from_string(id)), files.parse()?),
        ["--live", count] => return rows::live(count.parse()?),
        _ => {}
    }
    let mut table = Table::default();
    table.once = words.contains(&"--once");
    table.filter = words
        .iter()
        .find(|word| !word.starts_with('-'))
        .map(|&word| word.into());
    rows::all(&mut table);
    let markdown = table.markdown();
    println!("{markdown}");
    if let Some(path) = words.iter().find_map(|word| word.strip_prefix("--into=")) {
        put_between_marks(path, &markdown)?;
    }
    if let Some(path) = words.iter().find_map(|word| word.strip_prefix("--csv=")) {
        std::fs::write(path, table.csv())?;
    }
    Ok(())
}

/// Replaces what stands between the marks of a page.
fn put_between_marks(path: &str, table: &str) -> Result {
    let (start, end) = ("<!-- table -->\n", "<!-- end of table -->");
    let page = std::fs::read_to_string(path)?;
    let (before, rest) = page.split_once(start).ok_or("no mark in the page")?;
    let (_, after) = rest.split_once(end).ok_or("no second mark in the page")?;
    Ok(std::fs::write(
        path,
        format!("{before}{start}{table}{end}{after}"),
    )?)
}

/// Another process that holds a segment.
pub(crate) struct Holder {
    child: Child,
    pub(crate) id: ShMemId,
}

impl Holder {
    /// Starts a process that attaches to the segment of this id, or makes a new one, and has so many
    /// other descriptors besides.
    pub(crate) fn start(id: Option<ShMemId>, files: u32) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--hold", &files.to_string()])
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn hold(id: Option<ShMemId>, files: u32) -> Result {
    let mut provider = StdShMemProvider::new()?;
    let segment = match id {
        None => provider.new_shmem(rows::SIZE)?,
        Some(id) => provider.shmem_from_id(id)?,
    };
    let others: Vec<_> = (0..files)
        .map(|_| std::fs::File::open("/dev/null"))
        .collect();
    println!("{}", segment.id());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(others);
    Ok(())
}
