//! The rows of the table.

use std::path::PathBuf;

use bench::Result;
use bench::pairs::{Pairs, Target};
use tempfile::TempDir;

use crate::program::Program;
use crate::table::{Effort, Found, Table};

/// The number of clients in the row with several.
const CLIENTS: usize = 8;

/// The number of live segments on the side that has few.
const FEW: u32 = 10;

/// All rows.
pub(crate) fn all(table: &Table<'_>) {
    let most = Target::AtMost;
    table.row("one client: ours, bare", most(1.15), |effort| {
        one_client("ours", effort)
    });
    table.row(
        "memfd ids, no service: ours, bare",
        Target::None,
        |effort| one_client("alone", effort),
    );
    table.row(
        "8 clients at once: ours, bare",
        Target::AtLeast(0.9),
        eight_clients,
    );
    table.row("ours: 10 000 live segments, 10", most(1.2), many_segments);
    table.row("ours: 200 idle clients, none", most(1.2), idle_clients);
}

/// A directory with the sockets of two services.
struct Sockets {
    directory: TempDir,
}

impl Sockets {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts our service and the bare one.
    fn servers(&self) -> Result<[Program; 2]> {
        Ok([
            Program::service(&self.path("ours"), 0)?,
            Program::bare_server(&self.path("bare"))?,
        ])
    }
}

fn batch(worker: &mut Program, effort: &Effort) -> Result<f64> {
    worker.request(&format!("batch {}", effort.batch))
}

fn one_client(kind: &str, effort: &Effort) -> Result<Found> {
    let mut pairs = Pairs::default();
    for _ in 0..effort.series {
        let sockets = Sockets::new()?;
        let _servers = sockets.servers()?;
        let mut ours = Program::worker(kind, &sockets.path("ours"))?;
        let mut bare = Program::worker("bare", &sockets.path("bare"))?;
        let this = || batch(&mut ours, effort);
        pairs.measure(effort.pairs, this, || batch(&mut bare, effort))?;
    }
    Ok(Found::times(pairs))
}

fn eight_clients(effort: &Effort) -> Result<Found> {
    let mut pairs = Pairs::default();
    for _ in 0..effort.series {
        let sockets = Sockets::new()?;
        let _servers = sockets.servers()?;
        let workers = |kind| -> Result<Vec<_>> {
            let worker = |_| Program::worker(kind, &sockets.path(kind));
            (0..CLIENTS).map(worker).collect()
        };
        let [mut ours, mut bare] = [workers("ours")?, workers("bare")?];
        let this = || throughput(&mut ours, effort);
        pairs.measure(effort.slices, this, || throughput(&mut bare, effort))?;
    }
    Ok(Found::rates(pairs))
}

/// Returns the operations per second of all workers together, while all of them work.
fn throughput(workers: &mut [Program], effort: &Effort) -> Result<f64> {
    for worker in &mut *workers {
        worker.send(&format!("slice {}", effort.slice_millis))?;
    }
    workers.iter_mut().map(Program::reply).sum()
}

fn many_segments(effort: &Effort) -> Result<Found> {
    // Half of the service's descriptors is for clients, an eighth of the other half is closed to a client
    // that holds many segments, and the service needs a few itself.
    let needed = u64::from(effort.segments) * 2 * 8 / 7 + 1000;
    let mut pairs = Pairs::default();
    let mut note = String::new();
    for _ in 0..effort.series {
        let sockets = Sockets::new()?;
        let mut sides = Vec::new();
        for (name, segments) in [("many", effort.segments), ("few", FEW)] {
            let address = sockets.path(name);
            let service = Program::service(&address, needed)?;
            let mut worker = Program::worker("ours", &address)?;
            let live = worker.request(&format!("hold {segments}"))?;
            if live < segments.into() {
                note = format!(" (ONLY {live}: RLIMIT_NOFILE cannot be raised to {needed})");
            }
            sides.push((worker, service));
        }
        let [(many, _), (few, _)] = sides.as_mut_slice() else {
            return Err("there are two sides".into());
        };
        pairs.measure(effort.pairs, || batch(many, effort), || batch(few, effort))?;
    }
    let mut found = Found::times(pairs);
    found.note = note;
    Ok(found)
}

fn idle_clients(effort: &Effort) -> Result<Found> {
    let mut pairs = Pairs::default();
    for _ in 0..effort.series {
        let sockets = Sockets::new()?;
        let [crowded, empty] = ["crowded", "empty"].map(|name| sockets.path(name));
        let needed = u64::from(effort.idle_clients) * 2 + 1000;
        let _crowded = Program::service(&crowded, needed)?;
        let _empty = Program::service(&empty, needed)?;
        let _idle = Program::idle_clients(&crowded, effort.idle_clients)?;
        let mut with = Program::worker("ours", &crowded)?;
        let mut without = Program::worker("ours", &empty)?;
        let this = || batch(&mut with, effort);
        pairs.measure(effort.pairs, this, || batch(&mut without, effort))?;
    }
    Ok(Found::times(pairs))
}
