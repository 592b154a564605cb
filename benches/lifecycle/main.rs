//! What the crate costs beside the system calls that it makes: time, calls, memory.
//!
//! Each operation alternates with its raw twin: the system calls that give the same guarantees, and nothing
//! else. The ratio is the median of the ratios of the pairs (see [`bench::pairs`]).
//!
//! ```text
//! cargo bench --bench lifecycle                     measures, and counts calls with strace
//! cargo bench --bench lifecycle -- 'read_at'        only the rows whose names contain the text
//! cargo bench --bench lifecycle -- --test           runs everything once, as a test
//! ```

#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
use bench::Result;

/// Precedes the tasks that this program gives to other processes of itself.
#[cfg(target_os = "linux")]
const CHILD: &str = "--child";

#[cfg(target_os = "linux")]
fn main() -> Result {
    use bench::process::Holder;
    use table::{Effort, Table};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(held) = Holder::run(&arguments) {
        return held;
    }
    match *arguments.as_slice() {
        [CHILD, "memory", count] => return memory::fill(count.parse()?),
        [CHILD, "trace", ref filter @ ..] => {
            let mut table = Table::new(Effort::Traced, filter.first().copied());
            rows::splits();
            rows::all(&mut table);
            return Ok(());
        }
        _ => {}
    }
    let is_measured = bench::is_measured(&arguments);
    let filter = bench::filter(&arguments);
    let effort = if is_measured {
        Effort::Measured
    } else {
        Effort::Once
    };
    let mut table = Table::new(effort, filter);
    table.count_calls();
    rows::all(&mut table);
    table.print_splits();
    if filter.is_none() {
        memory::report(if is_measured { 10_000 } else { 100 });
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the raw twins are written for Linux");
}
