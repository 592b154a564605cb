//! The pool: which segments it reuses, and above all which not.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{io, thread};

use shmem_providers::{
    Error, Mechanism, PosixBackend, ShMem, ShMemId, ShMemPool, ShMemProvider, StdShMem,
    StdShMemPool, StdShMemProvider, UnixShMemProvider,
};

use super::peer::{Answer, Commands, Peer};
use testkit::{Outcome, fork, open_files, skip};

const SIZE: usize = 65536;

/// Returns a pool over each mechanism that can detect other holders of a segment.
fn pools() -> Vec<StdShMemPool> {
    let over = |mechanism| ShMemPool::over(StdShMemProvider::with_mechanism(mechanism), 8, 1 << 30);
    vec![over(Mechanism::Memfd), over(Mechanism::SystemV)]
}

/// Skips the test if pools reuse no segments on this host, because there is no System V shared memory.
fn requires_reuse() -> Outcome {
    if let Err(error) = UnixShMemProvider::default().new_shmem(1) {
        return skip(error);
    }
    Ok(())
}

/// Creates a segment, fills it with ones, drops it, and returns its id.
fn used(pool: &mut StdShMemPool) -> Result<ShMemId, Error> {
    let mut segment = pool.new_shmem(SIZE)?;
    segment.fill(1);
    Ok(segment.id())
}

pub(crate) fn dropped_segments_are_reused() -> Outcome {
    requires_reuse()?;
    for mut pool in pools() {
        let before = open_files();
        let id = used(&mut pool)?;
        for _ in 0..100 {
            let mut segment = pool.new_shmem(SIZE)?;
            assert_eq!((segment.id(), segment.len(), pool.idle()), (id, SIZE, 0));
            assert!(segment.iter().all(|&byte| byte == 0));
            segment.fill(2);
            let attached = pool.shmem_from_id(id)?;
            assert_eq!(attached[SIZE - 1], 2);
        }
        assert_ne!(pool.new_shmem(SIZE + 1)?.id(), id);
        // Large segments are cleared where they were written.
        let mut large = pool.new_shmem(8 << 20)?;
        (large[5], large[(8 << 20) - 1]) = (1, 1);
        let large_id = large.id();
        pool.release_shmem(&mut large);
        assert_eq!((large.len(), large.id()), (0, large_id));
        drop(large);
        let large = pool.new_shmem(8 << 20)?;
        assert_eq!(large.id(), large_id);
        assert!(large.iter().all(|&byte| byte == 0));
        drop((large, pool));
        assert_eq!(open_files(), before);
    }
    Ok(())
}

pub(crate) fn segments_of_other_processes_are_not_reused() -> Outcome {
    requires_reuse()?;
    for mut pool in pools() {
        let mut segment = pool.new_shmem(SIZE)?;
        segment.fill(1);
        let id = segment.id();
        let (mut killed, mut ended) = (Peer::start(), Peer::start());
        for peer in [&mut killed, &mut ended] {
            peer.hold(&id)?;
        }
        drop(segment);
        for peer in [Some(killed), Some(ended)] {
            for _ in 0..3 {
                let other = pool.new_shmem(SIZE)?;
                assert_ne!(other.id(), id);
                assert!(other.iter().all(|&byte| byte == 0));
            }
            // The holder's segment has not been zeroed.
            let held = pool.shmem_from_id(id)?;
            assert!(held.iter().all(|&byte| byte == 1));
            drop(held);
            peer.map(Peer::kill);
        }
        // The segment is reused once it has no holder, whether that was killed or has ended.
        let all: Result<Vec<_>, _> = (0..2).map(|_| pool.new_shmem(SIZE)).collect();
        assert!(all?.iter().any(|segment| segment.id() == id));
    }
    Ok(())
}

pub(crate) fn segments_of_forked_children_are_not_reused() -> Outcome {
    requires_reuse()?;
    Peer::start().execute("forks")?;
    Ok(())
}

/// In another IPC namespace, the numbers of System V segments are those of other segments.
pub(crate) fn segments_of_children_are_not_reused_in_another_ipc_namespace() -> Outcome {
    requires_reuse()?;
    match Peer::start().ask("moves")?.as_str() {
        "" => Ok(()),
        reason => skip(reason),
    }
}

pub(crate) fn a_forked_child_creates_its_own_segments() -> Outcome {
    requires_reuse()?;
    Peer::start().execute("child-makes")?;
    Ok(())
}

