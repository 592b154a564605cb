//! Rules for the library's sources that the compiler does not check: which files may ask for the platform,
//! and which modules may import which.
//!
//! A new platform is then a row in each of the two tables and files in `src/sys/`, and a module can be
//! read without those that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What may contain `cfg` for platforms: the two tables, `src/sys/`, the pool, whose two ways to detect
/// forked children are files, as are those to register names, and the crate's root, which lists what exists.
const MAY_ASK: [&str; 6] = [
    "sys",
    "backends/mod.rs",
    "platform.rs",
    "named/mod.rs",
    "pool/mod.rs",
    "lib.rs",
];

/// The words of `cfg` that tell platforms apart. `any(unix, windows)`, whether there is shared memory at
/// all, is not one of them.
const QUESTIONS: [&str; 9] = [
    "target_os",
    "target_vendor",
    "target_env",
    "target_family",
    "shmem_android_rules",
    "shmem_apple_rules",
    "shmem_freebsd_rules",
    "cfg(unix",
    "cfg(windows",
];

/// Modules that `src/sys/` may not import: they are built on it.
const ABOVE_SYS: [&str; 3] = ["backends", "pool", "service"];

/// Groups of modules that import each other.
const CYCLES: [&[&str]; 3] = [
    // Errors name the id that they are about, and parsing an id can fail.
    &["error", "id"],
    // `sys` keeps `path_lock`'s list of held locks under a `ForkLock`, and `process::Owner` asks `sys` for
    // the generation of the process.
    &["process", "sys"],
    // `ShMem::share` returns a `Shared`, which holds any `ShMem`.
    &["sharing", "traits"],
];

/// A file below `src/`.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        assert!(found.len() > 60, "only {} sources were found", found.len());
        found
    }

    /// Returns the numbered lines that are not comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Returns the same without unit tests, which stand at the end of a file or in files of their own.
    fn library_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self
            .path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        self.code()
            .take_while(move |(_, line)| !is_test && line.trim() != "mod tests {")
    }

    fn is_one_of(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.path.starts_with(path))
    }

    /// Returns the module of the crate's root that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.iter().next().unwrap_or_default();
        let name = first.to_str().expect("our file names are UTF-8");
        name.trim_end_matches(".rs")
    }

    fn at(&self, number: usize, line: &str) -> String {
        format!("{}:{number}: {}", self.path.display(), line.trim())
    }
}

fn collect(directory: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("src can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, root, found);
        } else {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let path = path.strip_prefix(root).expect("it is below src").to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Returns the names that follow `crate::` in a line. An import of several, `crate::{…}`, counts as the
/// name `{`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let is_no_part = |c: char| !c.is_alphanumeric() && c != '_';
        let end = rest.find(is_no_part).unwrap_or(rest.len());
        rest.get(..end.max(1)).unwrap_or_default()
    })
}

#[test]
fn only_the_tables_ask_for_the_platform() {
    let mut asking = Vec::new();
    for source in Source::all() {
        if source.is_one_of(&MAY_ASK) {
            continue;
        }
        // Unit tests exist where the tools that explore schedules do.
        let is_test = |line: &str| line.trim_start().starts_with("#[cfg(all(test,");
        let asks =
            |line: &str| !is_test(line) && QUESTIONS.iter().any(|question| line.contains(question));
        asking.extend(
            source
                .code()
                .filter(|(_, line)| asks(line))
                .map(|(number, line)| source.at(number, line)),
        );
    }
    assert!(asking.is_empty(), "{}", asking.join("\n"));
}

#[test]
fn sys_imports_nothing_that_is_built_on_it() {
    let mut found = Vec::new();
    for source in Source::all() {
        if source.module() != "sys" {
            continue;
        }
        found.extend(
            source
                .library_code()
                .filter(|(_, line)| imports(line).any(|name| ABOVE_SYS.contains(&name)))
                .map(|(number, line)| source.at(number, line)),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The root only lists names for users; the library imports them from the modules that define them.
#[test]
fn nothing_is_imported_from_the_root() {
    let mut found = Vec::new();
    for source in Source::all() {
        if source.is_one_of(&["lib.rs", "platform.rs"]) {
            continue;
        }
        let is_of_the_root = |name: &str| name.starts_with(|c: char| !c.is_lowercase());
        found.extend(
            source
                .code()
                .filter(|(_, line)| imports(line).any(is_of_the_root))
                .map(|(number, line)| source.at(number, line)),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn modules_import_each_other_only_where_there_is_a_reason() {
    let sources = Source::all();
    let mut reaches: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &sources {
        if source.is_one_of(&["lib.rs", "platform.rs"]) {
            continue;
        }
        let imported = source.library_code().flat_map(|(_, line)| imports(line));
        reaches.entry(source.module()).or_default().extend(imported);
    }
    // Until nothing is added, what a module reaches is what those reach that it imports.
    loop {
        let before = reaches.clone();
        for reached in reaches.values_mut() {
            let further: Vec<_> = reached.iter().filter_map(|name| before.get(name)).collect();
            reached.extend(further.into_iter().flatten());
        }
        if reaches == before {
            break;
        }
    }
    let mutual = |a: &str, b: &str| a != b && reaches[a].contains(b) && reaches[b].contains(a);
    let mut cycles = BTreeSet::new();
    for &module in reaches.keys() {
        let others = reaches.keys().filter(|other| mutual(module, other));
        let mut cycle: Vec<&str> = others.copied().collect();
        if !cycle.is_empty() {
            cycle.push(module);
            cycle.sort_unstable();
            cycles.insert(cycle);
        }
    }
    let cycles: Vec<_> = cycles.into_iter().collect();
    assert_eq!(cycles, CYCLES);
}
