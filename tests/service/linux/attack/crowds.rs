//! Many connections, segments and forks, beyond every limit, and few descriptors.

use std::time::{Duration, Instant};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::super::fork::WITH_THREADS;
use super::Scene;
use super::descriptors::memory;
use super::lifetime::eventually;
use super::peer::Commands;
use super::raw::{self, FORK, HELLO, REGISTER, Raw, frame};
use testkit::{Outcome, natively, skip};

/// Raises the limit on this process's descriptors, or skips the test.
fn requires_descriptors(count: u64) -> Outcome {
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
    skip(format!("RLIMIT_NOFILE cannot be raised to {count}"))
}

pub(crate) fn a_thousand_connections_block_nobody() -> Outcome {
    requires_descriptors(1500)?;
    for introduced in [false, true] {
        let mut scene = Scene::new()?;
        let mut crowd = Vec::new();
        for number in 0..1000 {
            let client = Raw::connect(scene.address())?;
            if introduced {
                // A client that is rejected or evicted gets a reply, or its connection is closed.
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
    Ok(())
}

/// Each connection holds a segment, so that none is idle.
pub(crate) fn a_thousand_holders_block_nobody() -> Outcome {
    requires_descriptors(1500)?;
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
            status => status,
        };
        refused += u32::from(!matches!(kept, Ok(Some(raw::DONE))));
        crowd.push(client);
    }
    assert!(refused > 0, "the service has no limit");
    scene.assert_served();
    drop(crowd);
    scene.assert_unharmed();
    Ok(())
}

/// A million requests, or as many as are possible in twenty seconds.
pub(crate) fn segments_of_a_client_are_bounded() -> Outcome {
    const REQUESTS: u32 = 1_000_000;
    /// As many as fit into the buffers of the sockets.
    const BURST: u32 = 4;
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    let client = Raw::introduced(scene.address())?;
    let mut kept = 0;
    let end = Instant::now() + Duration::from_secs(20);
    for first in (0..REQUESTS).step_by(BURST as usize) {
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
                status => assert_eq!(status, raw::FULL),
            }
        }
        if first % (REQUESTS / 4) == 0 {
            scene.assert_served();
        }
    }
    assert!(0 < kept && kept < REQUESTS, "{kept} were accepted");
    scene.assert_served();
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn announced_forks_are_bounded() -> Outcome {
    natively(WITH_THREADS)?;
    let mut scene = Scene::new()?;
    let memory = memory(100)?;
    let client = Raw::introduced(scene.address())?;
    for number in 0..100 {
        let register = frame(REGISTER, 100, &raw::id(number));
        let status = client.ask(&register, &[memory.as_fd()])?;
        assert_eq!(status, Some(raw::DONE));
    }
    for number in 1000..2000 {
        let status = client.ask(&frame(FORK, 0, &raw::id(number)), &[])?;
        assert_eq!(status, Some(raw::DONE));
    }
    // The forks of honest clients still work.
    scene.honest.execute("fork leave")?;
    scene.assert_served();
    // The service waits for the latest forks, and has given up the first ones for them.
    for (number, expected) in [(1000, raw::UNKNOWN), (1999, raw::DONE)] {
        let child = Raw::connect(scene.address())?;
        let status = child.ask(&frame(HELLO, 0, &raw::id(number)), &[])?;
        assert_eq!(status, Some(expected), "{number}");
    }
    drop(client);
    // This waits until the service has given up the last one.
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn host_without_descriptors_still_hands_out_segments() -> Outcome {
    let mut scene = Scene::new()?;
    let host = scene.host.process();
    let before = getrlimit(Resource::Nofile);
    let tight = |current| Rlimit {
        current: Some(current),
        maximum: before.maximum,
    };
    // The service can accept a few more connections, but not a hundred.
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
    // The service can accept no segment, which its error says, but it still hands out those that it has.
    let error = scene.honest.make(100).expect_err("no descriptor is left");
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
    scene.honest.try_open(&scene.id)?;
    drop(crowd);
    eventually(|| scene.honest.make(100).map(drop));
    scene.honest.drop_newest()?;
    prlimit(Some(host), Resource::Nofile, before)?;
    scene.assert_unharmed();
    Ok(())
}

/// Once descriptors are free again, the service accepts segments again, without a new connection.
pub(crate) fn host_with_descriptors_again_accepts_segments() -> Outcome {
    let mut scene = Scene::new()?;
    let host = scene.host.process();
    let before = getrlimit(Resource::Nofile);
    let tight = Rlimit {
        current: Some(16),
        maximum: before.maximum,
    };
    prlimit(Some(host), Resource::Nofile, tight)?;
    let mut made = 0;
    while scene.honest.make(100).is_ok() {
        made += 1;
        assert!(made < 100, "the limit has no effect");
    }
    for _ in 0..made {
        scene.honest.drop_newest()?;
    }
    eventually(|| scene.honest.make(100).map(drop));
    scene.honest.drop_newest()?;
    prlimit(Some(host), Resource::Nofile, before)?;
    scene.assert_unharmed();
    Ok(())
}
