//! Doorbells: who can ring, who cannot, and what is lost. Nothing is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, FdFlags, fcntl_setfd, read, write};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use shmem_providers::sync::{Doorbell, DoorbellId, DoorbellSlot, Ringer};
use shmem_providers::{
    ErrorKind, ShMem, ShMemProvider, Shared, SharedRef, StdShMem, StdShMemProvider,
};

use super::peer::Answer;
use testkit::peer::{AS_OTHER, Peer, can_start_by};
use testkit::{Outcome, natively, skip};

/// Longer than any test takes, in seconds: a wait that ends by this timeout has missed a ring.
const LONG: i64 = 50;

/// Waits for the end of a peer, and leaves it to its `Peer`.
const ENDED: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOWAIT);

/// Returns `true` if the doorbell is readable, after waiting at most this many seconds.
fn rings_within(doorbell: &Doorbell, seconds: i64) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(poll(&mut [PollFd::new(doorbell, PollFlags::IN)], Some(&timeout))? == 1)
}

/// A segment with two words and a slot for each: the processes change one each, and listen to the other.
struct Game {
    shared: Shared<StdShMem>,
    words: [SharedRef<AtomicU32>; 2],
    slots: [SharedRef<DoorbellSlot>; 2],
}

impl Game {
    fn new() -> Result<Self, shmem_providers::Error> {
        Self::over(StdShMemProvider::new()?.new_shmem(4096)?.share())
    }

    fn over(shared: Shared<StdShMem>) -> Result<Self, shmem_providers::Error> {
        Ok(Self {
            words: [shared.view(0)?, shared.view(64)?],
            slots: [shared.view(128)?, shared.view(256)?],
            shared,
        })
    }

    fn attach(id: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self::over(
            StdShMemProvider::new()?.shmem_from_id(id.parse()?)?.share(),
        )?)
    }

    /// Plays `rounds` rounds as the first or the second player. Returns how often it has waited for the descriptor.
    fn play(&self, first: bool, rounds: u32) -> Result<u32, Box<dyn std::error::Error>> {
        let (own, other) = if first { (0, 1) } else { (1, 0) };
        let doorbell = Doorbell::new()?;
        let (mut ringer, mut waits) = (None, 0);
        for round in 1..=rounds {
            if first {
                self.words[own].store(round, Release);
                self.slots[own].ring(&mut ringer)?;
            }
            while self.words[other].load(Acquire) != round {
                doorbell.arm(&self.slots[other]);
                if self.words[other].load(Acquire) == round {
                    break;
                }
                waits += 1;
                if !rings_within(&doorbell, LONG)? {
                    return Err(format!("a ring was lost in round {round}").into());
                }
                doorbell.clear()?;
            }
            if !first {
                self.words[own].store(round, Release);
                self.slots[own].ring(&mut ringer)?;
            }
        }
        Ok(waits)
    }
}

pub(crate) fn another_process_rings_by_id() -> Outcome {
    let doorbell = Doorbell::new()?;
    assert!(!rings_within(&doorbell, 0)?, "rung at the start");
    let mut peer = Peer::start();
    assert_eq!(peer.ask(format!("bell ring {}", doorbell.id()?))?, "true");
    assert!(rings_within(&doorbell, LONG)?);
    // It stays rung until it is cleared, and any number of rings is cleared at once.
    assert_eq!(peer.ask("bell again")?, "true");
    assert!(doorbell.clear()?);
    assert!(!rings_within(&doorbell, 0)?);
    assert!(doorbell.clear()?);
    // The peer has opened the pipe once. It finds out if the doorbell is dropped.
    drop(doorbell);
    assert_eq!(peer.ask("bell again")?, "false");
    Ok(())
}

