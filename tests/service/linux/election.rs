//! SIGKILL of the process that hosts the service.

use std::time::{Duration, Instant};

use super::lifetime::{TestDir, eventually_gone};
use super::peer::{Commands, host_of};
use testkit::Outcome;
use testkit::peer::Peer;
use testkit::seccomp::forbid_in;

/// Waits until a process serves, and returns its number.
fn host(dir: &TestDir) -> u32 {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(host) = host_of(&dir.address) {
            return host;
        }
        assert!(Instant::now() < end, "no process serves");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each client is the only holder of a segment. Each round kills the process that hosts the service while
/// others are busy. Old clients and a new one can then open every segment that has a holder, at the first
/// attempt.
pub(crate) fn clients_survive_a_hundred_killed_hosts() -> Outcome {
    const CLIENTS: usize = 4;
    let dir = TestDir::new()?;
    let new_client = || -> Result<(Peer, String), String> {
        let mut peer = dir.peer();
        let id = peer.make(1000)?;
        peer.put(999, 77)?;
        Ok((peer, id))
    };
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(new_client()?);
    }
    let load = |dir: &TestDir| {
        let mut peer = dir.peer();
        peer.send(&format!("churn {}", dir.address.display()));
        peer
    };
    let mut busy = [load(&dir), load(&dir)];
    for round in 0..100 {
        let host = host(&dir);
        let position = clients.iter().position(|(peer, _)| peer.pid() == host);
        let dead = if let Some(position) = position {
            let (peer, id) = clients.swap_remove(position);
            peer.kill();
            Some(id)
        } else if let Some(at) = busy.iter().position(|peer| peer.pid() == host) {
            let killed = std::mem::replace(&mut busy[at], load(&dir));
            killed.kill();
            None
        } else {
            // The lock still named the host that had just been killed.
            continue;
        };
        let (mut fresh, own) = new_client()?;
        for (_, id) in &clients {
            fresh.open(id).map_err(|e| format!("round {round}: {e}"))?;
            assert_eq!(fresh.get(999)?, 77);
            fresh.drop_newest()?;
        }
        for (peer, _) in &mut clients {
            peer.try_open(&own)
                .map_err(|e| format!("round {round}: {e}"))?;
        }
        if let Some(dead) = dead {
            clients.push((fresh, own));
            let (peer, _) = &mut clients[0];
            assert!(peer.try_open(&dead).is_err(), "round {round}");
        }
    }
    for peer in busy {
        peer.kill();
    }
    // They end one after the other, and the last one removes the files.
    for (peer, _) in clients {
        drop(peer);
    }
    dir.assert_nothing_left();
    Ok(())
}

/// Neither its holder nor any other client makes a request for a while after the host was killed.
pub(crate) fn segment_of_an_idle_client_survives_its_host() -> Outcome {
    for _ in 0..10 {
        let dir = TestDir::new()?;
        let host = dir.host();
        let mut holder = dir.peer();
        let id = holder.make(100)?;
        holder.put(0, 5)?;
        host.kill();
        let mut other = dir.peer();
        other.open(&id)?;
        assert_eq!(other.get(0)?, 5);
        drop(holder);
        other.try_open(&id)?;
        drop(other);
        dir.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn nothing_is_left_after_all_are_killed() -> Outcome {
    let dir = TestDir::new()?;
    let mut ids = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = dir.peer();
        ids.push(peer.make(100)?);
        peers.push(peer);
    }
    for peer in peers {
        peer.kill();
    }
    let mut peer = dir.peer();
    for id in ids {
        eventually_gone(&mut peer, &id);
    }
    // A new client works and removes what the others have left.
    peer.make(100)?;
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

/// Where a thread cannot have a descriptor table of its own, a forked child inherits the sockets of the
/// service. They stay open after the host was killed, and no process answers.
pub(crate) fn inherited_sockets_of_a_dead_host_block_nobody() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.peer();
    forbid_in(&mut host, "ENOSYS", "close_range")?;
    host.make(100)?;
    let mut client = dir.peer();
    forbid_in(&mut client, "ENOSYS", "close_range")?;
    let id = client.make(100)?;
    // These children make no request, so that they do not become the host.
    let (first, _) = super::fork::fork(&mut host, "silent")?;
    host.kill();
    client.make(100)?;
    let mut other = dir.peer();
    other.open(&id)?;
    assert_eq!(host_of(&dir.address), Some(client.pid()));
    // Stopping the service does not wait for processes that have inherited its pipe.
    let (second, _) = super::fork::fork(&mut client, "silent")?;
    drop((client, other));
    dir.assert_nothing_left();
    super::fork::kill(first)?;
    super::fork::kill(second)?;
    Ok(())
}
