//! Participants in served segments, and what becomes of them when the process that hosts the service dies. With
//! Apple's rules the service keeps their locks, otherwise the kernel does.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{mem, thread};

use rustix::process::{Pid, Signal, kill_process};
use shmem_providers::sync::{LockError, Mutex, MutexGuard, Presence, Slots};
use shmem_providers::wake::Wait;
use shmem_providers::{
    Error, ShMem, ShMemId, ShMemProvider, ShMemService, SharedLayout,
    StdServedShMemProvider as Provider, Typed,
};
use tempfile::TempDir;

use super::mutex::fork;
use super::peer::{Answer, Peer};
use testkit::Outcome;

/// `true` if the service keeps the locks.
const IS_SERVED: bool = cfg!(any(shmem_apple_rules, shmem_freebsd_rules));

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(40);

#[derive(SharedLayout)]
#[repr(C)]
struct Layout {
    slots: Slots<8>,
    /// Two numbers that are equal while nobody has the lock.
    pair: Mutex<[AtomicU64; 2]>,
}

type Guard = MutexGuard<'static, [AtomicU64; 2]>;

/// A participant, which lives as long as its process.
#[derive(Clone, Copy)]
struct Participant {
    layout: &'static Typed<Layout>,
    presence: &'static Presence,
}

thread_local! {
    static JOINED: Cell<Option<Participant>> = const { Cell::new(None) };
}

fn join(layout: &Typed<Layout>) -> Result<Presence, Error> {
    Presence::join(&layout.clone().into_ref().map(|layout| &layout.slots))
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let participant = || JOINED.get().ok_or("it has not joined");
    Ok(match *words {
        ["host", path] => {
            mem::forget(ShMemService::start_at(path)?);
            String::new()
        }
        ["create", path] => {
            let layout = Typed::<Layout>::create(&mut Provider::at(path), |_| {})?;
            let layout = Box::leak(Box::new(layout));
            layout.id().to_string()
        }
        ["join", path, id] => {
            let layout = Typed::<Layout>::open(&mut Provider::at(path), ShMemId::from_string(id))?;
            let participant = Participant {
                presence: Box::leak(Box::new(join(&layout)?)),
                layout: Box::leak(Box::new(layout)),
            };
            JOINED.set(Some(participant));
            participant.presence.id().to_string()
        }
        ["alive", id] => participant()?.presence.is_alive(id.parse()?)?.to_string(),
        ["hold"] => {
            mem::forget(participant()?.lock()?);
            String::new()
        }
        ["lock"] => match participant()?.lock() {
            Ok(_) => "locked".into(),
            Err(LockError::Abandoned(_)) => "abandoned".into(),
            Err(LockError::TimedOut) => "timed out".into(),
            Err(LockError::Failed(error)) => return Err(error.into()),
        },
        ["fork"] => fork(|| thread::sleep(3 * LONG)).to_string(),
        ["value"] => participant()?
            .layout
            .pair
            .try_lock(participant()?.presence)
            .or_else(LockError::recover)?[0]
            .load(Relaxed)
            .to_string(),
        ["count"] => participant()?.count()?,
        _ => return Err(format!("unknown command {words:?}").into()),
    })
}

impl Participant {
    fn lock(self) -> Result<Guard, LockError<Guard>> {
        let short = Wait::new().timeout(Duration::from_millis(100));
        self.layout.pair.lock(self.presence, short)
    }

    /// Increments both numbers until the process is killed, and repairs them after a death.
    fn count(self) -> Answer {
        loop {
            let guard = match self.lock() {
                Ok(guard) => guard,
                Err(LockError::Abandoned(guard)) => {
                    guard[1].store(guard[0].load(Relaxed), Relaxed);
                    guard
                }
                // For a moment, the next host does not know who has returned.
                Err(LockError::TimedOut | LockError::Failed(Error::Service { .. })) => continue,
                Err(LockError::Failed(error)) => return Err(error.into()),
            };
            let [first, second] = &*guard;
            let value = first.load(Relaxed);
            first.store(value + 1, Relaxed);
            thread::yield_now();
            if second.load(Relaxed) != value {
                return Err("another process was here".into());
            }
            second.store(value + 1, Relaxed);
        }
    }
}