/// The peer may not make any system call other than `read` and `write` while it rings.
pub(crate) fn an_unarmed_slot_makes_no_system_call() -> Outcome {
    natively("which filters no system calls")?;
    if cfg!(target_env = "musl") {
        return skip("musl's allocator makes a system call when the peer answers");
    }
    let game = Game::new()?;
    let doorbell = Doorbell::new()?;
    let mut peer = Peer::start();
    doorbell.arm(&game.slots[0]);
    peer.execute(format!("bell strict {}", game.shared.id()))?;
    // The first ring found it armed, the other ones did not.
    assert!(rings_within(&doorbell, 0)?);
    assert!(doorbell.clear()?);
    // The filter works: a ring that finds it armed is the end of the peer.
    doorbell.arm(&game.slots[0]);
    peer.send("bell strict-again");
    let ended = waitid(WaitId::Pid(peer.process()), ENDED)?.ok_or("no child")?;
    assert_eq!(ended.terminating_signal(), Some(libc::SIGKILL));
    Ok(())
}

pub(crate) fn no_ring_is_lost_between_processes() -> Outcome {
    /// Each of them is two rings.
    const ROUNDS: u32 = 50_000;
    let game = Game::new()?;
    let mut peer = Peer::start();
    let play = format!("bell play {} {ROUNDS}", game.shared.id());
    peer.send(&play);
    let waits = game.play(true, ROUNDS)?;
    let waits_of_peer: u32 = peer.answer_to(&play)?.parse()?;
    assert!(waits + waits_of_peer > ROUNDS / 100, "nobody has waited");
    Ok(())
}

pub(crate) fn a_killed_owner_is_noticed_without_a_signal() -> Outcome {
    let game = Game::new()?;
    let (mut owner, mut ringing) = (Peer::start(), Peer::start());
    ringing.execute("bell sigpipe-kills")?;
    let id = owner.ask(format!("bell arm {}", game.shared.id()))?;
    assert_eq!(ringing.ask(format!("bell ring {id}"))?, "true");
    let slot = format!("bell slot {}", game.shared.id());
    assert_eq!(ringing.ask(&slot)?, "true");
    owner.execute(format!("bell arm {}", game.shared.id()))?;
    owner.kill();
    assert_eq!(ringing.ask("bell again")?, "false");
    // Once by the descriptor that is open, once by the id.
    assert_eq!(ringing.ask(&slot)?, "false");
    Doorbell::new()?.arm(&game.slots[0]);
    assert_eq!(ringing.ask(&slot)?, "false");
    let Err(error) = ringing.ask(format!("bell ring {id}")) else {
        panic!("opened after its end");
    };
    assert!(error.contains("it has ended or has dropped it"), "{error}");
    Ok(())
}

pub(crate) fn signals_of_the_program_are_left_alone() -> Outcome {
    let mut peer = Peer::start();
    peer.execute("bell signals")?;
    Ok(())
}

pub(crate) fn a_forked_child_keeps_the_pipe() -> Outcome {
    natively("where a child can outlive its parent otherwise")?;
    let mut owner = Peer::start();
    let mut ringing = Peer::start();

    let id = owner.ask("bell own-and-fork")?;
    let (child, id) = id.split_once(' ').ok_or("no child")?;
    assert_eq!(ringing.ask(format!("bell ring {id}"))?, "true");
    owner.kill();
    assert_eq!(ringing.ask("bell again")?, "true");
    assert!(ringing.ask(format!("bell ring {id}")).is_err());
    let child = Pid::from_raw(child.parse()?).ok_or("no child")?;
    kill_process(child, Signal::KILL)?;
    let end = Instant::now() + Duration::from_secs(LONG.unsigned_abs());
    while ringing.ask("bell again")? == "true" {
        assert!(Instant::now() < end, "the child has not ended");
        std::thread::yield_now();
    }
    Ok(())
}

