//! What can go wrong with growth: no memory, limits, the end of a process in the middle of it, rivals, and
//! peers that state nonsense.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use shmem_providers::{
    Error, Growable, HugePages, MemfdShMemProvider, MmapShMemProvider, Provider, ShMem,
    ShMemOptions, ShMemProvider,
};

use super::peer::{GrowthCommands, State};
use super::{MAX, SIZE, attached, descriptor, growable, memory};
use crate::linux::peer::Peer;
use testkit::peer::can_start_by;
use testkit::seccomp::forbid_in;
use testkit::{Outcome, natively, page_size, skip};

pub(crate) fn rivals_agree_on_the_largest_size<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut segment = growable(p)?;
    let mut peers = [attached(&segment)?, attached(&segment)?];
    for (peer, step) in peers.iter_mut().zip([5000, 70_000]) {
        peer.send(&format!("grow race {step}"));
    }
    for peer in &mut peers {
        assert_eq!(peer.answer_to("race")?, MAX.to_string());
        assert_eq!(peer.state().committed, MAX);
    }
    segment.grow_to(segment.committed())?;
    assert_eq!(segment.len(), MAX);
    Ok(())
}

/// Whatever a peer states, the others take nothing for committed that is not mapped, and no access fails.
pub(crate) fn a_peer_that_states_nonsense_harms_nobody<B: Growable>(
    p: &mut Provider<B>,
) -> Outcome {
    let page = page_size();
    for value in [
        0,
        1,
        SIZE,
        page,
        MAX,
        MAX + 1,
        MAX + page,
        MAX + 2 * page,
        usize::MAX,
    ] {
        let mut segment = growable(p)?;
        segment.grow_to(2 * page)?;
        let mut hostile = attached(&segment)?;
        hostile.execute(format!("grow state-as {value}"))?;
        let committed = segment.committed();
        assert!(
            (2 * page..=MAX).contains(&committed),
            "{value}: {committed}"
        );
        segment.grow_to(committed)?;
        segment.fill(1);
        match p.shmem_from_id(segment.id()) {
            Ok(mut attached) => {
                assert!(attached.len() <= MAX, "{value}");
                attached.fill(2);
                attached.grow_to(MAX)?;
                attached.fill(2);
            }
            Err(error) => assert!(matches!(error, Error::Foreign { .. }), "{value}: {error}"),
        }
        segment.grow_to(MAX)?;
        segment.fill(3);
    }
    Ok(())
}

/// A peer can change the mode, by which growable segments are recognised.
pub(crate) fn a_changed_mode_harms_nobody() -> Outcome {
    fn set<B: Growable>(segment: &shmem_providers::Segment<B>, mode: u32) -> Outcome {
        let path = descriptor(segment.as_ptr())?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }
    fn check<B: Growable>(p: &mut Provider<B>) -> Outcome {
        let page = page_size();
        // Not the size of a growable segment.
        for size in [1, page, page + 1] {
            let segment = p.new_shmem(size)?;
            set(&segment, 0o2600)?;
            let refused = p.shmem_from_id(segment.id()).err();
            assert!(
                matches!(refused, Some(Error::Foreign { .. })),
                "{refused:?}"
            );
        }
        // Its size, and any content.
        for byte in [0, 1, 255] {
            let mut segment = p.new_shmem(4 * page)?;
            segment.fill(byte);
            set(&segment, 0o2600)?;
            match p.shmem_from_id(segment.id()) {
                Ok(mut attached) => {
                    assert!(attached.len() <= 3 * page);
                    attached.fill(1);
                    attached.grow_to(3 * page)?;
                    attached.fill(1);
                }
                Err(error) => assert!(matches!(error, Error::Foreign { .. }), "{error}"),
            }
            segment.fill(2);
        }
        // A growable one that no longer appears so.
        let mut segment = growable(p)?;
        set(&segment, 0o600)?;
        let mut attached = p.shmem_from_id(segment.id())?;
        attached.fill(9);
        segment.grow_to(MAX)?;
        segment.fill(9);
        Ok(())
    }
    let mut memfd = MemfdShMemProvider::new()?;
    check(&mut memfd)?;
    // Huge pages are checked as before, where the host has any.
    let huge = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    if let Ok((segment, _)) = memfd.new_shmem_with(2 << 20, huge) {
        set(&segment, 0o2600)?;
        let attached = memfd.shmem_from_id(segment.id())?;
        assert_eq!((attached.len(), attached.reserved()), (2 << 20, 2 << 20));
    }
    check(&mut MmapShMemProvider::new()?)
}

/// A process that dies when it has allocated the memory, but not yet stated that it is there, leaves a
/// segment that the others use and grow as before.
pub(crate) fn death_in_the_middle_of_growth_harms_nobody() -> Outcome {
    natively("whose own calls strace would change")?;
    // The call has its effect, and does not return for a minute.
    let late = "inject=fallocate:delay_exit=60000000";
    let trace = "trace=fallocate";
    let wrapper = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        trace,
        "-e",
        late,
        "--",
    ];
    can_start_by(&wrapper)?;
    let before = crate::linux::open();
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = growable(&mut p)?;
    let mut peer = started_by(&wrapper)?;
    peer.execute(format!("grow open default {}", segment.id()))?;
    let traced: i32 = peer.ask_for("grow pid")?;
    assert!(memory(segment.as_ptr())? < 8 << 20);
    peer.send(&format!("grow to {}", 8 << 20));
    let end = Instant::now() + Duration::from_secs(50);
    while memory(segment.as_ptr())? < 8 << 20 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let traced = Pid::from_raw(traced).ok_or("a process has a number")?;
    assert!(peer.answered().is_none());
    rustix::process::kill_process(traced, Signal::KILL)?;
    peer.kill();
    while !is_dead(traced) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((segment.len(), segment.committed()), (SIZE, SIZE));
    assert!(memory(segment.as_ptr())? >= 8 << 20);
    assert_eq!(p.shmem_from_id(segment.id())?.len(), SIZE);
    segment.grow_to(MAX)?;
    assert!(segment.iter().all(|&byte| byte == 0));
    drop(segment);
    assert_eq!(crate::linux::open(), before);
    Ok(())
}

