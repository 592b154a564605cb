//! What a segment costs that goes through the service, beside the least that a service can do.
//!
//! The least is a server of this benchmark, which waits with epoll and answers each request with one call to
//! receive and one to send, and a client that creates the same memory. Both services run as separate
//! processes of this program. The two sides take turns, and the ratio is the median of the ratios of the
//! pairs (see [`bench::pairs`]).
//!
//! ```text
//! cargo bench --bench service                    measures, and counts calls with strace
//! cargo bench --bench service -- idle            only the rows whose names contain the text
//! cargo bench --bench service -- --test          runs everything once, as a test
//! ```

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod table;

/// Precedes the tasks that this program gives to other processes of itself.
#[cfg(target_os = "linux")]
const CHILD: &str = "--child";

#[cfg(target_os = "linux")]
fn main() -> bench::Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [CHILD, task @ ..] = arguments.as_slice() {
        return program::run(task);
    }
    let filter = bench::filter(&arguments);
    rows::all(&table::Table::new(bench::is_measured(&arguments), filter));
    if filter.is_none() {
        calls::report();
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the bare server is written for Linux");
}
