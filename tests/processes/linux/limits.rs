//! Limits of the system, which are lowered in namespaces or processes of their own.
#![allow(unsafe_code)]

use std::fs;

use super::peer::{ALL, Answer, Commands, Peer, assert_nothing_left, can_start_by, here};
use super::users::namespaces;
use testkit::peer::AS_OTHER;
use testkit::{Outcome, natively, page_size, skip};

/// Starts a peer in namespaces of its own, after some lines of shell there.
pub(crate) fn peer_in(which: &str, shell: &str) -> Outcome<Peer> {
    let wrapper = namespaces(which, shell);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    can_start_by(&wrapper)?;
    Ok(Peer::start_by(&wrapper))
}

pub(crate) fn full_dev_shm_is_an_error_that_names_its_size() -> Outcome {
    let mut peer = peer_in("-m", "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm")?;
    let files = peer.files()?;
    peer.make("posix", 65536)?;
    let error = peer.make("posix", 64 << 20).expect_err("it is too large");
    assert!(
        error.contains("fallocate (67108864 bytes): No space left"),
        "{error}"
    );
    assert!(
        error.contains("/dev/shm has 960 KiB free of 1 MiB"),
        "{error}"
    );
    assert_eq!(peer.names()?, 1);
    peer.make("posix", 900_000)?;
    peer.put(899_999, 1)?;
    // The other mechanisms do not use it.
    for mechanism in here(&["default", "memfd", "sysv"]) {
        peer.make(mechanism, 64 << 20)?;
        peer.put((64 << 20) - 1, 1)?;
        peer.drop_newest()?;
    }
    peer.drop_newest()?;
    peer.drop_newest()?;
    assert_eq!(peer.files()?, files);
    Ok(())
}

/// On older kernels a signal undoes a reservation, so that with a fast timer a large one would never end.
pub(crate) fn signals_do_not_stop_a_reservation() -> Outcome {
    let mut peer = peer_in("-m", "mount -t tmpfs -o size=300m,mode=1777 tmpfs /dev/shm")?;
    peer.execute("timer 200")?;
    peer.make("posix", 256 << 20)?;
    peer.put((256 << 20) - 1, 1)?;
    Ok(())
}

pub(crate) fn too_many_system_v_segments_is_an_error_that_names_shmmni() -> Outcome {
    let mut peer = peer_in("-i", "echo 8 >/proc/sys/kernel/shmmni")?;
    // The first round must leave nothing for the second.
    for _ in 0..2 {
        for _ in 0..8 {
            peer.make("sysv", 4096)?;
        }
        let error = peer.make("sysv", 4096).expect_err("there are 8");
        assert!(
            error.contains("shmget (4096 bytes): No space left"),
            "{error}"
        );
        assert!(
            error.contains("kernel.shmmni is 8 and 8 segments exist"),
            "{error}"
        );
        for _ in 0..8 {
            peer.drop_newest()?;
        }
    }
    Ok(())
}

/// Segments that killed creators have left are removed if there is no room otherwise. Those of other programs
/// and those whose creator lives are not.
pub(crate) fn orphans_make_room_and_nothing_else_does() -> Outcome {
    permissions_are_reported()?;
    let start = || peer_in("-i", "echo 4 >/proc/sys/kernel/shmmni");
    // Segments of this crate have the first mode; other programs use any.
    for (mode, by, is_orphan) in [
        ("610", "child", true),
        ("600", "child", false),
        ("610", "self", false),
    ] {
        let mut peer = start()?;
        // The first creation searches for orphans as well. Now that is done.
        peer.make("sysv", 1)?;
        peer.drop_newest()?;
        peer.execute(format!("leave-orphans {by} {mode} 4"))?;
        let made = peer.make("sysv", 1);
        assert_eq!(made.is_ok(), is_orphan, "{mode} by {by}: {made:?}");
        let left = peer.segments()?;
        assert_eq!(left, if is_orphan { 1 } else { 4 }, "{mode} by {by}");
    }
    Ok(())
}

