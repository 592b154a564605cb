//! `SECURITY.md` and `docs/migration.md` name tests as evidence. These tests check that each of them exists.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the parts of a page that stand between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

fn in_the_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns `true` if the file exists and has a function of that name.
fn has_function(file: &Path, function: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    ["(", "<"]
        .iter()
        .any(|end| text.contains(&format!("fn {function}{end}")))
}

/// Returns the unit tests of a module of the library: a file, or the files of a directory.
fn unit_tests(module: &str) -> Vec<PathBuf> {
    let directory = in_the_repository(&format!("src/{module}/tests"));
    let files = fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
    files.push(directory.with_extension("rs"));
    files
}

/// Returns `true` if the page's text is the path of a test that exists, `false` if there is no such test,
/// and `None` if it is not the path of a test.
fn test_exists(path: &str) -> Option<bool> {
    let parts: Vec<&str> = path.split("::").collect();
    let (files, test) = match parts[..] {
        ["contract", "…", test] => (vec![in_the_repository("tests/contract/contract.rs")], test),
        [module, "tests", .., test] => (unit_tests(module), test),
        [suite, file, test] => (
            ["", "linux/", "linux/attack/", "linux/growth/"]
                .map(|directory| in_the_repository(&format!("tests/{suite}/{directory}{file}.rs")))
                .into(),
            test,
        ),
        _ => return None,
    };
    Some(files.iter().any(|file| has_function(file, test)))
}

#[test]
fn every_test_that_the_migration_page_names_exists() {
    let page = include_str!("../docs/migration.md");
    let table = page.split("| the original | here | test |").nth(1).unwrap();
    let mut checked = 0;
    for row in table
        .lines()
        .filter(|row| row.starts_with("| ") && !row.starts_with("| ---"))
    {
        let cell = row
            .trim_end_matches([' ', '|'])
            .rsplit(" | ")
            .next()
            .unwrap();
        let file = quoted(cell).find(|text| Path::new(text).extension().is_some());
        for name in quoted(cell) {
            let exists = match test_exists(name) {
                Some(exists) => exists,
                // A function alone: the cell names its file as well.
                None if name.contains('_') && !name.contains('/') => {
                    let file = file.unwrap_or_else(|| panic!("{name}: in which file?"));
                    has_function(&in_the_repository(file), name)
                }
                None => continue,
            };
            assert!(exists, "{name}: there is no such test");
            checked += 1;
        }
    }
    assert!(
        checked > 20,
        "only {checked} names were found: has the table changed?"
    );
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    // The example in the introduction.
    const EXAMPLE: &str = "processes::lookup::x";

    let page = include_str!("../SECURITY.md");
    let mut checked = 0;
    for name in quoted(page).filter(|name| *name != EXAMPLE) {
        let Some(exists) = test_exists(name) else {
            continue;
        };
        assert!(exists, "{name}: there is no such test");
        checked += 1;
    }
    assert!(checked > 50, "only {checked} names were found");
}
