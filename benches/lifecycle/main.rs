//! What the crate costs over the system calls it is made of: time, calls, memory.
//!
//! Every operation takes turns with its raw twin, the calls that give the same guarantees and
//! nothing else, in batches so small that whatever slows the machine slows both. The ratio is the
//! median of those of the pairs, so it says more than the two times beside it.
//!
//! ```text
//! cargo bench --bench lifecycle                     measures, and counts calls with strace
//! cargo bench --bench lifecycle -- 'read_at'        the rows whose name contains the text
//! cargo bench --bench lifecycle -- --test           runs everything once: does it still work?
//! ```

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod holder;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod raw;
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
    use compare::{Bench, Effort};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let filter = || words.iter().copied().find(|word| !word.starts_with('-'));
    match *words.as_slice() {
        [CHILD, "hold"] => return holder::hold(None),
        [CHILD, "hold", id] => return holder::hold(Some(id)),
        [CHILD, "memory", count] => return memory::fill(count.parse()?),
        [CHILD, "trace", ref filter @ ..] => {
            let mut bench = Bench::new(Effort::Traced, filter.first().copied());
            rows::splits();
            rows::all(&mut bench);
            return Ok(());
        }
        _ => {}
    }
    // Cargo passes `--bench` when it benches and nothing when it tests.
    let measures = words.contains(&"--bench") && !words.contains(&"--test");
    let effort = if measures {
        Effort::Measured
    } else {
        Effort::Once
    };
    let mut bench = Bench::new(effort, filter());
    bench.count_calls();
    rows::all(&mut bench);
    bench.print_splits();
    if filter().is_none() {
        memory::report(if measures { 10_000 } else { 100 });
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the raw twins are written for Linux");
}
