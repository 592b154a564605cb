//! SIGKILL of whoever hosts the service.

use std::time::{Duration, Instant};

use super::lifetime::{Place, eventually};
use super::peer::host_of;
use testkit::peer::Peer;
use testkit::{Outcome, skip};

/// Until somebody serves.
fn host(place: &Place) -> u32 {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(host) = host_of(&place.address) {
            return host;
        }
        assert!(Instant::now() < end, "nobody serves");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Each client holds a segment that nobody else does. In each round the one that hosts the service is
/// killed, while others are busy; old clients and a new one open everything that still lives, at the
/// first attempt.
pub(crate) fn clients_survive_a_hundred_killed_hosts() -> Outcome {
    const CLIENTS: usize = 4;
    let place = Place::new()?;
    let new_client = || -> Result<(Peer, String), String> {
        let mut peer = place.peer();
        let id = peer.ask("make 1000")?;
        peer.ask("put 999 77")?;
        Ok((peer, id))
    };
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(new_client()?);
    }
    let load = |place: &Place| {
        let mut peer = place.peer();
        peer.send(&format!("churn {}", place.address.display()));
        peer
    };
    let mut busy = [load(&place), load(&place)];
    for round in 0..100 {
        let host = host(&place);
        let position = clients.iter().position(|(peer, _)| peer.pid() == host);
        let dead = if let Some(position) = position {
            let (peer, id) = clients.swap_remove(position);
            peer.kill();
            Some(id)
        } else if let Some(at) = busy.iter().position(|peer| peer.pid() == host) {
            let killed = std::mem::replace(&mut busy[at], load(&place));
            killed.kill();
            None
        } else {
            // The last host has died, and the lock told of it in that moment.
            continue;
        };
        let (mut fresh, own) = new_client()?;
        for (_, id) in &clients {
            fresh
                .ask(format!("open {id}"))
                .map_err(|e| format!("round {round}: {e}"))?;
            assert_eq!(fresh.ask("get 999")?, "77");
            fresh.ask("drop")?;
        }
        for (peer, _) in &mut clients {
            peer.ask(format!("try {own}"))
                .map_err(|e| format!("round {round}: {e}"))?;
        }
        if let Some(dead) = dead {
            clients.push((fresh, own));
            let (peer, _) = &mut clients[0];
            assert!(peer.ask(format!("try {dead}")).is_err(), "round {round}");
        }
    }
    for peer in busy {
        peer.kill();
    }
    // One after the other, the last one clears up.
    for (peer, _) in clients {
        drop(peer);
    }
    place.assert_nothing_left();
    Ok(())
}

/// It makes no request after the host has died, and neither does anybody else for a while.
pub(crate) fn segment_of_an_idle_client_survives_its_host() -> Outcome {
    for _ in 0..10 {
        let place = Place::new()?;
        let host = place.host();
        let mut holder = place.peer();
        let id = holder.ask("make 100")?;
        holder.ask("put 0 5")?;
        host.kill();
        let mut other = place.peer();
        other.ask(format!("open {id}"))?;
        assert_eq!(other.ask("get 0")?, "5");
        drop(holder);
        other.ask(format!("try {id}"))?;
        drop(other);
        place.assert_nothing_left();
    }
    Ok(())
}

pub(crate) fn nothing_is_left_after_all_are_killed() -> Outcome {
    let place = Place::new()?;
    let mut ids = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = place.peer();
        ids.push(peer.ask("make 100")?);
        peers.push(peer);
    }
    for peer in peers {
        peer.kill();
    }
    let mut peer = place.peer();
    for id in ids {
        let gone = format!("knows no holder of segment {id}");
        eventually(&mut peer, &format!("try {id}"), &gone);
    }
    // A new one works, and clears up what the dead have left.
    peer.ask("make 100")?;
    drop(peer);
    place.assert_nothing_left();
    Ok(())
}

/// Where a thread cannot have a table of descriptors of its own, a forked child inherits the sockets of
/// the service. They stay open when the host has died, and nobody answers there.
pub(crate) fn inherited_sockets_of_a_dead_host_block_nobody() -> Outcome {
    let place = Place::new()?;
    let mut host = place.peer();
    if let Err(why) = host.ask("forbid ENOSYS close_range") {
        return skip(format!("no seccomp filter here: {why}"));
    }
    host.ask("make 100")?;
    let mut client = place.peer();
    let id = client.ask("make 100")?;
    let told = host.ask("fork plain")?;
    let (child, _) = told.split_once(' ').ok_or("two words")?;
    host.kill();
    client.ask("make 100")?;
    let mut other = place.peer();
    other.ask(format!("open {id}"))?;
    super::fork::kill(child)?;
    // A stop does not wait for whoever has inherited the pipe by which the thread is told.
    drop((client, other));
    place.assert_nothing_left();
    Ok(())
}