pub(crate) fn segments_attached_in_this_process_are_not_reused() -> Outcome {
    requires_reuse()?;
    for mut pool in pools() {
        let segment = pool.new_shmem(SIZE)?;
        let id = segment.id();
        let clone = pool.clone_ref(&segment)?;
        let attached = StdShMemProvider::new()?.shmem_from_id(id)?;
        // Another descriptor of the same open file.
        let again = StdShMemProvider::new()?.clone_ref(&attached)?;
        drop((segment, attached));
        assert_ne!(pool.new_shmem(SIZE)?.id(), id);
        drop(clone);
        assert_ne!(pool.new_shmem(SIZE)?.id(), id);
        drop(again);
        let all: Result<Vec<_>, _> = (0..2).map(|_| pool.new_shmem(SIZE)).collect();
        assert!(all?.iter().any(|segment| segment.id() == id));
    }
    Ok(())
}

pub(crate) fn posix_segments_are_never_reused() -> Outcome {
    let mut pool = match ShMemPool::<PosixBackend>::new() {
        Ok(pool) => pool,
        Err(error) => return skip(error),
    };
    let id = pool.new_shmem(SIZE)?.id();
    assert_eq!(pool.idle(), 0);
    assert_ne!(pool.new_shmem(SIZE)?.id(), id);
    assert!(pool.shmem_from_id(id).is_err());
    Ok(())
}

pub(crate) fn a_pool_keeps_no_more_than_its_limits() -> Outcome {
    requires_reuse()?;
    let mut pool = StdShMemPool::over(StdShMemProvider::new()?, 3, 10 * SIZE);
    let before = open_files();
    let many: Result<Vec<_>, _> = (0..5).map(|_| pool.new_shmem(SIZE)).collect();
    drop(many?);
    assert_eq!(pool.idle(), 3);
    drop(pool.new_shmem(11 * SIZE)?);
    assert_eq!(pool.idle(), 3);
    let three: Result<Vec<_>, _> = (0..3).map(|_| pool.new_shmem(SIZE)).collect();
    assert_eq!(pool.idle(), 0);
    let large = pool.new_shmem(9 * SIZE)?;
    drop(large);
    drop(three?);
    assert_eq!(pool.idle(), 2);
    // A segment in use keeps the pool and its idle segments alive.
    let last = pool.new_shmem(1)?;
    drop(pool);
    drop(last);
    assert_eq!(open_files(), before);
    Ok(())
}

pub(crate) fn threads_share_a_pool() -> Outcome {
    requires_reuse()?;
    for pool in pools() {
        let work = |mark: u8| {
            let mut pool = pool.clone();
            move || -> Result<(), Error> {
                for _ in 0..300 {
                    let mut segment = pool.new_shmem(SIZE)?;
                    assert!(segment.iter().all(|&byte| byte == 0));
                    segment.fill(mark);
                    thread::yield_now();
                    assert!(segment.iter().all(|&byte| byte == mark));
                }
                Ok(())
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (1..=4).map(|mark| scope.spawn(work(mark))).collect();
            for thread in threads {
                thread
                    .join()
                    .expect("no assertion failed")
                    .expect("no error");
            }
        });
        assert!((1..=4).contains(&pool.idle()));
    }
    Ok(())
}

/// Opening a segment on which the pool has a lease sends the pool's process a signal, which would kill it by
/// default.
pub(crate) fn opening_a_leased_segment_kills_nobody() -> Outcome {
    /// Large enough that zeroing takes a while, during which the pool has the lease.
    const LARGE: usize = 8 << 20;

    requires_reuse()?;
    let mut peer = Peer::start();
    let mut pool = StdShMemPool::new()?;
    let mut segment = pool.new_shmem(LARGE)?;
    let id = segment.id();
    segment.fill(1);
    drop(segment);
    peer.send(&format!("probe {id}"));
    let mut reused = 0;
    for _ in 0..30 {
        let mut segment = pool.new_shmem(LARGE)?;
        assert_eq!(
            (segment[0], segment[LARGE / 2], segment[LARGE - 1]),
            (0, 0, 0)
        );
        reused += u32::from(segment.id() == id);
        segment.fill(1);
    }
    assert!(reused > 0);
    peer.kill();
    Ok(())
}

/// What a peer does: holds a segment until it ends.
pub(crate) fn hold(id: &str) -> Answer {
    let segment = StdShMemProvider::new()?.shmem_from_id(ShMemId::from_string(id))?;
    std::mem::forget(segment);
    Ok(String::new())
}

/// What a peer does: attaches to a segment repeatedly.
pub(crate) fn probe(id: &str) -> Answer {
    let mut provider = StdShMemProvider::new()?;
    // It ends by itself if no process is left to kill it.
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let _: Result<StdShMem, _> = provider.shmem_from_id(ShMemId::from_string(id));
        // Most of the time it is not attached, so that the segment is reused.
        thread::sleep(Duration::from_micros(300));
    }
    Ok(String::new())
}

