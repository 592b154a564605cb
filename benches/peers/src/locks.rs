//! Rows about locks and turns between 2, 4 and 8 processes, and about a lock that nobody else wants.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bench::Result;
use bench::pairs::{Pairs, Target};
use bench::raw::Pages;
use shmem_providers::sync::{Mutex, Presence, Slots, Turn};
use shmem_providers::wake::Wait;
use shmem_providers::{
    MemfdShMemProvider, ShMem, ShMemProvider, SharedRef, StdShMemProvider, Typed,
};

use crate::raw;
use crate::table::Table;

/// A robust mutex of the C library that processes share.
pub(crate) struct Robust {
    pages: Pages,
}

impl Robust {
    pub(crate) fn new() -> Result<Self> {
        let fd = raw::memfd(4096)?;
        let pages = Pages::shared(&fd, 4096)?;
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: each call gets a pointer to an object that the first one initialises, and the mutex is in a mapped
        // page that nothing else uses.
        unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            );
            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(pages.start().cast(), attributes.as_ptr());
        }
        Ok(Self { pages })
    }

    /// Increments the counter behind the mutex while holding it.
    pub(crate) fn increment(&self) {
        // SAFETY: the mutex is initialised, and the counter behind it is accessed while it is held.
        unsafe {
            libc::pthread_mutex_lock(self.pages.start().cast());
            let counter: *mut u64 = self.pages.start().add(128).cast();
            counter.write_volatile(counter.read_volatile() + 1);
            libc::pthread_mutex_unlock(self.pages.start().cast());
        }
    }
}

/// Our mutex and the places of its participants.
struct Ours {
    slots: SharedRef<Slots<64>>,
    mutex: SharedRef<Mutex<AtomicU64>>,
}

impl Ours {
    fn new() -> Result<Self> {
        let shared = MemfdShMemProvider::new()?.new_shmem(8192)?.share();
        Ok(Self {
            slots: shared.view(0)?,
            mutex: shared.view(4096)?,
        })
    }

    fn increment(&self, presence: &Presence) -> Result {
        let guard = self.mutex.lock(presence, Wait::new());
        let guard = guard.map_err(|error| format!("{error:?}"))?;
        guard.store(guard.load(Relaxed) + 1, Relaxed);
        Ok(())
    }
}

/// Lets this many processes do `work` at the same time, each with a number of its own, and returns the seconds until all
/// have finished.
fn together(processes: u32, work: &mut dyn FnMut(u32) -> Result) -> Result<f64> {
    let start = Instant::now();
    let children: Vec<_> = (0..processes)
        // SAFETY: this program has one thread.
        .map(|number| match unsafe { libc::fork() } {
            0 => {
                let code = i32::from(work(number).is_err());
                // SAFETY: the function has no preconditions.
                unsafe { libc::_exit(code) }
            }
            child => child,
        })
        .collect();
    let mut failed = 0;
    for child in children {
        let mut status = 0;
        // SAFETY: the status is a local variable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        failed += status;
    }
    if failed == 0 {
        Ok(start.elapsed().as_secs_f64())
    } else {
        Err("a process has failed".into())
    }
}

pub(crate) fn rows(table: &mut Table) -> Result {
    const AGAINST: &str = "a robust mutex of the C library";
    let (ours, robust) = (Ours::new()?, Robust::new()?);
    {
        let presence = Presence::join(&ours.slots)?;
        table.row(
            "lock, increment, unlock, 1 process",
            AGAINST,
            Target::AtMost(1.0),
            (100, 20_000),
            || black_box(ours.increment(&presence)),
            || {
                robust.increment();
                Ok(())
            },
        );
    }
    for processes in [2, 4, 8] {
        let work = format!("lock, increment, unlock, {processes} processes");
        if !table.wants(&work) {
            continue;
        }
        let (samples, times) = if table.once { (1, 10) } else { (20, 50_000) };
        let per = |seconds: f64| seconds / f64::from(processes * times);
        let mut pairs = Pairs::default();
        let measured = pairs.measure(
            samples,
            || {
                let seconds = together(processes, &mut |_| {
                    let presence = Presence::join(&ours.slots)?;
                    (0..times).try_for_each(|_| ours.increment(&presence))
                })?;
                Ok(per(seconds))
            },
            || {
                let seconds = together(processes, &mut |_| {
                    (0..times).for_each(|_| robust.increment());
                    Ok(())
                })?;
                Ok(per(seconds))
            },
        );
        let found = measured.map(|()| pairs).map_err(|error| error.to_string());
        table.add(&work, AGAINST, Target::None, found);
    }
    turns(table)
}

/// Measures how long it takes to pass a turn on, where all processes wait for theirs.
fn turns(table: &mut Table) -> Result {
    let turn = Typed::<Turn>::create(&mut StdShMemProvider::new()?, |_| {})?;
    for processes in [2, 4, 8] {
        let work = format!("pass a turn around {processes} processes");
        if !table.wants(&work) {
            continue;
        }
        let (samples, rounds) = if table.once { (1, 2) } else { (5, 100) };
        let around = |wait: Wait| {
            let seconds = together(processes, &mut |me| {
                for _ in 0..rounds {
                    turn.wait_for(me, wait)?;
                    turn.pass((me + 1) % processes)?;
                }
                Ok(())
            })?;
            Ok(seconds / f64::from(processes * rounds))
        };
        for (against, wait) in [
            ("spinning only", Wait::new().spins(u32::MAX)),
            ("sleeping at once", Wait::new().spins(0)),
        ] {
            let mut pairs = Pairs::default();
            let measured = pairs.measure(samples, || around(Wait::new()), || around(wait));
            let found = measured.map(|()| pairs).map_err(|error| error.to_string());
            table.add(&work, against, Target::None, found);
        }
    }
    Ok(())
}
