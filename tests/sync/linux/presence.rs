//! Presences in System V segments, and their slots.

use std::error::Error as StdError;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};
use std::{mem, ptr, thread};

use shmem_providers::sync::{LockError, Mutex, Presence, Slots};
use shmem_providers::wake::Wait;
use shmem_providers::{
    Error, IdKind, MemfdShMemProvider, ShMem, ShMemId, ShMemProvider, Shared, SharedLayout,
    StdShMemProvider, Typed, UnixShMem, UnixShMemProvider,
};
use testkit::peer::{AS_OTHER, can_start_by};
use testkit::seccomp::forbid_in;
use testkit::{Outcome, if_lacking, skip};

use super::mutex::fork;
use super::peer::{Answer, Peer};

/// How many processes join a table of as many slots at once.
const CROWD: u32 = 16;
const ROUNDS: u32 = 25;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(50);

/// A table, and what checks that each participant has a slot of its own.
#[derive(SharedLayout)]
#[repr(C)]
struct Crowd {
    slots: Slots<{ CROWD as usize }>,
    /// How many processes are in each slot.
    in_slot: [AtomicU32; CROWD as usize],
    /// How many have come to the start, joined, and left, in all rounds.
    started: AtomicU32,
    joined: AtomicU32,
    left: AtomicU32,
}

impl Crowd {
    /// Waits for all, busily, so that they go on at the same time.
    fn meet(counter: &AtomicU32, round: u32) -> Result<(), &'static str> {
        let all = CROWD * (round + 1);
        let end = Instant::now() + LONG;
        counter.fetch_add(1, AcqRel);
        while counter.load(Acquire) < all {
            if Instant::now() > end {
                return Err("the others have failed");
            }
            thread::yield_now();
        }
        Ok(())
    }
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    Ok(match *words {
        ["crowd", id] => {
            let crowd = Typed::<Crowd>::open(&mut UnixShMemProvider::new()?, id.parse()?)?;
            in_a_crowd(&crowd)?;
            String::new()
        }
        ["hide"] => {
            // SAFETY: this option has no further preconditions.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
            String::new()
        }
        ["default"] => {
            let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
            check(&shared)?;
            shared.id().to_string()
        }
        ["sysv"] => {
            check(&UnixShMemProvider::new()?.new_shmem(4096)?.share())?;
            String::new()
        }
        ["fork-in-a-handler"] => fork_in_a_handler()?.to_string(),
        _ => return Err(format!("unknown command {words:?}").into()),
    })
}

fn in_a_crowd(crowd: &Typed<Crowd>) -> Result<(), Box<dyn StdError>> {
    let slots = crowd.clone().into_ref().map(|crowd| &crowd.slots);
    for round in 0..ROUNDS {
        Crowd::meet(&crowd.started, round)?;
        let presence = Presence::join(&slots)?;
        let in_slot = &crowd.in_slot[presence.slot()];
        if in_slot.fetch_add(1, Relaxed) != 0 {
            return Err("another process has this slot".into());
        }
        Crowd::meet(&crowd.joined, round)?;
        in_slot.fetch_sub(1, Relaxed);
        drop(presence);
        Crowd::meet(&crowd.left, round)?;
    }
    Ok(())
}

/// Joins twice, and checks that one participant notices that the other one leaves.
fn check(shared: &Shared<impl ShMem + Send + Sync + 'static>) -> Result<(), Error> {
    let slots = shared.view::<Slots<2>>(0)?;
    let one = Presence::join(&slots)?;
    let other = Presence::join(&slots)?;
    let full = Presence::join(&slots).expect_err("there are two slots");
    assert_eq!(full, Error::NoSlot { slots: 2 });
    let id = other.id();
    assert!(one.is_alive(id)?);
    drop(other);
    assert!(!one.is_alive(id)?);
    assert_eq!(Presence::join(&slots)?.slot(), 1);
    Ok(())
}

fn system_v() -> Outcome<Shared<UnixShMem>> {
    let segment = UnixShMemProvider::new()?.new_shmem(4096);
    Ok(segment.or_else(if_lacking)?.share())
}

pub(crate) fn many_processes_that_join_at_once_get_different_slots() -> Outcome {
    let mut provider = UnixShMemProvider::new()?;
    let crowd = Typed::<Crowd>::create(&mut provider, |_| {}).or_else(if_lacking)?;
    let mut peers: Vec<_> = (0..CROWD).map(|_| Peer::start()).collect();
    for peer in &mut peers {
        peer.send(&format!("presence crowd {}", crowd.id()));
    }
    let answers = peers.iter_mut().map(|peer| peer.answer_to("crowd"));
    let answers: Vec<_> = answers.filter_map(Result::err).collect();
    assert!(answers.is_empty(), "{answers:?}");
    Ok(())
}

pub(crate) fn segments_of_a_namespace_do_not_disturb_each_other() -> Outcome {
    let segments = [system_v()?, system_v()?];
    let mut presences = Vec::new();
    for segment in &segments {
        check(segment)?;
        presences.push(Presence::join(&segment.view::<Slots<2>>(0)?)?);
        // Another table in the same segment.
        presences.push(Presence::join(&segment.view::<Slots<1024>>(8)?)?);
    }
    assert!(presences.iter().all(|presence| presence.slot() == 0));
    let id = presences.remove(0).id();
    let other = Presence::join(&segments[0].view::<Slots<2>>(0)?)?;
    assert!(!other.is_alive(id)?);
    assert_eq!(presences[1].holder(0)?, Some(presences[1].id()));
    Ok(())
}