/// Returns `true` if a process has ended, whether or not its parent knows.
fn is_dead(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    let state = stat.as_ref().map(|stat| stat.rsplit(") ").next());
    !matches!(state, Ok(Some(rest)) if !rest.starts_with('Z'))
}

/// The kernel would look for it until it has killed a process.
pub(crate) fn more_memory_than_there_is_is_an_error() -> Outcome {
    natively("which has no seccomp filters")?;
    let info = fs::read_to_string("/proc/meminfo")?;
    let bytes = |name: &str| -> usize {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(0, |kib: usize| kib.saturating_mul(1024))
    };
    let total = bytes("MemTotal:").saturating_add(bytes("SwapTotal:"));
    if usize::BITS < 64 || total == 0 {
        return skip("no reservation is larger than the memory of this machine");
    }
    let mut peer = Peer::start();
    let max = 4 * total;
    peer.execute(format!("grow new default {SIZE} {max}"))?;
    let before = peer.state();
    peer.grow_to(1 << 20)?;
    // An attempt would take all memory of the machine.
    forbid_in(&mut peer, "EPERM", "fallocate")?;
    for (len, reason) in [(3 * total, " together"), (total - page_size(), " free of ")] {
        let created = peer.ask(format!("grow new default {len} {max}"));
        for error in [peer.grow_to(len).err(), created.err()] {
            let error = error.unwrap_or_default();
            assert!(
                error.contains("fallocate") && error.contains("No space left"),
                "{error}"
            );
            assert!(
                error.contains("RAM and swap have") && error.contains(reason),
                "{error}"
            );
        }
        let (len, committed) = (1 << 20, 1 << 20);
        assert_eq!(
            peer.state(),
            State {
                len,
                committed,
                ..before
            }
        );
    }
    peer.touch()?;
    Ok(())
}

/// The limit is on the size of the object, which does not change later.
pub(crate) fn the_file_size_limit_is_an_error_and_no_signal() -> Outcome {
    for kind in ["default", "posix"] {
        let mut peer = Peer::start();
        peer.execute("grow limit-file-size 100000")?;
        let error = peer
            .ask(format!("grow new {kind} 1 {MAX}"))
            .expect_err("too large");
        assert!(error.contains("RLIMIT_FSIZE is 100000 bytes"), "{error}");
        peer.execute(format!("grow new {kind} 1 50000"))?;
        peer.execute("grow limit-file-size 10")?;
        peer.grow_to(50_000)?;
        peer.touch()?;
    }
    Ok(())
}

/// Starts a peer in a mount namespace with a `/dev/shm` of 6 MiB.
fn peer_with_small_dev_shm() -> Outcome<Peer> {
    let root = rustix::process::geteuid().is_root();
    let flags = if root { "-m" } else { "-rm" };
    let shell = "mount -t tmpfs -o size=6m,mode=1777 tmpfs /dev/shm && exec \"$@\"";
    let wrapper = ["unshare", flags, "sh", "-c", shell, "sh"];
    can_start_by(&wrapper)?;
    started_by(&wrapper)
}

fn started_by(wrapper: &[&str]) -> Outcome<Peer> {
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(std::env::current_exe()?)
        .arg("peer");
    Ok(Peer::started(&mut command))
}

/// An access to memory that could not be allocated would raise SIGBUS.
pub(crate) fn full_dev_shm_is_an_error_and_no_signal() -> Outcome {
    let mut peer = peer_with_small_dev_shm()?;
    peer.execute("grow new posix 1 64000000")?;
    for (len, larger) in [(1, 32 << 20), (1, 7 << 20), (3 << 20, 7 << 20)] {
        peer.grow_to(len)?;
        let free: u64 = peer.ask_for("grow free")?;
        let error = peer.grow_to(larger).expect_err("there is no room");
        assert!(
            error.contains("No space left") && error.contains("of 6 MiB"),
            "{error}"
        );
        assert_eq!(peer.state().committed, len);
        // What was allocated before it failed is free again.
        assert_eq!(peer.ask_for::<u64>("grow free")?, free);
        peer.touch()?;
    }
    let answer = peer.ask("grow race 50000")?;
    assert!(answer.contains("No space left"), "{answer}");
    let len = peer.state().len;
    assert!(len > 5 << 20, "{len}");
    assert_eq!(peer.touch()?, len);
    // The initial size as well.
    let error = peer
        .ask("grow new posix 7000000 64000000")
        .expect_err("there is no room");
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(peer.ask("grow names")?, "1");
    peer.execute("grow drop")?;
    assert_eq!(peer.ask("grow names")?, "0");
    Ok(())
}

/// When the growth of one fails, the kernel frees what that call has allocated, and must not free what
/// another process has been promised.
pub(crate) fn rivals_for_the_last_memory_get_no_signal() -> Outcome {
    let mut peer = peer_with_small_dev_shm()?;
    let error = peer.ask("grow after-failure")?;
    assert!(error.contains("No space left"), "{error}");
    for _ in 0..20 {
        let sizes = peer.ask("grow rivals")?;
        assert!(sizes.contains("No space left"), "{sizes}");
    }
    Ok(())
}
