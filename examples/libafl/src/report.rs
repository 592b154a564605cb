//! What the processes of a scene tell whoever plays it: lines in a file of their working directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The name of the file.
pub const REPORT: &str = "report";

/// Adds a line. Each is one write to the end of the file, so those of several processes do not mix.
pub fn say(line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(REPORT);
    file.and_then(|mut file: File| file.write_all(format!("{line}\n").as_bytes()))
        .expect("the report can be written");
}

/// The lines so far.
pub fn lines(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(REPORT)).unwrap_or_default();
    text.lines().map(String::from).collect()
}
