//! The rows of the table.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::Result;
use crate::compare::{Bench, Effort, Pairs, Target, Unit};
use crate::program::Program;

/// How many clients work at once where there are several.
const CLIENTS: usize = 8;

/// Segments that live meanwhile, where there are to be few.
const FEW: u32 = 10;

/// All rows.
pub(crate) fn all(bench: &Bench<'_>) {
    let most = Target::AtMost;
    bench.row("one client: ours, bare", most(1.15), |effort| {
        one_client("ours", effort)
    });
    bench.row(
        "memfd ids, no service: ours, bare",
        Target::None,
        |effort| one_client("alone", effort),
    );
    bench.row(
        "8 clients at once: ours, bare",
        Target::AtLeast(0.9),
        eight_clients,
    );
    bench.row("ours: 10 000 live segments, 10", most(1.2), many_segments);
    bench.row("ours: 200 idle clients, none", most(1.2), idle_clients);
}

/// A folder with the sockets of two services.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { folder })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Our service, and the bare one.
    fn servers(&self) -> Result<[Program; 2]> {
        Ok([
            Program::service(&self.socket("ours"), 0)?,
            Program::bare_server(&self.socket("bare"))?,
        ])
    }
}

fn batch(worker: &mut Program, effort: &Effort) -> Result<f64> {
    worker.ask(&format!("batch {}", effort.batch))
}

fn one_client(kind: &str, effort: &Effort) -> Result<Pairs> {
    let mut pairs = Pairs::new(Unit::Time);
    for _ in 0..effort.series {
        let place = Place::new()?;
        let _servers = place.servers()?;
        let mut ours = Program::worker(kind, &place.socket("ours"))?;
        let mut bare = Program::worker("bare", &place.socket("bare"))?;
        let this = || batch(&mut ours, effort);
        pairs.add(effort.pairs, this, || batch(&mut bare, effort))?;
    }
    Ok(pairs)
}

fn eight_clients(effort: &Effort) -> Result<Pairs> {
    let mut pairs = Pairs::new(Unit::Rate);
    for _ in 0..effort.series {
        let place = Place::new()?;
        let _servers = place.servers()?;
        let workers = |kind| -> Result<Vec<_>> {
            let worker = |_| Program::worker(kind, &place.socket(kind));
            (0..CLIENTS).map(worker).collect()
        };
        let [mut ours, mut bare] = [workers("ours")?, workers("bare")?];
        let this = || throughput(&mut ours, effort);
        pairs.add(effort.slices, this, || throughput(&mut bare, effort))?;
    }
    Ok(pairs)
}

/// Of all workers together, while all of them work.
fn throughput(workers: &mut [Program], effort: &Effort) -> Result<f64> {
    for worker in &mut *workers {
        worker.tell(&format!("slice {}", effort.slice_millis))?;
    }
    workers.iter_mut().map(Program::answer).sum()
}

fn many_segments(effort: &Effort) -> Result<Pairs> {
    // One half of the service's descriptors is for clients, one eighth of the other half not for a
    // client that holds much, and a few are the service's own.
    let needed = u64::from(effort.segments) * 2 * 8 / 7 + 1000;
    let mut pairs = Pairs::new(Unit::Time);
    for _ in 0..effort.series {
        let place = Place::new()?;
        let mut sides = Vec::new();
        for (name, segments) in [("many", effort.segments), ("few", FEW)] {
            let address = place.socket(name);
            let service = Program::service(&address, needed)?;
            let mut worker = Program::worker("ours", &address)?;
            let live = worker.ask(&format!("hold {segments}"))?;
            if live < segments.into() {
                pairs.note = format!(" (ONLY {live}: RLIMIT_NOFILE cannot be raised to {needed})");
            }
            sides.push((worker, service));
        }
        let [(many, _), (few, _)] = sides.as_mut_slice() else {
            return Err("there are two sides".into());
        };
        pairs.add(effort.pairs, || batch(many, effort), || batch(few, effort))?;
    }
    Ok(pairs)
}

fn idle_clients(effort: &Effort) -> Result<Pairs> {
    let mut pairs = Pairs::new(Unit::Time);
    for _ in 0..effort.series {
        let place = Place::new()?;
        let [crowded, empty] = ["crowded", "empty"].map(|name| place.socket(name));
        let needed = u64::from(effort.idle_clients) * 2 + 1000;
        let _crowded = Program::service(&crowded, needed)?;
        let _empty = Program::service(&empty, needed)?;
        let _idle = Program::idle_clients(&crowded, effort.idle_clients)?;
        let mut with = Program::worker("ours", &crowded)?;
        let mut without = Program::worker("ours", &empty)?;
        let this = || batch(&mut with, effort);
        pairs.add(effort.pairs, this, || batch(&mut without, effort))?;
    }
    Ok(pairs)
}
