//! `Shared` and `Typed` between processes, in safe code only.

use std::error::Error;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmem_providers::Error::Misaligned;
use shmem_providers::{
    ShMem, ShMemId, ShMemProvider, SharedLayout, StdShMem, StdShMemProvider, Typed,
};

use super::peer::{ALL, Answer, Commands, LASTING, Peer, error_when_gone, here, provider};
use testkit::{Outcome, says_not_found};

#[derive(SharedLayout)]
#[repr(C)]
struct Totals {
    added: AtomicU64,
    last: AtomicU64,
}

#[derive(SharedLayout)]
#[repr(C)]
struct Renamed {
    added: AtomicU64,
    first: AtomicU64,
}

#[derive(SharedLayout)]
#[repr(C, align(65536))]
struct Aligned {
    value: AtomicU64,
}

/// Executes a command in the peer.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let mut provider = StdShMemProvider::new()?;
    match *words {
        ["add", id, turns] => add(&mut provider, ShMemId::from_string(id), turns.parse()?),
        ["renamed", id] => {
            let renamed = Typed::<Renamed>::open(&mut provider, ShMemId::from_string(id))?;
            Ok(renamed.first.load(Relaxed).to_string())
        }
        _ => Err(format!("unknown words {words:?}").into()),
    }
}

/// Adds in two threads, through two attachments and a `Typed`, and scribbles behind the value meanwhile.
fn add(provider: &mut StdShMemProvider, id: ShMemId, turns: u64) -> Result<String, Box<dyn Error>> {
    let typed = Typed::<Totals>::open(provider, id)?;
    let threads =
        [provider.shmem_from_id(id)?, provider.shmem_from_id(id)?].map(|segment: StdShMem| {
            let (typed, shared) = (typed.clone(), segment.share());
            thread::spawn(move || {
                for turn in 0..turns {
                    typed.added.fetch_add(1, Relaxed);
                    typed.last.store(turn, Relaxed);
                    let mut bytes = [0; 16];
                    shared.access().read_at(64, &mut bytes)?;
                }
                Ok::<(), shmem_providers::Error>(())
            })
        });
    for thread in threads {
        thread.join().map_err(|_| "a thread has panicked")??;
    }
    Ok(typed.added.load(Relaxed).to_string())
}

pub(crate) fn threads_and_processes_add_up() -> Outcome {
    const TURNS: u64 = 10_000;

    for mechanism in here(ALL) {
        let mut provider = provider(mechanism)?;
        let typed =
            Typed::<Totals>::create(&mut provider, |totals| totals.added.store(1, Relaxed))?;
        let mut peers: [Peer; 3] = std::array::from_fn(|_| Peer::start());
        for peer in &mut peers {
            peer.send(&format!("sharing add {} {TURNS}", typed.id()));
        }
        for _ in 0..TURNS {
            typed.added.fetch_add(1, Relaxed);
        }
        for peer in &mut peers {
            peer.answer_to("sharing add")?;
        }
        assert_eq!(typed.added.load(Relaxed), 1 + 7 * TURNS, "{mechanism}");
    }
    Ok(())
}

pub(crate) fn typed_segment_does_not_open_as_another_type() -> Outcome {
    let mut peer = Peer::start();
    for mechanism in here(ALL) {
        let typed = Typed::<Totals>::create(&mut provider(mechanism)?, |_| {})?;
        let error = peer
            .ask(format!("sharing renamed {}", typed.id()))
            .expect_err("other fields");
        assert!(error.contains("other names or types"), "{error}");
        let plain = provider(mechanism)?.new_shmem(4096)?;
        let error = peer
            .ask(format!("sharing renamed {}", plain.id()))
            .expect_err("no header");
        assert!(error.contains("not created as one"), "{error}");
    }
    Ok(())
}

pub(crate) fn references_stay_valid_when_the_creator_is_killed() -> Outcome {
    for mechanism in here(LASTING) {
        let mut creator = Peer::start();
        let id = creator.make(mechanism, 4096)?;
        creator.put(8, 5)?;
        let shared = provider(mechanism)?
            .shmem_from_id(ShMemId::from_string(&id))?
            .share();
        let reference = shared.view::<AtomicU64>(8)?;
        drop(shared);
        creator.kill();
        assert_eq!(reference.fetch_add(1, Relaxed).to_le(), 5);

        let mut other = Peer::start();
        assert_eq!(other.open(&id)?, 4096);
        other.drop_newest()?;
        drop(reference);
        let error = error_when_gone(|| {
            other.open(&id)?;
            other.drop_newest()
        });
        assert!(says_not_found(&error), "{error}");
    }
    Ok(())
}

/// Where the segment lies by chance, which differs from process to process, does not matter.
pub(crate) fn a_type_is_aligned_in_every_process_or_in_none() -> Outcome {
    for mechanism in here(ALL) {
        let mut provider = provider(mechanism)?;
        let mut kept = Vec::new();
        for _ in 0..64 {
            let error = Typed::<Aligned>::create(&mut provider, |_| ()).err();
            assert_eq!(error, Some(Misaligned { align: 65536 }), "{mechanism}");
            kept.push(provider.new_shmem(4096)?);
        }
    }
    Ok(())
}
