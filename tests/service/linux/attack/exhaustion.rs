//! Attacks that could exhaust the service's descriptors, threads, time or memory: by one process, and by ten
//! processes of one user.

use std::thread;
use std::time::{Duration, Instant};

use super::super::fork::WITH_THREADS;
use super::Scene;
use super::peer::Commands;
use testkit::Outcome;
use testkit::natively;
use testkit::peer::{Peer, can_start_by};

/// Checks that honest clients are served while `count` processes attack, and afterwards.
fn attacked(how: &str, count: usize, start: impl Fn() -> Peer) -> Outcome {
    let mut scene = Scene::new()?;
    let address = scene.address().display().to_string();
    let attackers: Vec<Peer> = (0..count)
        .map(|_| {
            let mut attacker = start();
            attacker.send(&format!("attack {how} {address}"));
            attacker
        })
        .collect();
    thread::sleep(Duration::from_millis(1500));
    scene.assert_served_soon();
    for attacker in attackers {
        assert_eq!(attacker.answered(), None, "the attack has ended");
        attacker.kill();
    }
    // The attack has effects for a while longer, but not on others.
    scene.assert_served_soon();
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn one_sender_of_slow_descriptors_blocks_nobody() -> Outcome {
    attacked("linger", 1, Peer::start)
}

pub(crate) fn ten_senders_of_slow_descriptors_block_nobody() -> Outcome {
    attacked("linger", 10, Peer::start)
}

pub(crate) fn slow_descriptors_in_the_backlog_block_nobody() -> Outcome {
    attacked("backlog", 10, Peer::start)
}

pub(crate) fn one_constant_connector_blocks_nobody() -> Outcome {
    attacked("connect", 1, Peer::start)
}

pub(crate) fn ten_constant_connectors_block_nobody() -> Outcome {
    attacked("connect", 10, Peer::start)
}

pub(crate) fn one_hoarder_blocks_nobody() -> Outcome {
    attacked("hoard", 1, Peer::start)
}

pub(crate) fn ten_hoarders_block_nobody() -> Outcome {
    attacked("hoard", 10, Peer::start)
}

/// The service does not learn the process numbers of its clients.
pub(crate) fn ten_hoarders_of_another_pid_namespace_block_nobody() -> Outcome {
    natively("which has no namespaces")?;
    let mut wrapper = vec!["unshare"];
    if !rustix::process::geteuid().is_root() {
        wrapper.extend(["--user", "--map-current-user"]);
    }
    wrapper.extend(["--pid", "--fork", "--kill-child"]);
    can_start_by(&wrapper)?;
    attacked("hoard", 10, || Peer::start_by(&wrapper))
}

pub(crate) fn announced_forks_use_little_memory() -> Outcome {
    natively(WITH_THREADS)?;
    let mut scene = Scene::new()?;
    let before: u64 = scene.host.ask_for("memory")?;
    let attackers: Vec<Peer> = (0..10).map(|_| scene.attacker("forks")).collect();
    thread::sleep(Duration::from_millis(1500));
    scene.assert_served_soon();
    let during: u64 = scene.host.ask_for("memory")?;
    for attacker in attackers {
        assert_eq!(attacker.answered(), None, "the attack has ended");
        attacker.kill();
    }
    assert!(
        during < before + (16 << 10),
        "{before} KiB before, {during} KiB during the attack"
    );
    scene.assert_unharmed();
    Ok(())
}

/// Freeing memory takes an eighth of a second for each GiB.
pub(crate) fn memory_is_freed_by_another_thread() -> Outcome {
    let mut scene = Scene::new()?;
    let mut client = scene.peer();
    client.make(5000)?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        client.drop_newest()?;
        if scene.host.ask("threads")?.contains("shmem-reaper") {
            break;
        }
        if Instant::now() > end {
            return Err("the service's loop closes memory itself".into());
        }
        client.make(5000)?;
    }
    drop(client);
    scene.assert_unharmed();
    Ok(())
}
