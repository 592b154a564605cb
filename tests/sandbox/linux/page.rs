//! Reads the tables of `docs/sandboxes.md`.

use std::collections::BTreeMap;

use shmem_providers::ErrorKind;

use super::peer::PROVIDERS;
use super::sandboxes::SANDBOXES;

/// The tables of the page.
pub(super) struct Page {
    /// Segments of processes outside.
    pub(super) into: Vec<Cell>,
    /// Segments of processes in the same sandbox.
    pub(super) inside: Vec<Cell>,
    /// The errors, by their names in the other tables.
    errors: BTreeMap<String, Expected>,
}

/// What the page says about one provider in one sandbox.
#[derive(Clone)]
pub(super) struct Cell {
    pub(super) sandbox: String,
    pub(super) provider: String,
    pub(super) expected: Expected,
    /// The text of the cell.
    text: String,
}

/// What is expected.
#[derive(Clone)]
pub(super) enum Expected {
    Works,
    Error {
        /// The name of its kind.
        kind: String,
        /// What its message contains.
        says: Vec<String>,
    },
}

impl Page {
    pub(super) fn read() -> Self {
        let page = include_str!("../../../docs/sandboxes.md");
        let errors = rows(page, "| error | kind |")
            .into_iter()
            .skip(1)
            .map(|row| {
                let quoted = |cell: &str| {
                    cell.split('`')
                        .skip(1)
                        .step_by(2)
                        .map(str::to_owned)
                        .collect()
                };
                let kind: Vec<String> = quoted(&row[1]);
                let says = quoted(&row[2]);
                (
                    row[0].clone(),
                    Expected::Error {
                        kind: kind.concat(),
                        says,
                    },
                )
            });
        let errors = errors.collect();
        Self {
            into: cells(page, "| sandbox of the attacher |", &errors),
            inside: cells(page, "| sandbox of both |", &errors),
            errors,
        }
    }

    /// Checks that the tables have a row for each sandbox and a column for each provider, and explain exactly
    /// the errors that occur.
    pub(super) fn assert_complete(&self) {
        for table in [&self.into, &self.inside] {
            let found: Vec<_> = table
                .iter()
                .map(|cell| (&*cell.sandbox, &*cell.provider))
                .collect();
            let all = SANDBOXES
                .iter()
                .flat_map(|sandbox| PROVIDERS.iter().map(|&provider| (sandbox.name, provider)));
            assert_eq!(found, all.collect::<Vec<_>>());
        }
        for (name, error) in &self.errors {
            let Expected::Error { kind, says } = error else {
                panic!("{name} is no error");
            };
            assert!(
                ErrorKind::ALL.iter().any(|known| known.name() == kind),
                "{kind}"
            );
            assert!(!says.is_empty(), "{name} says nothing");
            let mut cells = self.into.iter().chain(&self.inside);
            assert!(
                cells.any(|cell| cell.text == *name),
                "{name} does not occur"
            );
        }
    }
}

/// Returns the cells of the table whose heading starts like this.
fn cells(page: &str, heading: &str, errors: &BTreeMap<String, Expected>) -> Vec<Cell> {
    let rows = rows(page, heading);
    let (providers, rows) = rows.split_first().expect("it has a heading");
    let cell = |row: &[String], provider: &str, text: &str| Cell {
        sandbox: row[0].replace('`', ""),
        provider: provider.to_owned(),
        expected: match errors.get(text) {
            Some(error) => error.clone(),
            None if text == "yes" => Expected::Works,
            None => panic!("{text:?} is not explained"),
        },
        text: text.to_owned(),
    };
    let of_row = |row: &Vec<String>| {
        let cells = providers.iter().zip(row).skip(1);
        cells
            .map(|(provider, text)| cell(row, provider, text))
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

/// Returns the rows of the table whose heading starts like this, including the heading.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(heading));
    let table = lines.take_while(|line| line.starts_with('|'));
    let rows = table.filter(|line| !line.starts_with("| ---"));
    let split = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let rows: Vec<Vec<String>> = rows.map(split).collect();
    assert!(rows.len() > 1, "no table {heading}");
    rows
}