pub(crate) fn the_default_provider_will_do_in_a_process_that_is_not_dumpable() -> Outcome {
    let mut peer = if rustix::process::geteuid().is_root() {
        can_start_by(AS_OTHER)?;
        Peer::start_by(AS_OTHER)
    } else {
        Peer::start()
    };
    peer.execute("presence hide")?;
    forbid_in(&mut peer, "ENOSYS", "memfd_create")?;
    let id: ShMemId = peer.ask_for("presence default")?;
    match id.kind() {
        IdKind::SystemV { .. } => Ok(()),
        _ => skip("the default provider creates no System V segments here"),
    }
}

pub(crate) fn without_proc_the_error_tells_what_to_do() -> Outcome {
    let shell = "mount -t tmpfs -o ro tmpfs /proc && exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", shell, "sh"];
    can_start_by(&wrapper)?;
    system_v()?;
    let mut peer = Peer::start_by(&wrapper);
    let error = peer.ask("presence sysv").expect_err("there is no /proc");
    for part in ["/proc/thread-self/ns/ipc", "mount /proc", "use memfd"] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}

/// Locks a byte of the IPC namespace, as any process in it can.
fn lock_in_namespace(file: &File, byte: u64, len: i64) {
    // SAFETY: all bytes zero are a valid value of this type.
    let mut lock: libc::flock64 = unsafe { mem::zeroed() };
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let kind = libc::F_RDLCK as libc::c_short;
    lock.l_type = kind;
    lock.l_start = byte.cast_signed();
    lock.l_len = len;
    // SAFETY: the pointer is to a local variable of the type that the call reads.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    assert_eq!(result, 0);
}

pub(crate) fn foreign_locks_delay_but_do_not_block() -> Outcome {
    let segment = system_v()?;
    let IdKind::SystemV { shmid } = segment.id().kind() else {
        return skip("these segments are not of System V");
    };
    let slots = segment.view::<Slots<2>>(0)?;
    let mutex = segment.view::<Mutex<AtomicU32>>(64)?;
    let start = u64::from(shmid.unsigned_abs()) << 32;
    let owner = Presence::join(&slots)?;
    let dead = owner.id();
    mem::forget(mutex.try_lock(&owner));
    drop(owner);
    let other = Presence::join(&slots)?;
    assert_eq!(other.slot(), 0);
    drop(other);

    // All bytes of the dead one's slot: it appears alive.
    segment.access().as_atomic_u32()?[0].fetch_sub(1, Relaxed);
    let file = File::open("/proc/thread-self/ns/ipc")?;
    lock_in_namespace(&file, start, 4);
    let presence = Presence::join(&slots)?;
    assert_eq!(presence.slot(), 1);
    assert!(presence.is_alive(dead)?);
    let short = Wait::new().timeout(Duration::from_millis(50));
    let timed_out = matches!(mutex.lock(&presence, short), Err(LockError::TimedOut));
    assert!(timed_out);
    drop(presence);

    // The first byte of the other slot as well: it is claimed for ever.
    lock_in_namespace(&file, start + 4, 1);
    let full = Presence::join(&slots).expect_err("both slots are claimed");
    assert_eq!(full, Error::NoSlot { slots: 2 });
    drop(file);
    let presence = Presence::join(&slots)?;
    let locked = mutex.lock(&presence, short);
    assert!(matches!(locked, Err(LockError::Abandoned(_))), "{locked:?}");
    Ok(())
}

static FORKS: AtomicU32 = AtomicU32::new(0);

/// Forks a child that ends at once.
extern "C" fn fork_now(_signal: libc::c_int) {
    let child = fork(|| ());
    // SAFETY: the status may be null.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    FORKS.fetch_add(1, Release);
}

/// Joins while a timer sends signals. Returns the number of forks.
fn fork_in_a_handler() -> Result<u32, Error> {
    const EVERY: libc::timeval = libc::timeval {
        tv_sec: 0,
        tv_usec: 300,
    };
    let slots = MemfdShMemProvider::new()?.new_shmem(4096)?.share();
    let slots = slots.view::<Slots<2>>(0)?;
    let handler: extern "C" fn(libc::c_int) = fork_now;
    // SAFETY: this process has a single thread, and the handler calls what is allowed there.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    let mut timer = libc::itimerval {
        it_interval: EVERY,
        it_value: EVERY,
    };
    // SAFETY: the pointer is to a local variable, and the other one may be null.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    let end = Instant::now() + LONG;
    while FORKS.load(Acquire) < 300 && Instant::now() < end {
        drop(Presence::join(&slots)?);
    }
    timer.it_interval.tv_usec = 0;
    timer.it_value.tv_usec = 0;
    // SAFETY: as above.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    Ok(FORKS.load(Acquire))
}

pub(crate) fn a_signal_handler_may_fork() -> Outcome {
    let forks: u32 = Peer::start().ask_for("presence fork-in-a-handler")?;
    assert!(forks >= 300, "{forks}");
    Ok(())
}