pub(crate) fn too_large_system_v_segment_is_an_error_that_names_shmmax() -> Outcome {
    let most = 16 * page_size();
    let shell = format!("echo {most} >/proc/sys/kernel/shmmax; echo 20 >/proc/sys/kernel/shmall");
    let mut peer = peer_in("-i", &shell)?;
    let too_large = peer.make("sysv", most + 1);
    let error = too_large.expect_err("it is too large");
    let limit = format!("kernel.shmmax is {most} bytes");
    assert!(error.contains(&limit), "{error}");
    peer.make("sysv", most)?;
    let too_many = peer.make("sysv", most);
    let error = too_many.expect_err("they are too many");
    assert!(error.contains("kernel.shmall is 20 pages"), "{error}");
    Ok(())
}

/// memfd and POSIX need descriptors. The default continues with System V.
pub(crate) fn default_falls_back_when_no_descriptor_is_left() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let mut other = Peer::start();
    let of_other = other.make("memfd", 100)?;
    let mut peer = Peer::start();
    let limit = peer.ask("limit files 0")?;
    for mechanism in ["memfd", "posix"] {
        let error = peer.make(mechanism, 100).expect_err("no descriptor");
        assert!(
            error.contains(&format!("RLIMIT_NOFILE is {limit}")),
            "{error}"
        );
    }
    let error = peer.open(&of_other).expect_err("no descriptor");
    assert!(
        error.contains(&format!("RLIMIT_NOFILE is {limit}")),
        "{error}"
    );
    if here(ALL).contains(&"sysv") {
        let id = peer.make("default", 100)?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        // The default uses memfd again as soon as there are descriptors.
        peer.execute("limit files 5")?;
        assert!(peer.make("default", 100)?.starts_with('m'));
    }
    Ok(())
}

/// Whichever step fails, no descriptor stays open and no segment is left.
pub(crate) fn nothing_is_left_when_descriptors_run_out_at_any_step() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let (mut creator, mut other, mut holder) = (Peer::start(), Peer::start(), Peer::start());
    let of_dead = creator.make("memfd", 100)?;
    let of_other = other.make("memfd", 100)?;
    holder.open(&of_dead)?;
    creator.kill();
    let mut dead = Vec::new();
    for left in 0..5 {
        for mechanism in here(ALL) {
            let mut peer = Peer::start();
            let files = peer.files()?;
            peer.execute(format!("limit files {left}"))?;
            let mut held = 0;
            for step in ["make", "open other", "open dead", "make again"] {
                let done = match step {
                    "open other" => peer.open(&of_other).map(drop),
                    "open dead" => peer.open(&of_dead).map(drop),
                    _ => peer.make(mechanism, 100).map(drop),
                };
                match done {
                    Ok(()) => held += 1,
                    Err(error) => assert!(error.contains("RLIMIT_NOFILE"), "{step}: {error}"),
                }
                if held > 0 {
                    match peer.clone_newest() {
                        Ok(_) => held += 1,
                        Err(error) => assert!(error.contains("RLIMIT_NOFILE"), "{step}: {error}"),
                    }
                }
            }
            for _ in 0..held {
                peer.drop_newest()?;
            }
            peer.execute("limit files 10")?;
            assert_eq!(peer.files()?, files, "{mechanism} with {left} left");
            dead.push(peer.kill());
        }
    }
    assert_nothing_left(&dead, &[]);
    Ok(())
}

/// An attempt would raise SIGXFSZ, which kills the process.
pub(crate) fn exceeding_the_file_size_limit_is_an_error_and_no_signal() -> Outcome {
    let mut peer = Peer::start();
    peer.execute("limit size 5000")?;
    for mechanism in here(&["memfd", "posix"]) {
        let error = peer.make(mechanism, 65536).expect_err("it is too large");
        assert!(error.contains("RLIMIT_FSIZE is 5000 bytes"), "{error}");
        peer.make(mechanism, 5000)?;
    }
    if here(ALL).contains(&"sysv") {
        let id = peer.make("default", 65536)?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    }
    Ok(())
}

