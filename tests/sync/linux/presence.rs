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

/// How many slots a table has. As many processes join it at once.
const SLOTS: u32 = 16;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(50);

/// A table, and what checks that each participant has a slot of its own.
#[derive(SharedLayout)]
#[repr(C)]
struct Crowd {
    slots: Slots<{ SLOTS as usize }>,
    /// How many processes are in each slot.
    in_slot: [AtomicU32; SLOTS as usize],
    /// How many have come to the start, joined, and left, in all rounds.
    started: AtomicU32,
    joined: AtomicU32,
    left: AtomicU32,
}

impl Crowd {
    /// Waits until the counter is at least `all`, busily, so that all processes go on at the same time.
    fn meet(counter: &AtomicU32, all: u32) -> Result<(), &'static str> {
        let end = Instant::now() + LONG;
        counter.fetch_add(1, AcqRel);
        for turn in 0.. {
            if counter.load(Acquire) >= all {
                break;
            }
            if turn % 64 == 63 {
                thread::yield_now();
                if Instant::now() > end {
                    return Err("the others have failed");
                }
            }
        }
        Ok(())
    }
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    Ok(match *words {
        ["crowd", id, processes, rounds] => {
            let crowd = Typed::<Crowd>::open(&mut UnixShMemProvider::new()?, id.parse()?)?;
            in_a_crowd(&crowd, processes.parse()?, rounds.parse()?)?;
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
            let shared = UnixShMemProvider::new()?.new_shmem(4096)?.share();
            check(&shared)?;
            shared.id().to_string()
        }
        ["fork-in-a-handler"] => fork_in_a_handler()?.to_string(),
        _ => return Err(format!("unknown command {words:?}").into()),
    })
}

