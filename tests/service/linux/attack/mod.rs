//! Attacks: by clients that keep to no rules, by crowds, by other users. Whatever they do, honest
//! clients are served meanwhile, by a service that is none the worse afterwards.

pub(crate) mod addresses;
pub(crate) mod attackers;
pub(crate) mod crowds;
pub(crate) mod descriptors;
pub(crate) mod exhaustion;
pub(crate) mod frames;
pub(crate) mod slow;
pub(crate) mod stopped;

use std::path::Path;
use std::time::{Duration, Instant};

use super::{lifetime, peer, raw};
use lifetime::{Place, eventually};
use peer::Answer;
use raw::Raw;
use testkit::peer::Peer;

/// How many descriptors the service may have: as many as most systems allow at first.
pub(crate) const FILES: u32 = 1024;

/// A service, and an honest client that holds a segment.
pub(crate) struct Scene {
    place: Place,
    pub(crate) host: Peer,
    honest: Peer,
    /// Of its segment, which has 100 bytes, the first one a 5.
    pub(crate) id: String,
    /// What the host has open before the attack.
    files: String,
}

impl Scene {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let place = Place::new()?;
        let mut host = Peer::start();
        host.ask(format!("limit {FILES}"))?;
        host.ask(format!("host {}", place.address.display()))?;
        let mut honest = place.peer();
        let id = honest.ask("make 100")?;
        honest.ask("put 0 5")?;
        let files = host.ask("files")?;
        Ok(Self {
            place,
            host,
            honest,
            id,
            files,
        })
    }

    pub(crate) fn address(&self) -> &Path {
        &self.place.address
    }

    /// An honest client that was there before makes segments, and one that comes opens one.
    ///
    /// What they ask for fails if it is not answered within their own deadline.
    #[track_caller]
    pub(crate) fn assert_served(&mut self) {
        let made = self.honest.ask("make 5000").expect("an honest request");
        let mut other = self.place.peer();
        other
            .ask(format!("open {made}"))
            .expect("an honest request");
        self.honest.ask("drop").expect("it is there");
        other
            .ask(format!("open {}", self.id))
            .expect("an honest request");
        assert_eq!(other.ask("get 0"), Ok("5".into()));
    }

    /// A client that makes, opens and drops until it is killed.
    pub(crate) fn churning(&self) -> Peer {
        let mut peer = self.place.peer();
        peer.send(&format!("churn {}", self.address().display()));
        peer
    }

    /// A client that attacks until it is killed.
    pub(crate) fn attacker(&self, how: &str) -> Peer {
        let mut peer = self.place.peer();
        peer.send(&format!("attack {how} {}", self.address().display()));
        peer
    }

    /// Honest clients are served soon: one that was there before, and one that comes.
    #[track_caller]
    pub(crate) fn assert_served_soon(&mut self) {
        const ROUNDS: usize = 7;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let mut other = self.place.peer();
            let start = Instant::now();
            let made = self.honest.ask("make 5000").expect("an honest request");
            other
                .ask(format!("open {made}"))
                .expect("an honest request");
            other.ask("drop").expect("it is there");
            self.honest.ask("drop").expect("it is there");
            other.ask("make 100").expect("an honest request");
            times.push(start.elapsed());
        }
        times.sort();
        // Three clients' requests, each of which is to be served within a second. Other programs may run
        // on this machine as well, so that not every round counts.
        let patience = match std::env::var_os("SHMEM_TEST_EMULATED") {
            Some(_) => 30,
            None => 3,
        };
        let typical = times[ROUNDS / 2];
        assert!(typical < Duration::from_secs(patience), "{times:?}");
    }

    /// Another client.
    pub(crate) fn peer(&self) -> Peer {
        self.place.peer()
    }

    /// What the honest client is told.
    #[track_caller]
    pub(crate) fn ask_honest(&mut self, request: &str) -> Result<String, String> {
        self.honest.ask(request)
    }

    /// The attack is over, and its connections are closed.
    #[track_caller]
    pub(crate) fn assert_unharmed(mut self) {
        self.assert_served();
        eventually(&mut self.host, "files", &self.files);
        drop((self.honest, self.host));
        self.place.assert_nothing_left();
    }
}

/// What a peer does: knocks at a service, and says how it is received.
pub(crate) fn knock(address: &str) -> Answer {
    let client = Raw::connect(Path::new(address))?;
    let hello = raw::frame(raw::HELLO, 0, "");
    Ok(match client.ask(&hello, &[])? {
        Some(verdict) => format!("told {verdict}"),
        None => "let go".into(),
    })
}

/// Numbers that look random, and are the same each time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// An xorshift generator (Marsaglia, 2003).
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
