//! What a segment costs that goes through the service, against the least that a service can do.
//!
//! That least is a server of this benchmark, which waits with epoll and answers with one call to
//! receive and one to send, and a client that makes the same memory. Both services run as programs
//! of their own, which are this one started anew. The two take turns in batches so small that
//! whatever slows the machine slows both; the ratio is the median of those of the pairs, so it says
//! more than the two figures beside it.
//!
//! ```text
//! cargo bench --bench service                    measures, and counts calls with strace
//! cargo bench --bench service -- idle            the rows whose name contains the text
//! cargo bench --bench service -- --test          runs everything once: does it still work?
//! ```

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod rows;

/// What everything here returns that a host can make fail.
#[cfg(target_os = "linux")]
type Result<T = (), E = Box<dyn core::error::Error>> = core::result::Result<T, E>;

/// Precedes the tasks that this program gives to further processes of itself.
#[cfg(target_os = "linux")]
const CHILD: &str = "--child";

#[cfg(target_os = "linux")]
fn main() -> Result {
    use compare::Bench;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [CHILD, task @ ..] = words.as_slice() {
        return program::run(task);
    }
    let filter = words.iter().copied().find(|word| !word.starts_with('-'));
    // Cargo passes `--bench` when it benches and nothing when it tests.
    let measures = words.contains(&"--bench") && !words.contains(&"--test");
    rows::all(&Bench::new(measures, filter));
    if filter.is_none() {
        calls::report();
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the bare server is written for Linux");
}
