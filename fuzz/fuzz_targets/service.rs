//! Whatever clients send, a frame is a request with one encoding or is rejected. The registry agrees with the
//! clients that are connected, and is empty when the last one has disconnected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmem_providers::service_core::protocol::{Command, FRAME, Frame, Reply, Request};
use shmem_providers::service_core::registry::{
    Client, Closing, IDS_PER_SEGMENT, Limits, Process, Registry,
};

const CLIENTS: Client = 4;

const LIMITS: Limits = Limits {
    segments: 64,
    bytes: 1 << 47,
    forks: 4,
};

fuzz_target!(|data: &[u8]| {
    let mut registry = Registry::new(LIMITS);
    for client in 0..CLIENTS {
        registry.connect(client, Process::Known(client as u32 / 2));
    }
    // Each round is a byte with the number of the client and the time that has passed, and a frame. A frame
    // that is cut off ends with zeros, as valid ones do.
    let mut now = 0;
    for round in data.chunks(FRAME + 1) {
        let (&turn, rest) = round.split_first().expect("no chunk is empty");
        let mut frame: Frame = [0; FRAME];
        frame[..rest.len()].copy_from_slice(rest);
        let client = Client::from(turn) % CLIENTS;
        now += u64::from(turn >> 5);
        registry.expire_forks(now);
        if let Ok(reply) = Reply::decode(&frame) {
            assert_eq!(reply.encode(), frame);
            assert!(Request::decode(&frame).is_err());
        }
        let Ok(request) = Request::decode(&frame) else {
            // The server disconnects the client.
            registry.disconnect(client);
            assert!(registry.holds_nothing(client));
            registry.connect(client, Process::Unknown);
            continue;
        };
        assert_eq!(request.encode(), frame);
        match request.command {
            Command::Hello(None) => {}
            Command::Hello(Some(token)) => {
                let pending = registry.pending_forks();
                let is_bound = registry.bind_fork(client, token);
                assert_eq!(registry.pending_forks(), pending - usize::from(is_bound));
            }
            Command::Register { id, size } | Command::Create { id, size } => {
                let is_new = matches!(request.command, Command::Create { .. });
                let register = if is_new {
                    Registry::create
                } else {
                    Registry::register
                };
                if register(
                    &mut registry,
                    client,
                    id,
                    size.get(),
                    turn,
                    Closing::default(),
                )
                .is_ok()
                {
                    assert!(registry.held_by(client).any(|held| held == id));
                    assert!(registry.open(client, id).is_ok());
                }
            }
            Command::Open(id) => {
                let opened = registry.open(client, id).is_ok();
                assert_eq!(registry.held_by(client).any(|held| held == id), opened);
            }
            Command::Release(id) => {
                registry.release(client, id);
                assert!(registry.held_by(client).all(|held| held != id));
            }
            Command::Fork(token) => {
                registry.announce_fork(client, token, now + 3);
                assert!(registry.pending_forks() <= LIMITS.forks);
            }
            Command::Lock { id, byte } | Command::Relock { id, byte } => {
                let again = matches!(request.command, Command::Relock { .. });
                let (before, lock) = (
                    registry.is_locked(client, id, byte),
                    registry.lock_of(client),
                );
                if registry.lock(client, id, byte, again).is_ok() {
                    assert_eq!(lock, None);
                    assert_ne!(before, Ok(true));
                    assert_eq!(registry.is_locked(client, id, byte), Ok(true));
                    assert_eq!(registry.lock_of(client), Some(id));
                } else {
                    assert_eq!(registry.is_locked(client, id, byte), before);
                    assert_eq!(registry.lock_of(client), lock);
                }
            }
            Command::Unlock(_) => {
                let lock = registry.lock_of(client);
                assert_eq!(registry.unlock(client), lock.is_some());
                assert_eq!(registry.lock_of(client), None);
            }
            Command::Query { id, byte } => {
                if registry.is_locked(client, id, byte).is_ok() {
                    assert!(registry.holds(client, id));
                }
            }
            Command::Life { id, .. } => {
                if registry.may_lock(client, id) {
                    assert!(registry.holds(client, id));
                }
            }
            Command::Settle(id) => {
                assert_eq!(registry.settle(client, id), registry.holds(client, id));
            }
        }
        for client in 0..CLIENTS {
            let lock = registry.lock_of(client);
            assert!(lock.is_none_or(|id| registry.holds(client, id)));
        }
        registry.take_freed();
        for process in (0..2).map(Process::Known).chain([Process::Unknown]) {
            assert!(registry.ids_of(process) <= IDS_PER_SEGMENT * LIMITS.segments);
        }
        assert!(registry.len() <= LIMITS.segments && registry.bytes() <= LIMITS.bytes);
        assert_eq!(registry.is_empty(), registry.bytes() == 0);
    }
    for client in 0..CLIENTS {
        registry.disconnect(client);
    }
    registry.expire_forks(u64::MAX);
    assert!(registry.is_empty() && registry.bytes() == 0 && registry.client_count() == 0);
});
