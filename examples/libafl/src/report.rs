//! The reports of the processes in a scenario: lines in a file in their working directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The name of the file.
pub const REPORT: &str = "report";

/// Adds a line to the report. It is a single write to the end of the file, so lines of several processes do not
/// mix.
pub fn report(line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(REPORT);
    file.and_then(|mut file: File| file.write_all(format!("{line}\n").as_bytes()))
        .expect("the report can be written");
}

/// Returns the lines of the report in this directory.
pub fn lines(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join(REPORT)).unwrap_or_default();
    text.lines().map(String::from).collect()
}
