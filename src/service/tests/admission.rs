//! Who is admitted, and who is evicted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::bool::weighted;
use proptest::prelude::*;

use crate::service::admission::{
    Admission, Capacity, IdleClient, SHARE, eviction_candidates, is_fair,
};
use crate::service::registry::Client;

fn with_connections(connections: usize) -> Capacity {
    Capacity {
        connections,
        segments: 1,
        foreign: 1,
    }
}

/// How much a process takes or gives back: a little, or all that it can.
fn any_amount() -> impl Strategy<Value = u64> {
    prop_oneof![1..10_u64, Just(u64::MAX)]
}

proptest! {
    #[test]
    fn everything_fits_into_the_limit_of_descriptors(limit in 8..2_000_000_u64) {
        let capacity = Capacity::of(Some(limit));
        let Capacity { connections, segments, foreign } = capacity;
        prop_assert!((connections + segments + foreign) as u64 <= limit);
        prop_assert_eq!(connections, segments);
        prop_assert!(connections > 0 && foreign > 0);
        // A higher limit never means less room.
        let more = Capacity::of(Some(limit + 1));
        prop_assert!(more.connections >= connections && more.foreign >= foreign);
    }

    #[test]
    fn a_limit_of_any_size_leaves_room_for_something(limit: u64) {
        let Capacity { connections, segments, foreign } = Capacity::of(Some(limit));
        let least = connections.min(segments).min(foreign);
        prop_assert!(least > 0);
        prop_assert!(connections <= Capacity::of(None).connections);
    }

    #[test]
    fn one_process_leaves_a_fifth(limit in 1..10_000_u64) {
        let mut own = 0;
        while is_fair(own, limit - own, limit) {
            own += 1;
        }
        prop_assert_eq!(limit - own, limit / (SHARE + 1));
    }

    /// Whatever ten processes do, there is room for another one.
    #[test]
    fn ten_processes_leave_room_for_another(
        limit in 96..600_u64,
        events in proptest::collection::vec((0..10_u8, any_amount(), weighted(0.8)), 0..100),
    ) {
        let mut owned = BTreeMap::<u8, u64>::new();
        for (process, amount, takes) in events {
            let own = owned.entry(process).or_default();
            if !takes {
                *own = own.saturating_sub(amount);
                continue;
            }
            for _ in 0..amount {
                let taken: u64 = owned.values().sum();
                let own = owned.entry(process).or_default();
                if !is_fair(*own, limit - taken, limit) {
                    break;
                }
                *own += 1;
            }
            let taken: u64 = owned.values().sum();
            prop_assert!(is_fair(0, limit - taken, limit), "{taken} of {limit} are taken");
        }
    }

    #[test]
    fn a_process_has_at_most_as_many_connections_as_are_left(
        limit in 1..500_usize,
        own in 0..500_usize,
        others in 0..500_usize,
    ) {
        let taken = own + others;
        let admission = with_connections(limit).admit(own, taken);
        match admission {
            Admission::Admit => prop_assert!(own < limit - taken),
            Admission::Evict => prop_assert!(taken >= limit),
            Admission::Refuse => prop_assert!(own > 0 && taken < limit),
        }
        if own == 0 && taken < limit {
            prop_assert_eq!(admission, Admission::Admit);
        }
    }

    /// Candidates that have not introduced themselves come first, then the most silent ones.
    #[test]
    fn the_most_silent_client_is_evicted(
        clients in proptest::collection::vec((any::<bool>(), 0..50_u64), 0..40),
    ) {
        let idle = clients.iter().zip(0..).map(|(&(introduced, last_read), client)| IdleClient {
            introduced,
            last_read,
            client,
        });
        let candidates: Vec<_> = eviction_candidates(idle.clone()).collect();
        prop_assert_eq!(candidates.len(), clients.len().min(8));
        let all: BTreeMap<_, _> = idle.map(|idle| (idle.client, idle)).collect();
        let rank = |client: &Client| (all[client].introduced, all[client].last_read);
        prop_assert!(candidates.is_sorted_by_key(rank));
        let worst = candidates.last().map(rank);
        let rest = all.keys().filter(|&client| !candidates.contains(client));
        prop_assert!(rest.map(rank).all(|rank| Some(rank) >= worst));
    }
}

/// `RLIMIT_NOFILE` of 1024, the usual default, as documented for `ShMemService::start_at`.
#[test]
fn an_eighth_is_kept_free_and_the_rest_is_halved() {
    let capacity = Capacity::of(Some(1024));
    assert_eq!((capacity.connections, capacity.segments), (448, 448));
    // At most 280.
    let capacity = Capacity::of(Some(10_280));
    assert_eq!((capacity.connections, capacity.segments), (5000, 5000));
}