/// What a peer does: drops a segment that its child has inherited, and checks that the pool does not reuse it.
pub(crate) fn forks() -> Answer {
    for mut pool in pools() {
        let mut segment = pool.new_shmem(SIZE)?;
        segment.fill(1);
        let id = segment.id();
        let (child, mut stream) = forked(|mut stream| {
            let mut signal = [0];
            stream.read_exact(&mut signal)?;
            let intact = segment.iter().all(|&byte| byte == 1);
            stream.write_all(&[u8::from(intact)])?;
            // The child ends when the parent closes the stream.
            stream.read_exact(&mut signal)
        })?;
        drop(segment);
        for _ in 0..3 {
            let other = pool.new_shmem(SIZE)?;
            if other.id() == id || other.iter().any(|&byte| byte != 0) {
                return Err("the child's segment was reused".into());
            }
        }
        stream.write_all(&[1])?;
        let mut intact = [0];
        stream.read_exact(&mut intact)?;
        if intact != [1] {
            return Err("the child's segment was changed".into());
        }
        drop(stream);
        wait(child)?;
        let all: Result<Vec<_>, _> = (0..4).map(|_| pool.new_shmem(SIZE)).collect();
        if all?.iter().all(|segment| segment.id() != id) {
            return Err("the child has ended, and the segment was not reused".into());
        }
    }
    Ok(String::new())
}

/// What a peer does: moves to another IPC namespace while a child has a segment, and checks that the pool does
/// not reuse it.
pub(crate) fn moves() -> Answer {
    let into_new_namespace = || {
        // SAFETY: the call takes no pointer, and this program has a single thread.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0;
        moved.then_some(()).ok_or_else(io::Error::last_os_error)
    };
    if let Err(error) = into_new_namespace() {
        return Ok(format!("no IPC namespace: {error}"));
    }
    let memfd = StdShMemProvider::with_mechanism(Mechanism::Memfd);
    let mut pool = ShMemPool::over(memfd, 8, 1 << 30);
    let mut segment = pool.new_shmem(SIZE)?;
    segment.fill(1);
    let id = segment.id();
    let (child, mut stream) = forked(|mut stream| {
        let mut signal = [0];
        stream.read_exact(&mut signal)?;
        let intact = segment.iter().all(|&byte| byte == 1);
        stream.write_all(&[u8::from(intact)])
    })?;
    drop(segment);
    into_new_namespace()?;
    // The first segments of a namespace have the same numbers. These are larger than the segment whose number
    // the pool asks the kernel about.
    let mut other = UnixShMemProvider::new()?;
    let others: Result<Vec<_>, _> = (0..4).map(|_| other.new_shmem(SIZE)).collect();
    let fresh = pool.new_shmem(SIZE)?.id();
    stream.write_all(&[1])?;
    let mut intact = [0];
    stream.read_exact(&mut intact)?;
    wait(child)?;
    drop(others?);
    if fresh == id || intact != [1] {
        return Err("the child's segment was reused".into());
    }
    Ok(String::new())
}

/// What a peer does: has a child use the pool that it has inherited.
pub(crate) fn child_makes() -> Answer {
    for mut pool in pools() {
        let id = used(&mut pool)?;
        let in_use = pool.new_shmem(SIZE / 2)?;
        let (child, mut stream) = forked(|mut stream| {
            let fresh = pool.new_shmem(SIZE).map_err(io::Error::from)?;
            let reused = fresh.id() == id;
            drop((fresh, in_use));
            let idle = pool.idle();
            stream.write_all(&[u8::from(reused), u8::try_from(idle).unwrap_or(9)])
        })?;
        let mut report = [9; 2];
        stream.read_exact(&mut report)?;
        if report != [0, 0] {
            return Err(format!("the child has used its parent's pool: {report:?}").into());
        }
        drop(stream);
        wait(child)?;
    }
    Ok(String::new())
}

/// Forks a child that does some work and ends, whether that fails or not.
pub(crate) fn forked(
    work: impl FnOnce(UnixStream) -> io::Result<()>,
) -> io::Result<(libc::pid_t, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: other threads of this program change nothing that the child uses.
    match unsafe { fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ours);
            let _ = work(theirs);
            // SAFETY: the call has no preconditions.
            unsafe { libc::_exit(0) }
        }
        child => Ok((child, ours)),
    }
}

pub(crate) fn wait(child: libc::pid_t) -> io::Result<()> {
    // SAFETY: the pointer to the status may be null.
    match unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