pub(crate) fn recycled_numbers_are_not_found() -> Outcome {
    for what in ["pipe", "doorbell", "file", "nothing"] {
        let mut owner = Peer::start();
        let id: DoorbellId = owner.ask("bell own")?.parse()?;
        assert!(Ringer::open(id)?.ring()?);
        owner.execute(format!("bell replace {what}"))?;
        let error = Ringer::open(id).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error}");
        assert!(error.is_not_found());
        // A slot that names it is no error.
        let game = Game::new()?;
        let words = game.shared.view::<[AtomicU32; 6]>(128)?;
        for (word, part) in words[1..].iter().zip(id.to_words()) {
            word.store(part, Relaxed);
        }
        words[0].store(2, Relaxed);
        assert_eq!(game.slots[0].doorbell(), Some(id));
        assert!(!game.slots[0].ring(&mut None)?, "{what}");
        owner.execute("bell nothing-written")?;
    }
    Ok(())
}

/// Returns the id that a descriptor of this process would have if it were a doorbell.
fn forged(fd: impl AsFd) -> DoorbellId {
    let inode = fstat(&fd).expect("it is open").st_ino;
    let number = fd.as_fd().as_raw_fd();
    format!("bell-{}.{number}.{inode}", process::id())
        .parse()
        .expect("it is an id")
}

pub(crate) fn only_doorbells_are_written_to() -> Outcome {
    // A hostile process names pipes of others, such as standard input.
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (socket, _other) = UnixStream::pair()?;
    for fd in [read_end.as_fd(), write_end.as_fd(), socket.as_fd()] {
        let error = Ringer::open(forged(fd)).expect_err("opened");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!(
        read(&read_end, &mut [0; 8]),
        Err(Errno::AGAIN),
        "written to"
    );
    // The forged ids are as real ones are.
    let doorbell = Doorbell::new()?;
    assert_eq!(forged(&doorbell), doorbell.id()?);
    Ok(())
}

pub(crate) fn another_users_doorbell_is_refused() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root, to start a process of another user");
    }
    can_start_by(AS_OTHER)?;
    let mut other = Peer::start_by(AS_OTHER);
    let id: DoorbellId = other.ask("bell own")?.parse()?;
    let error = Ringer::open(id).expect_err("opened");
    assert_eq!(error.kind(), ErrorKind::OtherUser, "{error}");
    other.execute("bell nothing-written")?;
    let doorbell = Doorbell::new()?;
    let Err(error) = other.ask(format!("bell ring {}", doorbell.id()?)) else {
        panic!("another user has rung");
    };
    assert!(error.contains("belongs to another user"), "{error}");
    assert!(!rings_within(&doorbell, 0)?);
    Ok(())
}

pub(crate) fn fifos_with_a_path_are_not_opened() -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("pipe:[1]");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o1600))?;
    let fifo = File::options().read(true).write(true).open(&path)?;
    fcntl_setfl(&fifo, OFlags::NONBLOCK)?;
    let error = Ringer::open(forged(&fifo)).expect_err("opened");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(read(&fifo, &mut [0; 8]), Err(Errno::AGAIN), "written to");
    Ok(())
}

pub(crate) fn a_full_pipe_blocks_nobody() -> Outcome {
    let doorbell = Doorbell::new()?;
    let hostile = doorbell.ringer_fd().try_clone_to_owned()?;
    // As much as any user may have.
    let size = fcntl_setpipe_size(&hostile, 1 << 20)?;
    let filled = fill(&hostile)?;
    assert!(filled >= size);
    let mut peer = Peer::start();
    assert_eq!(peer.ask(format!("bell ring {}", doorbell.id()?))?, "true");
    // Nor does the owner read without end.
    assert!(!doorbell.clear()?);
    assert!(rings_within(&doorbell, 0)?, "not level-triggered");
    let mut clears = 2;
    while !doorbell.clear()? {
        clears += 1;
    }
    assert!(
        (2..=17).contains(&clears),
        "{clears} clears for {filled} bytes"
    );
    assert!(!rings_within(&doorbell, 0)?);
    Ok(())
}