/// A service in a process of its own, and a segment that another process holds, which takes no part.
struct Scene {
    directory: TempDir,
    host: Option<Peer>,
    _holder: Peer,
    id: String,
}

impl Scene {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let address = directory.path().join("service");
        let mut host = Peer::start();
        host.execute(format!("served host {}", address.display()))?;
        let mut holder = Peer::start();
        let id = holder.ask(format!("served create {}", address.display()))?;
        Ok(Self {
            directory,
            host: Some(host),
            _holder: holder,
            id,
        })
    }

    fn join_command(&self) -> String {
        let address = self.directory.path().join("service");
        format!("served join {} {}", address.display(), self.id)
    }

    /// Starts a process that joins.
    fn joined(&self) -> Result<(Peer, u32), String> {
        let mut peer = Peer::start();
        let id = peer.ask_for(self.join_command())?;
        Ok((peer, id))
    }

    fn kill_host(&mut self) {
        self.host.take().map(Peer::kill);
    }
}

/// Asks until the answer is known.
fn ask(peer: &mut Peer, command: &str) -> String {
    let end = Instant::now() + LONG;
    loop {
        match peer.ask(command) {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < end, "{command}: {error}"),
        }
    }
}

pub(crate) fn locks_survive_their_host() -> Outcome {
    let mut scene = Scene::new()?;
    let ((mut owner, alive), (mut other, _)) = (scene.joined()?, scene.joined()?);
    owner.execute("served hold")?;
    scene.kill_host();
    assert_eq!(ask(&mut other, &format!("served alive {alive}")), "true");
    assert_eq!(ask(&mut other, "served lock"), "timed out");
    let (mut third, _) = scene.joined()?;
    assert_eq!(third.ask(format!("served alive {alive}"))?, "true");
    owner.kill();
    assert_eq!(third.ask("served lock")?, "abandoned");
    assert_eq!(other.ask("served lock")?, "locked");
    assert_eq!(other.ask(format!("served alive {alive}"))?, "false");
    // The slot is free, and the next participant is another one.
    let (_fourth, next) = scene.joined()?;
    assert_eq!(next % 1024, alive % 1024);
    assert_ne!(next, alive);
    Ok(())
}

/// Its creator knows that nobody has a lock.
pub(crate) fn the_first_can_join_after_the_host_has_died() -> Outcome {
    let mut scene = Scene::new()?;
    scene.kill_host();
    let mut first = Peer::start();
    ask(&mut first, &scene.join_command());
    assert_eq!(first.ask("served lock")?, "locked");
    Ok(())
}

pub(crate) fn a_host_that_has_the_lock_is_noticed_when_it_dies() -> Outcome {
    let mut scene = Scene::new()?;
    let join = scene.join_command();
    let host = scene.host.as_mut().ok_or("no host")?;
    let dead = host.ask(&join)?;
    host.execute("served hold")?;
    let (mut other, _) = scene.joined()?;
    assert_eq!(other.ask("served lock")?, "timed out");
    scene.kill_host();
    assert_eq!(ask(&mut other, "served lock"), "abandoned");
    assert_eq!(ask(&mut other, &format!("served alive {dead}")), "false");
    Ok(())
}

/// A participant that does not return to the next host could be alive, until it is dead.
pub(crate) fn a_stopped_participant_is_never_taken_for_dead() -> Outcome {
    stopped(false)
}

pub(crate) fn a_participant_that_dies_while_it_is_stopped_is_dead() -> Outcome {
    stopped(true)
}

fn stopped(dies: bool) -> Outcome {
    let mut scene = Scene::new()?;
    let ((mut owner, alive), (mut other, _)) = (scene.joined()?, scene.joined()?);
    owner.execute("served hold")?;
    kill_process(owner.process(), Signal::STOP)?;
    scene.kill_host();
    let command = format!("served alive {alive}");
    let is_known = |answer: Result<String, String>| match answer {
        Ok(answer) => assert_eq!(answer, "true"),
        Err(error) => assert!(IS_SERVED && error.contains("all locks"), "{error}"),
    };
    is_known(other.ask(&command));
    is_known(other.ask(&command));
    match (other.ask("served lock"), scene.joined()) {
        (Ok(answer), Ok((_, next))) if !IS_SERVED => {
            assert_eq!(answer, "timed out");
            assert_ne!(next, alive);
        }
        // It could get the slot of the one that is stopped.
        (Err(_), Err(error)) if IS_SERVED => assert!(error.contains("all locks"), "{error}"),
        _ => return Err("the lock is known".into()),
    }
    if dies {
        owner.kill();
        assert_eq!(ask(&mut other, "served lock"), "abandoned");
    } else {
        kill_process(owner.process(), Signal::CONT)?;
        assert_eq!(ask(&mut other, &command), "true");
        assert_eq!(ask(&mut other, "served lock"), "timed out");
    }
    ask(&mut Peer::start(), &scene.join_command());
    Ok(())
}