/// Skips the test if `shmctl(IPC_STAT)` does not report the permissions of a segment, by which orphans are
/// recognised.
pub(crate) fn permissions_are_reported() -> Outcome {
    if cfg!(target_endian = "big") {
        natively("which reports the permissions of System V segments in the wrong byte order")
    } else {
        Ok(())
    }
}

pub(crate) fn exhausted_address_space_is_an_error_that_names_the_limit() -> Outcome {
    natively("which knows no RLIMIT_AS")?;
    // AddressSanitizer reserves terabytes and needs more as it runs.
    if address_space() > 1 << 30 {
        return skip("this program uses more address space than the test allows");
    }
    let mut peer = Peer::start();
    let files = peer.files()?;
    peer.execute(format!("limit space {}", 1 << 30))?;
    for mechanism in here(ALL) {
        let error = peer.make(mechanism, 1 << 30);
        let error = error.expect_err("no room");
        // In a container with a small /dev/shm, POSIX reports that first.
        assert!(
            error.contains("RLIMIT_AS is 1073741824 bytes") || error.contains("/dev/shm has"),
            "{mechanism}: {error}"
        );
        assert_eq!(peer.files()?, files);
    }
    assert_nothing_left(&[peer.kill()], &[]);
    Ok(())
}

pub(crate) fn exhausted_mappings_are_an_error_that_names_the_limit() -> Outcome {
    natively("which has mappings of its own")?;
    if address_space() > 1 << 40 || cfg!(target_env = "musl") {
        return skip("the allocator needs mappings and aborts without them");
    }
    let mut peer = Peer::start();
    let limit = peer.ask("fill-mappings")?;
    for mechanism in here(ALL) {
        let error = peer.make(mechanism, 4096);
        let error = error.expect_err("no mapping is left");
        assert!(
            error.contains(&format!(
                "vm.max_map_count is {limit}, and this process has"
            )),
            "{mechanism}: {error}"
        );
    }
    assert_nothing_left(&[peer.kill()], &[]);
    Ok(())
}

/// What a peer does: creates as many mappings as it may have.
pub(crate) fn fill_mappings() -> Answer {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count")?;
    if limit.trim().parse::<u64>()? > 1 << 20 {
        return Err("a process may have too many mappings".into());
    }
    // The kernel merges neighbours with the same protection.
    for turn in 0.. {
        let rights = if turn % 2 == 0 {
            libc::PROT_NONE
        } else {
            libc::PROT_READ
        };
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses an unused address.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, kind, -1, 0) };
        if mapped == libc::MAP_FAILED {
            break;
        }
    }
    Ok(limit.trim().to_owned())
}

pub(crate) fn exhausted_locked_memory_is_an_error_that_names_the_limit() -> Outcome {
    // The limit does not apply to root, and only root can raise it.
    let shell = format!("ulimit -l 65536 && exec {} \"$@\"", AS_OTHER.join(" "));
    let wrapper = &["sh", "-c", &*shell, "sh"];
    natively("which locks nothing").and_then(|()| can_start_by(wrapper))?;
    if address_space() > 1 << 30 {
        return skip("this program uses more memory than may be locked");
    }
    let mut peer = Peer::start_by(wrapper);
    if let Err(reason) = peer.ask("lock-all") {
        return skip(format!("memory cannot be locked here: {reason}"));
    }
    for mechanism in here(ALL) {
        let error = peer.make(mechanism, 128 << 20);
        let error = error.expect_err("it would be locked");
        // In a container with a small /dev/shm, POSIX reports that first.
        assert!(
            error.contains("RLIMIT_MEMLOCK is 67108864 bytes") || error.contains("/dev/shm has"),
            "{mechanism}: {error}"
        );
    }
    assert_nothing_left(&[peer.kill()], &[]);
    Ok(())
}

/// What a peer does: locks all memory that it maps from now on.
pub(crate) fn lock_all() -> Answer {
    // SAFETY: the call changes no memory.
    match unsafe { libc::mlockall(libc::MCL_FUTURE) } {
        0 => Ok(String::new()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Returns the size of this program's address space in bytes, or 0 without `/proc`.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0) << 10
}
