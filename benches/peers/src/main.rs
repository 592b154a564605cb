//! The table in `docs/performance.md`: the crate beside raw system calls and other crates.
//!
//! ```text
//! make bench-table                             measures, prints the table, and writes it and the raw data
//! cargo run --release -- --once                runs everything once, as a test
//! cargo run --release -- 'from_bytes'          only the rows whose names contain the text
//! ```

mod channels;
mod iox;
mod locks;
mod peers;
mod raw;
mod raw_ring;
mod rows;
mod table;
mod two;

use bench::Result;
use bench::process::Holder;

use crate::table::Table;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(held) = Holder::run(&words) {
        return held;
    }
    if let ["--live", count] = *words.as_slice() {
        return rows::live(count.parse()?);
    }
    if let [iox::RECEIVER, name, depth, count] = *words.as_slice() {
        return iox::receive(name, depth.parse()?, count.parse()?);
    }
    let mut table = Table::default();
    table.once = words.contains(&"--once");
    table.filter = bench::filter(&words).map(Into::into);
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

/// Replaces the text between the marks of a page.
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