/// A child of a peer, which sleeps until it is killed.
struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        let killed = kill_process(self.0, Signal::KILL);
        assert!(killed.is_ok() || thread::panicking(), "it has ended");
    }
}

/// Its host may be one of its participants, too, whose children have the sockets of the service.
pub(crate) fn a_child_does_not_keep_its_parent_present() -> Outcome {
    for is_host in [false, true] {
        let mut scene = Scene::new()?;
        let (mut other, _) = scene.joined()?;
        let mut owner = if is_host {
            scene.host.take().ok_or("no host")?
        } else {
            Peer::start()
        };
        let dead = owner.ask(scene.join_command())?;
        owner.execute("served hold")?;
        let child = owner.ask_for::<i32>("served fork")?;
        owner.kill();
        let child = Child(Pid::from_raw(child).ok_or("no child")?);
        assert_eq!(ask(&mut other, "served lock"), "abandoned", "{is_host}");
        let alive = ask(&mut other, &format!("served alive {dead}"));
        assert_eq!(alive, "false", "{is_host}");
        drop(child);
    }
    Ok(())
}

/// Participants that count are killed in turn, each of which may be the host.
pub(crate) fn hosts_killed_at_any_time_harm_nobody() -> Outcome {
    const KILLS: u64 = 30;
    let mut scene = Scene::new()?;
    let counting = |scene: &Scene| -> Result<Peer, String> {
        let mut peer = Peer::start();
        ask(&mut peer, &scene.join_command());
        peer.send("served count");
        Ok(peer)
    };
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(counting(&scene)?);
    }
    scene.kill_host();
    for round in 0..KILLS {
        let end = Instant::now() + Duration::from_micros(round * 7919 % 20_000);
        while Instant::now() < end {}
        peers.remove(0).kill();
        peers.push(counting(&scene)?);
        for peer in &peers {
            assert_eq!(peer.answered(), None, "round {round}");
        }
    }
    for peer in peers {
        peer.kill();
    }
    // Not all of them have waited all the time.
    let mut last = Peer::start();
    ask(&mut last, &scene.join_command());
    assert!(ask(&mut last, "served value").parse::<u64>()? > KILLS);
    Ok(())
}

/// The memory has another id for those that open it by its descriptor.
pub(crate) fn a_segment_with_two_ids_has_no_locks_of_its_second_one() -> Outcome {
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let mut provider = Provider::at(Path::new(&address));
    let segment = provider.new_shmem(4096)?;
    let fd = segment.try_as_fd()?.try_clone_to_owned()?;
    let first = segment.share();
    let slots = first.view::<Slots<4>>(0)?;
    let present = Presence::join(&slots)?;
    let second = provider.shmem_from_fd(fd)?.share();
    let joined = Presence::join(&second.view::<Slots<4>>(0)?);
    match joined {
        Ok(other) if !IS_SERVED => assert!(other.is_alive(present.id())?),
        Err(Error::Service { .. }) if IS_SERVED => {}
        joined => return Err(format!("{joined:?}").into()),
    }
    Ok(())
}

pub(crate) fn segments_without_a_service_name_the_way_that_works() -> Outcome {
    let mut provider = shmem_providers::MmapShMemProvider::new()?;
    let shared = provider.new_shmem(4096)?.share();
    let joined = Presence::join(&shared.view::<Slots<4>>(0)?);
    match joined {
        Ok(_) if !IS_SERVED => Ok(()),
        Err(error @ Error::Unsupported { .. }) if IS_SERVED => {
            assert!(error.to_string().contains("StdServedShMemProvider"));
            Ok(())
        }
        joined => Err(format!("{joined:?}").into()),
    }
}