fn in_a_crowd(crowd: &Typed<Crowd>, processes: u32, rounds: u32) -> Result<(), Box<dyn StdError>> {
    let slots = crowd.clone().into_ref().map(|crowd| &crowd.slots);
    for round in 1..=rounds {
        let all = processes * round;
        Crowd::meet(&crowd.started, all)?;
        let presence = Presence::join(&slots)?;
        let in_slot = &crowd.in_slot[presence.slot()];
        if in_slot.fetch_add(1, Relaxed) != 0 {
            return Err("another process has this slot".into());
        }
        Crowd::meet(&crowd.joined, all)?;
        in_slot.fetch_sub(1, Relaxed);
        drop(presence);
        Crowd::meet(&crowd.left, all)?;
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

pub(crate) fn processes_that_join_at_once_get_different_slots() -> Outcome {
    // Two run at the same time on most machines, and all take all slots.
    for (processes, rounds) in [(2, 8000), (SLOTS, 20)] {
        let mut provider = UnixShMemProvider::new()?;
        let crowd = Typed::<Crowd>::create(&mut provider, |_| {}).or_else(if_lacking)?;
        let mut peers: Vec<_> = (0..processes).map(|_| Peer::start()).collect();
        for peer in &mut peers {
            peer.send(&format!(
                "presence crowd {} {processes} {rounds}",
                crowd.id()
            ));
        }
        let answers = peers.iter_mut().map(|peer| peer.answer_to("crowd"));
        let failures: Vec<_> = answers.filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
    Ok(())
}

pub(crate) fn segments_of_a_namespace_do_not_disturb_each_other() -> Outcome {
    let segments = [system_v()?, system_v()?];
    let mut presences = Vec::new();
    for segment in &segments {
        check(segment)?;
        presences.push(Presence::join(&segment.view::<Slots<2>>(0)?)?);
        // Another table in the same segment.
        presences.push(Presence::join(&segment.view::<Slots<64>>(8)?)?);
    }
    assert!(presences.iter().all(|presence| presence.slot() == 0));
    let id = presences.remove(0).id();
    let other = Presence::join(&segments[0].view::<Slots<2>>(0)?)?;
    assert!(!other.is_alive(id)?);
    assert_eq!(presences[1].holder(0)?, Some(presences[1].id()));
    Ok(())
}

pub(crate) fn segments_with_the_same_number_in_other_namespaces_are_others() -> Outcome {
    let segment = system_v()?;
    let slots = segment.view::<Slots<2>>(0)?;
    let presences = [Presence::join(&slots)?, Presence::join(&slots)?];
    let shell = format!(
        "echo {} > /proc/sys/kernel/shm_next_id && exec \"$@\"",
        segment.id()
    );
    let wrapper = ["unshare", "--ipc", "sh", "-c", &shell, "sh"];
    can_start_by(&wrapper)?;
    let id: ShMemId = Peer::start_by(&wrapper).ask_for("presence sysv")?;
    assert_eq!(id, segment.id());
    assert!(presences[0].is_alive(presences[1].id())?);
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
    let without = "mount -t tmpfs -o ro tmpfs /proc";
    // A file that each sandbox has to itself.
    let with_another = "mount -t tmpfs tmpfs /proc && mkdir -p /proc/thread-self/ns && \
                        touch /proc/thread-self/ns/ipc";
    system_v()?;
    for mount in [without, with_another] {
        let shell = format!("{mount} && exec \"$@\"");
        let wrapper = ["unshare", "--mount", "sh", "-c", &shell, "sh"];
        can_start_by(&wrapper)?;
        let mut peer = Peer::start_by(&wrapper);
        let error = peer
            .ask("presence sysv")
            .expect_err("there is no namespace");
        for part in ["/proc/thread-self/ns/ipc", "mount /proc", "use memfd"] {
            assert!(error.contains(part), "{error}");
        }
    }
    Ok(())
}

/// The call that takes offsets of 64 bits.
#[cfg(target_pointer_width = "32")]
const FCNTL: libc::c_long = libc::SYS_fcntl64;
#[cfg(not(target_pointer_width = "32"))]
const FCNTL: libc::c_long = libc::SYS_fcntl;

/// Locks a byte of the IPC namespace for reading, as any process in it can.
fn lock_in_namespace(file: &File, start: i64) {
    /// `struct flock64` of the kernel.
    #[repr(C)]
    struct Lock {
        kind: i16,
        whence: i16,
        start: i64,
        len: i64,
        pid: i32,
    }
    let mut lock = Lock {
        kind: i16::try_from(libc::F_RDLCK).expect("it is small"),
        whence: 0,
        start,
        len: 1,
        pid: 0,
    };
    // SAFETY: the pointer is to a local variable of the type that the call reads.
    let result =
        unsafe { libc::syscall(FCNTL, file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
    assert_eq!(result, 0);
}

pub(crate) fn foreign_locks_end_with_timeouts() -> Outcome {
    let segment = system_v()?;
    let IdKind::SystemV { shmid } = segment.id().kind() else {
        return skip("these segments are not of System V");
    };
    let slots = segment.view::<Slots<2>>(0)?;
    let mutex = segment.view::<Mutex<AtomicU32>>(64)?;
    let owner = Presence::join(&slots)?;
    let dead = owner.id();
    mem::forget(mutex.try_lock(&owner));
    drop(owner);

    // The slot appears taken, and the dead participant alive.
    let file = File::open("/proc/thread-self/ns/ipc")?;
    lock_in_namespace(&file, i64::from(shmid) << 32);
    let presence = Presence::join(&slots)?;
    assert_eq!(presence.slot(), 1);
    assert!(presence.is_alive(dead)?);
    let short = Wait::new().timeout(Duration::from_millis(50));
    let locked = mutex.lock(&presence, short);
    assert!(matches!(locked, Err(LockError::TimedOut)), "{locked:?}");
    drop(file);
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

/// Joins while a timer sends signals, each at another time. Returns the number of forks.
fn fork_in_a_handler() -> Result<u32, Error> {
    const NEVER: libc::timeval = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let slots = MemfdShMemProvider::new()?.new_shmem(4096)?.share();
    let slots = slots.view::<Slots<2>>(0)?;
    let handler: extern "C" fn(libc::c_int) = fork_now;
    // SAFETY: this process has a single thread, and the handler calls what is allowed there.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    for round in 0..500 {
        let mut timer = libc::itimerval {
            it_interval: NEVER,
            it_value: NEVER,
        };
        timer.it_value.tv_usec = 1 + round % 25;
        let before = FORKS.load(Acquire);
        // SAFETY: the pointer is to a local variable, and the other one may be null.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
        while FORKS.load(Acquire) == before {
            drop(Presence::join(&slots)?);
        }
    }
    Ok(FORKS.load(Acquire))
}

pub(crate) fn a_signal_handler_may_fork() -> Outcome {
    let forks: u32 = Peer::start().ask_for("presence fork-in-a-handler")?;
    assert_eq!(forks, 500);
    Ok(())
}