/// Writes to a pipe until not even a byte has room. Returns the number of bytes.
fn fill(pipe: impl AsFd) -> io::Result<usize> {
    let mut filled = 0;
    for len in [4096, 1] {
        loop {
            match write(&pipe, &[7; 4096][..len]) {
                Ok(written) => filled += written,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(filled)
}

pub(crate) fn damaged_slots_harm_nobody() -> Outcome {
    let game = Game::new()?;
    let words = game.shared.view::<[AtomicU32; 6]>(128)?;
    let (stdin, stdin_writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let doorbell = Doorbell::new()?;
    let pids = prop_oneof![Just(process::id()), Just(1), 1..40_000_u32, any::<u32>()];
    let inodes = prop_oneof![
        Just(fstat(&stdin)?.st_ino),
        any::<u64>(),
        Just(fstat(&doorbell)?.st_ino)
    ];
    // Valid ids of whatever, and words without sense.
    let valid = (pids, 0..64_u32, inodes).prop_filter_map("an id", |(pid, number, inode)| {
        let id: DoorbellId = format!("bell-{pid}.{number}.{inode}").parse().ok()?;
        Some(id.to_words())
    });
    let ids = prop_oneof![valid, any::<[u32; 5]>()];
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config).run(&(ids, any::<u32>()), |(id, armed)| {
        for (word, part) in words[1..].iter().zip(id) {
            word.store(part, Relaxed);
        }
        words[0].store(armed, Relaxed);
        let mut ringer = None;
        // Any result, but no panic, no block, and no byte in a wrong pipe.
        let rung = game.slots[0].ring(&mut ringer);
        if rung == Ok(true) {
            // Also by the number of its other end.
            prop_assert!(rings_within(&doorbell, 0).is_ok_and(|rings| rings));
        } else {
            prop_assert!(ringer.is_none());
        }
        Ok(())
    })?;
    assert_eq!(read(&stdin, &mut [0; 8]), Err(Errno::AGAIN), "written to");
    drop(stdin_writer);
    // Arming repairs the slot.
    doorbell.clear()?;
    doorbell.arm(&game.slots[0]);
    assert!(game.slots[0].ring(&mut None)?);
    assert!(rings_within(&doorbell, 0)?);
    Ok(())
}

pub(crate) fn a_passed_descriptor_rings() -> Outcome {
    let doorbell = Doorbell::new()?;
    let passed = doorbell.ringer_fd().try_clone_to_owned()?;
    fcntl_setfd(&passed, FdFlags::empty())?;
    let mut peer = Peer::start();
    let number = passed.as_raw_fd();
    drop(passed);
    assert_eq!(peer.ask(format!("bell adopt {number}"))?, "true");
    assert!(rings_within(&doorbell, 0)?);
    // The owner is hostile: its pipe is full and blocks from now on.
    fill(doorbell.ringer_fd())?;
    let flags = fcntl_getfl(doorbell.ringer_fd())?;
    fcntl_setfl(doorbell.ringer_fd(), flags - OFlags::NONBLOCK)?;
    assert_eq!(peer.ask("bell again")?, "true");
    // In a slot, it is used whatever the id there is.
    let game = Game::new()?;
    game.shared.view::<AtomicU32>(128)?.store(1, Relaxed); // armed
    doorbell.clear()?;
    assert_eq!(peer.ask(format!("bell slot {}", game.shared.id()))?, "true");
    assert!(rings_within(&doorbell, 0)?);
    // Without it, there is nothing to ring, and the error says what to do.
    game.shared.view::<AtomicU32>(128)?.store(1, Relaxed); // armed
    let error = game.slots[0].ring(&mut None).expect_err("no id");
    assert!(error.to_string().contains("Ringer::from_fd"), "{error}");
    assert_eq!(
        game.shared.view::<AtomicU32>(128)?.load(Relaxed),
        1,
        "disarmed"
    );
    // The end of the owner is noticed here, too.
    drop(doorbell);
    assert_eq!(peer.ask("bell again")?, "false");
    Ok(())
}

pub(crate) fn what_is_no_write_end_is_refused() -> Outcome {
    let doorbell = Doorbell::new()?;
    let file = tempfile::tempfile()?;
    let (socket, _other) = UnixStream::pair()?;
    let path_only = rustix::fs::open(
        format!("/proc/self/fd/{}", doorbell.as_raw_fd()),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let read_end = doorbell.as_fd().try_clone_to_owned()?;
    for fd in [read_end, file.into(), socket.into(), path_only] {
        let error = Ringer::from_fd(fd).expect_err("taken over");
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    }
    Ok(())
}

pub(crate) fn the_newest_doorbell_of_a_slot_is_rung() -> Outcome {
    let game = Game::new()?;
    let mut ringer = None;
    let doorbells = [Doorbell::new()?, Doorbell::new()?];
    for doorbell in [&doorbells[0], &doorbells[1], &doorbells[0]] {
        doorbell.arm(&game.slots[0]);
        assert!(game.slots[0].ring(&mut ringer)?);
        assert!(rings_within(doorbell, 0)?);
        doorbell.clear()?;
    }
    for doorbell in &doorbells {
        assert!(!rings_within(doorbell, 0)?);
    }
    Ok(())
}

/// What a peer has.
#[derive(Default)]
pub(crate) struct State {
    ringer: Option<Ringer>,
    doorbell: Option<Doorbell>,
    /// Ends of pipes that nobody writes to.
    quiet: Vec<OwnedFd>,
    game: Option<Game>,
}

impl State {
    pub(crate) fn execute(&mut self, words: &[&str]) -> Answer {
        Ok(match *words {
            ["ring", id] => {
                let ringer = Ringer::open(id.parse()?)?;
                self.ringer.insert(ringer).ring()?.to_string()
            }
            ["again"] => self.ringer.as_ref().ok_or("none")?.ring()?.to_string(),
            ["adopt", number] => {
                let ringer = Ringer::from_fd(owned(number.parse()?))?;
                self.ringer.insert(ringer).ring()?.to_string()
            }
            ["slot", segment] => {
                let game = Game::attach(segment)?;
                let mut ringer = self.ringer.take();
                let rung = game.slots[0].ring(&mut ringer)?;
                self.ringer = ringer;
                rung.to_string()
            }
            ["own"] => {
                let doorbell = self.doorbell.insert(Doorbell::new()?);
                doorbell.id()?.to_string()
            }
            ["own-and-fork"] => own_and_fork()?,
            ["arm", segment] => {
                if self.doorbell.is_none() {
                    self.doorbell = Some(Doorbell::new()?);
                }
                let doorbell = self.doorbell.as_ref().ok_or("none")?;
                doorbell.arm(&Game::attach(segment)?.slots[0]);
                doorbell.id()?.to_string()
            }
            ["play", segment, rounds] => {
                let waits = Game::attach(segment)?.play(false, rounds.parse()?)?;
                waits.to_string()
            }
            ["replace", what] => self.replace(what)?,
            ["nothing-written"] => self.nothing_written()?,
            ["strict", segment] => self.strict(segment)?,
            ["strict-again"] => {
                // The doorbell has to be opened again, which is not allowed.
                self.ringer = None;
                let game = self.game.as_ref().ok_or("none")?;
                game.slots[0].ring(&mut self.ringer)?;
                String::new()
            }
            ["sigpipe-kills"] => {
                // SAFETY: the default action replaces the one of Rust programs; no handler is involved.
                unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
                String::new()
            }
            ["signals"] => signals()?,
            _ => return Err("unknown command".into()),
        })
    }

    /// Drops the doorbell, and puts something else in the place of its descriptor.
    fn replace(&mut self, what: &str) -> Answer {
        let doorbell = self.doorbell.take().ok_or("none")?;
        let number = doorbell.as_raw_fd();
        drop(doorbell);
        match what {
            "pipe" => {
                let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                assert_eq!(read_end.as_raw_fd(), number);
                self.quiet = vec![read_end, write_end];
            }
            "doorbell" => {
                let doorbell = self.doorbell.insert(Doorbell::new()?);
                assert_eq!(doorbell.as_raw_fd(), number);
            }
            "file" => {
                let file = tempfile::tempfile()?;
                assert_eq!(file.as_raw_fd(), number);
                self.quiet = vec![file.into()];
            }
            _ => {}
        }
        Ok(String::new())
    }

    fn nothing_written(&self) -> Answer {
        let mut ends: Vec<_> = self.quiet.iter().take(1).map(AsFd::as_fd).collect();
        ends.extend(self.doorbell.as_ref().map(AsFd::as_fd));
        for end in ends {
            match read(end, &mut [0; 8]) {
                Ok(0) | Err(Errno::AGAIN) => {}
                other => return Err(format!("it can be read: {other:?}").into()),
            }
        }
        Ok(String::new())
    }

    /// Rings once by system calls, and then many times while no system call but `read` and `write` is allowed.
    fn strict(&mut self, segment: &str) -> Answer {
        let game = self.game.insert(Game::attach(segment)?);
        game.slots[0].ring(&mut self.ringer)?;
        // SAFETY: the call takes only integers.
        let entered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
        if entered != 0 {
            return Err(io::Error::last_os_error().into());
        }
        for _ in 0..1000 {
            game.words[0].fetch_add(1, Release);
            if game.slots[0].ring(&mut self.ringer)? {
                return Err("it was armed".into());
            }
        }
        Ok(String::new())
    }
}

/// Takes over a descriptor that this program has inherited.
fn owned(number: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;

    // SAFETY: the test has passed this descriptor, and nothing else here owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Creates a doorbell that a child holds as well.
fn own_and_fork() -> Answer {
    let doorbell = Doorbell::new()?;
    // SAFETY: the child only waits.
    let child = unsafe { testkit::fork() };
    if child == 0 {
        loop {
            // SAFETY: the call has no preconditions.
            unsafe { libc::pause() };
        }
    }
    let answer = format!("{child} {}", doorbell.id()?);
    std::mem::forget(doorbell);
    Ok(answer)
}

/// Rings a doorbell without a reader, with `SIGPIPE` in all states it can be in.
fn signals() -> Answer {
    let doorbell = Doorbell::new()?;
    let ringer = Ringer::open(doorbell.id()?)?;
    drop(doorbell);
    // SAFETY: the default action replaces the one of Rust programs; no handler is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut set = no_signals();
    assert!(!ringer.ring()?);
    assert_eq!(blocked_and_pending(), (false, false));
    // The program blocks the signal.
    // SAFETY: the pointer is to a set.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
    // SAFETY: the pointer is to a set, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    assert!(!ringer.ring()?);
    assert_eq!(blocked_and_pending(), (true, false));
    // And one is pending that is not about the doorbell.
    // SAFETY: the signal is blocked.
    unsafe { libc::raise(libc::SIGPIPE) };
    assert!(!ringer.ring()?);
    assert_eq!(blocked_and_pending(), (true, true));
    Ok(String::new())
}

fn no_signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writes of a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the call has initialised it.
    unsafe { set.assume_init() }
}

/// Returns whether this thread blocks `SIGPIPE`, and whether one is pending.
fn blocked_and_pending() -> (bool, bool) {
    let (mut blocked, mut pending) = (no_signals(), no_signals());
    // SAFETY: the mask stays as it is, and the pointer is valid for writes of a set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked) };
    // SAFETY: the pointer is valid for writes of a set.
    unsafe { libc::sigpending(&raw mut pending) };
    let contains = |set: &libc::sigset_t| {
        // SAFETY: the pointer is to a set.
        unsafe { libc::sigismember(set, libc::SIGPIPE) == 1 }
    };
    (contains(&blocked), contains(&pending))
}
