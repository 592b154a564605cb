//! Which system it is, only the two tables of platforms and `src/sys/` ask. So a new system is a row
//! in each table, and a file.

use std::fs;
use std::path::{Path, PathBuf};

/// The tables; the crate's root may ask as well, because it lists what there is.
const MAY_ASK: [&str; 5] = [
    "sys",
    "backends/mod.rs",
    "platform.rs",
    "pool/mod.rs",
    "lib.rs",
];

/// The words of `cfg` that tell systems apart. Whether there is one at all, `any(unix, windows)`, is no
/// such question.
const QUESTIONS: [&str; 7] = [
    "target_os",
    "target_vendor",
    "target_env",
    "target_family",
    "_rules",
    "cfg(unix",
    "cfg(windows",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn only_the_tables_ask_which_system_it_is() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&sources, &mut found);
    let (mut asking, mut checked) = (Vec::new(), 0);
    for path in &found {
        let place = path.strip_prefix(&sources).expect("it is in there");
        if MAY_ASK.iter().any(|table| place.starts_with(table)) {
            continue;
        }
        checked += 1;
        let text = fs::read_to_string(path).expect("a text");
        let code = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            if QUESTIONS.iter().any(|question| line.contains(question)) {
                asking.push(format!("{}:{}: {line}", place.display(), number + 1));
            }
        }
    }
    assert!(asking.is_empty(), "{}", asking.join("\n"));
    assert!(checked > 30, "only {checked} files: have they moved?");
}
