//! Attacks: by clients that follow no rules, by many clients, by other users. Whatever they do, the service
//! serves honest clients at the same time, and has lost nothing afterwards.

pub(crate) mod addresses;
pub(crate) mod attackers;
pub(crate) mod crowds;
pub(crate) mod descriptors;
pub(crate) mod exhaustion;
pub(crate) mod frames;
pub(crate) mod locks;
pub(crate) mod slow;
pub(crate) mod stopped;

use std::path::Path;
use std::time::{Duration, Instant};

use super::{lifetime, peer, raw};
use lifetime::{TestDir, eventually_has_files};
use peer::{Answer, Commands};
use raw::Raw;
use testkit::peer::Peer;

/// The limit on the descriptors of the host: the default of most systems.
pub(crate) const FILES: u32 = 1024;

/// A service, and an honest client that holds a segment.
pub(crate) struct Scene {
    dir: TestDir,
    pub(crate) host: Peer,
    pub(crate) honest: Peer,
    /// The id of its segment, which has 100 bytes. The first byte is 5.
    pub(crate) id: String,
    /// The number of open descriptors of the host before the attack.
    files: usize,
}

impl Scene {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = TestDir::new()?;
        let mut host = Peer::start();
        host.execute(format!("limit {FILES}"))?;
        host.serve_at(&dir.address)?;
        let mut honest = dir.peer();
        let id = honest.make(100)?;
        honest.put(0, 5)?;
        let files = host.files()?;
        Ok(Self {
            dir,
            host,
            honest,
            id,
            files,
        })
    }

    pub(crate) fn address(&self) -> &Path {
        &self.dir.address
    }

    /// Checks that an honest client can create segments, and that a new client can open them.
    ///
    /// A request fails if it is not answered within the client's own deadline.
    #[track_caller]
    pub(crate) fn assert_served(&mut self) {
        let made = self.honest.make(5000).expect("an honest request");
        let mut other = self.dir.peer();
        other.open(&made).expect("an honest request");
        self.honest.drop_newest().expect("it has a segment");
        other.open(&self.id).expect("an honest request");
        assert_eq!(other.get(0), Ok(5));
    }

    /// Starts a client that creates, opens and drops segments until it is killed.
    pub(crate) fn churning(&self) -> Peer {
        let mut peer = self.dir.peer();
        peer.send(&format!("churn {}", self.address().display()));
        peer
    }

    /// Starts a client that attacks until it is killed.
    pub(crate) fn attacker(&self, how: &str) -> Peer {
        let mut peer = self.dir.peer();
        peer.send(&format!("attack {how} {}", self.address().display()));
        peer
    }

    /// Checks that honest clients are served soon: an old one and a new one.
    #[track_caller]
    pub(crate) fn assert_served_soon(&mut self) {
        const ROUNDS: usize = 7;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let mut other = self.dir.peer();
            let start = Instant::now();
            let made = self.honest.make(5000).expect("an honest request");
            other.open(&made).expect("an honest request");
            other.drop_newest().expect("it has a segment");
            self.honest.drop_newest().expect("it has a segment");
            other.make(100).expect("an honest request");
            times.push(start.elapsed());
        }
        times.sort();
        // Each round has three requests, each of which takes a second at most. The median counts, because
        // other programs may run on this machine.
        let limit = match std::env::var_os("SHMEM_TEST_EMULATED") {
            Some(_) => 30,
            None => 3,
        };
        let median = times[ROUNDS / 2];
        assert!(median < Duration::from_secs(limit), "{times:?}");
    }

    /// Starts another client.
    pub(crate) fn peer(&self) -> Peer {
        self.dir.peer()
    }

    /// Checks, when the attack is over, that its connections are closed and that nothing is left.
    #[track_caller]
    pub(crate) fn assert_unharmed(mut self) {
        self.assert_served();
        eventually_has_files(&mut self.host, self.files);
        drop((self.honest, self.host));
        self.dir.assert_nothing_left();
    }
}

/// What a peer does: introduces itself to a service, and returns the status of the reply, or `closed`.
pub(crate) fn probe(address: &Path) -> Answer {
    let client = Raw::connect(address)?;
    let hello = raw::frame(raw::HELLO, 0, "");
    Ok(match client.ask(&hello, &[])? {
        Some(status) => status.to_string(),
        None => "closed".into(),
    })
}

/// Pseudo-random numbers, the same in each run.
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
