//! How much: connections, segments, forks, descriptors, beyond every limit.

use std::time::{Duration, Instant};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::super::fork::WITH_THREADS;
use super::Scene;
use super::descriptors::memory;
use super::raw::{self, FORK, HELLO, REGISTER, Raw, frame};
use super::support::{DONE, Outcome, natively, skip};

/// Lets this process have as many descriptors, if it may.
fn need_descriptors(count: u64) -> Result<(), Outcome> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit
            .maximum
            .map(|most| most.min(count * 2))
            .or(Some(count * 2)),
        maximum: limit.maximum,
    };
    let may = limit.maximum.is_none_or(|most| most >= count);
    if may && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(skip(format!("RLIMIT_NOFILE cannot be raised to {count}")))
}

pub(crate) fn a_thousand_connections() -> Outcome {
    if let Err(skipped) = need_descriptors(1500) {
        return skipped;
    }
    for introduced in [false, true] {
        let mut scene = Scene::new()?;
        let mut crowd = Vec::new();
        for number in 0..1000 {
            let client = Raw::connect(scene.address())?;
            if introduced {
                // Who is turned away or let go again is told, or hung up on.
                let _ = client.ask(&frame(HELLO, 0, ""), &[]);
            }
            crowd.push(client);
            if number % 250 == 249 {
                scene.assert_served();
            }
        }
        scene.assert_served();
        drop(crowd);
        scene.assert_unharmed();
    }
    DONE
}

/// Each of them holds a segment, so that none is idle.
pub(crate) fn a_thousand_holders() -> Outcome {
    if let Err(skipped) = need_descriptors(1500) {
        return skipped;
    }
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    let mut crowd = Vec::new();
    let mut refused = 0;
    for number in 0..1000 {
        let client = Raw::connect(scene.address())?;
        let introduced = client.ask(&frame(HELLO, 0, ""), &[]);
        let register = frame(REGISTER, 100, &raw::id(number));
        let kept = match introduced {
            Ok(Some(raw::DONE)) => client.ask(&register, &[memory.as_fd()]),
            told => told,
        };
        refused += u32::from(!matches!(kept, Ok(Some(raw::DONE))));
        crowd.push(client);
    }
    assert!(refused > 0, "the service has no limit");
    scene.assert_served();
    drop(crowd);
    scene.assert_unharmed();
    DONE
}

/// Or as many as can be asked for in twenty seconds, where a tool slows this down.
pub(crate) fn a_million_segments() -> Outcome {
    const ASKED: u32 = 1_000_000;
    /// As many as there is room for in the sockets.
    const BURST: u32 = 4;
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    let client = Raw::introduced(scene.address())?;
    let mut kept = 0;
    let end = Instant::now() + Duration::from_secs(20);
    for first in (0..ASKED).step_by(BURST as usize) {
        if Instant::now() > end {
            break;
        }
        let burst = first..first + BURST;
        for number in burst.clone() {
            let register = frame(REGISTER, 100, &raw::id(number));
            client.send(&register, &[memory.as_fd()])?;
        }
        for _ in burst {
            match client.receive()?.ok_or("hung up")?.bytes[2] {
                raw::DONE => kept += 1,
                told => assert_eq!(told, raw::FULL),
            }
        }
        if first % (ASKED / 4) == 0 {
            scene.assert_served();
        }
    }
    assert!(0 < kept && kept < ASKED, "{kept} were kept");
    scene.assert_served();
    drop(client);
    scene.assert_unharmed();
    DONE
}

pub(crate) fn a_thousand_forks() -> Outcome {
    if let Err(skipped) = natively(WITH_THREADS) {
        return skipped;
    }
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    let client = Raw::introduced(scene.address())?;
    for number in 0..100 {
        let register = frame(REGISTER, 100, &raw::id(number));
        let told = client.ask(&register, &[memory.as_fd()])?;
        assert_eq!(told, Some(raw::DONE));
    }
    for number in 1000..2000 {
        let told = client.ask(&frame(FORK, 0, &raw::id(number)), &[])?;
        assert_eq!(told, Some(raw::DONE));
    }
    // An honest one is another matter, whether or not there is room to await it.
    scene.ask_honest("fork leave")?;
    scene.assert_served();
    // The latest are awaited, the first ones were given up for them.
    for (number, verdict) in [(1000, raw::UNKNOWN), (1999, raw::DONE)] {
        let child = Raw::connect(scene.address())?;
        let told = child.ask(&frame(HELLO, 0, &raw::id(number)), &[])?;
        assert_eq!(told, Some(verdict), "{number}");
    }
    drop(client);
    // Until the last of them is given up.
    scene.assert_unharmed();
    DONE
}

pub(crate) fn no_descriptors_left_in_the_host() -> Outcome {
    let mut scene = Scene::new()?;
    let host = scene.host.process();
    let before = getrlimit(Resource::Nofile);
    let tight = |current| Rlimit {
        current: Some(current),
        maximum: before.maximum,
    };
    // The thread's table is nearly empty. It can take in a few more connections, and no crowd.
    prlimit(Some(host), Resource::Nofile, tight(16))?;
    let mut crowd = Vec::new();
    let memory = memory(100)?;
    for number in 0..100 {
        let client = Raw::connect(scene.address())?;
        match client.ask(&frame(HELLO, 0, ""), &[]) {
            Ok(Some(raw::DONE)) => {
                let register = frame(REGISTER, 100, &raw::id(number));
                client.ask(&register, &[memory.as_fd()])?;
                crowd.push(client);
            }
            Ok(_) | Err(Errno::PIPE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    assert!(crowd.len() < 100, "the limit has no effect");
    // It cannot take anything in. It says so, and what it has it still hands out.
    let error = scene.ask_honest("make 100").expect_err("no room");
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
    scene.ask_honest(&format!("try {}", scene.id.clone()))?;
    drop(crowd);
    eventually_ok(&mut scene, "make 100");
    scene.ask_honest("drop")?;
    prlimit(Some(host), Resource::Nofile, before)?;
    scene.assert_unharmed();
    DONE
}

/// Once descriptors are free again, segments are taken in again, without anybody who connects.
pub(crate) fn descriptors_that_are_free_again() -> Outcome {
    let mut scene = Scene::new()?;
    let host = scene.host.process();
    let before = getrlimit(Resource::Nofile);
    let tight = Rlimit {
        current: Some(16),
        maximum: before.maximum,
    };
    prlimit(Some(host), Resource::Nofile, tight)?;
    let mut made = 0;
    while scene.ask_honest("make 100").is_ok() {
        made += 1;
        assert!(made < 100, "the limit has no effect");
    }
    for _ in 0..made {
        scene.ask_honest("drop")?;
    }
    eventually_ok(&mut scene, "make 100");
    scene.ask_honest("drop")?;
    prlimit(Some(host), Resource::Nofile, before)?;
    scene.assert_unharmed();
    DONE
}

/// Asks until it is done.
#[track_caller]
fn eventually_ok(scene: &mut Scene, request: &str) {
    let end = Instant::now() + Duration::from_secs(40);
    while let Err(error) = scene.ask_honest(request) {
        assert!(Instant::now() < end, "{request}: {error}");
    }
}
