//! `SECURITY.md` and the pages in `docs/` name tests as proof: each of them has to exist.

use std::fs;
use std::path::Path;

/// Of a page, what stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

/// Whether the file, or a file of the folder, has a function of that name.
fn has_function(place: &str, function: &str) -> bool {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    let text =
        fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    ["(", "<"]
        .iter()
        .any(|end| text.contains(&format!("fn {function}{end}")))
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
            let parts: Vec<&str> = name.split("::").collect();
            let found = match parts[..] {
                ["contract", "…", test] => has_function("tests/contract/contract.rs", test),
                [suite, folder, file, test] => {
                    has_function(&format!("tests/{suite}/{folder}/{file}.rs"), test)
                }
                [suite, file, test] => has_function(&format!("tests/{suite}/{file}.rs"), test),
                [test] if test.contains('_') && !test.contains('/') => has_function(
                    file.unwrap_or_else(|| panic!("of which file? {name}")),
                    test,
                ),
                _ => continue,
            };
            assert!(found, "{name}: there is no such test");
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
    let page = include_str!("../SECURITY.md");
    let mut checked = 0;
    for name in quoted(page) {
        let parts: Vec<&str> = name.split("::").collect();
        let places = match parts[..] {
            ["contract", "…", _] => vec!["tests/contract/contract.rs".to_owned()],
            ["model", _] => vec!["tests/model.rs".to_owned()],
            // Of the library itself.
            [module, "tests", file, _] => vec![format!("src/{module}/tests/{file}.rs")],
            [suite, file, _] => ["", "attack/"]
                .map(|folder| format!("tests/{suite}/{folder}{file}.rs"))
                .into(),
            _ => continue,
        };
        let test = parts.last().copied().unwrap_or_default();
        if test == "x" {
            // The example.
            continue;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = places
            .iter()
            .filter(|place| root.join(place).exists())
            .any(|place| has_function(place, test));
        assert!(found, "{name}: there is no such test");
        checked += 1;
    }
    assert!(checked > 50, "only {checked} names were found");
}
