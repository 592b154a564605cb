//! Clients can send any bytes. A frame is a request with exactly one encoding or it is invalid, the registry
//! agrees with the clients that are connected, and it is empty when all of them are gone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmem_providers::service_core::protocol::{Ask, FRAME, Frame, Reply, Request};
use shmem_providers::service_core::registry::{Client, Closing, IDS, Limits, Process, Registry};

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
    // Each round is a byte, which selects the client and the time that passes, and a frame. A frame that is
    // cut off ends with zeros, as valid ones do.
    let mut now = 0;
    for round in data.chunks(FRAME + 1) {
        let (&turn, rest) = round.split_first().expect("no chunk is empty");
        let mut frame: Frame = [0; FRAME];
        frame[..rest.len()].copy_from_slice(rest);
        let client = Client::from(turn) % CLIENTS;
        now += u64::from(turn >> 5);
        registry.expire(now);
        if let Some(reply) = Reply::decode(&frame) {
            assert_eq!(reply.encode(), frame);
            assert_eq!(Request::decode(&frame), None);
        }
        let Some(request) = Request::decode(&frame) else {
            // The server lets go of who says this.
            registry.disconnect(client);
            assert!(registry.holds_nothing(client));
            registry.connect(client, Process::Unknown);
            continue;
        };
        assert_eq!(request.encode(), frame);
        match request.ask {
            Ask::Hello(None) => {}
            Ask::Hello(Some(token)) => {
                let awaited = registry.awaited();
                let adopted = registry.adopt(client, token);
                assert_eq!(registry.awaited(), awaited - usize::from(adopted));
            }
            Ask::Register { id, size } => {
                if registry
                    .register(client, id, size.get(), turn, Closing::default())
                    .is_ok()
                {
                    assert!(registry.held(client).any(|held| held == id));
                    assert!(registry.open(client, id).is_ok());
                }
            }
            Ask::Open(id) => {
                let opened = registry.open(client, id).is_ok();
                assert_eq!(registry.held(client).any(|held| held == id), opened);
            }
            Ask::Release(id) => {
                registry.release(client, id);
                assert!(registry.held(client).all(|held| held != id));
            }
            Ask::Fork(token) => {
                registry.announce(client, token, now + 3);
                assert!(registry.awaited() <= LIMITS.forks);
            }
        }
        registry.freed();
        for process in (0..2).map(Process::Known).chain([Process::Unknown]) {
            assert!(registry.ids_of(process) <= IDS * LIMITS.segments);
        }
        assert!(registry.len() <= LIMITS.segments && registry.bytes() <= LIMITS.bytes);
        assert_eq!(registry.is_empty(), registry.bytes() == 0);
    }
    for client in 0..CLIENTS {
        registry.disconnect(client);
    }
    registry.expire(u64::MAX);
    assert!(registry.is_empty() && registry.bytes() == 0 && registry.clients() == 0);
});
