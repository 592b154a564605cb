//! Limits of the system, lowered in namespaces or processes of their own.
#![allow(unsafe_code)]

use std::fs;

use super::peer::{ALL, Answer, Peer, assert_nothing_left, can_start_by, here};
use super::users::{AS_OTHER, namespaces};
use testkit::{Outcome, natively, page_size, skip};

/// A peer in namespaces of its own, after some lines of shell there.
pub(crate) fn peer_in(which: &str, shell: &str) -> Outcome<Peer> {
    let wrapper = namespaces(which, shell);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    can_start_by(&wrapper)?;
    Ok(Peer::start_by(&wrapper))
}

pub(crate) fn full_dev_shm_is_an_error_that_names_its_size() -> Outcome {
    let mut peer = peer_in("-m", "mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm")?;
    let files = peer.ask("files")?;
    peer.ask("make posix 65536")?;
    let error = peer
        .ask("make posix 67108864")
        .expect_err("it is too large");
    assert!(
        error.contains("fallocate (67108864 bytes): No space left"),
        "{error}"
    );
    assert!(
        error.contains("/dev/shm has 960 KiB free of 1 MiB"),
        "{error}"
    );
    assert_eq!(peer.ask("names")?, "1");
    peer.ask("make posix 900000")?;
    peer.ask("put 899999 1")?;
    // The others do not care.
    for mechanism in here(&["default", "memfd", "sysv"]) {
        peer.ask(format!("make {mechanism} 67108864"))?;
        peer.ask("put 67108863 1")?;
        peer.ask("drop")?;
    }
    peer.ask("drop")?;
    peer.ask("drop")?;
    assert_eq!(peer.ask("files")?, files);
    Ok(())
}

/// On older kernels a signal ends a reservation with nothing done: with a fast timer, a large one
/// would never end.
pub(crate) fn signals_do_not_stop_a_reservation() -> Outcome {
    let mut peer = peer_in("-m", "mount -t tmpfs -o size=300m,mode=1777 tmpfs /dev/shm")?;
    peer.ask("timer 200")?;
    peer.ask("make posix 268435456")?;
    peer.ask("put 268435455 1")?;
    Ok(())
}

pub(crate) fn too_many_system_v_segments_is_an_error_that_names_shmmni() -> Outcome {
    let mut peer = peer_in("-i", "echo 8 >/proc/sys/kernel/shmmni")?;
    // The second time nothing may be left of the first.
    for _ in 0..2 {
        for _ in 0..8 {
            peer.ask("make sysv 4096")?;
        }
        let error = peer.ask("make sysv 4096").expect_err("there are 8");
        assert!(
            error.contains("shmget (4096 bytes): No space left"),
            "{error}"
        );
        assert!(
            error.contains("kernel.shmmni is 8 and 8 segments exist"),
            "{error}"
        );
        for _ in 0..8 {
            peer.ask("drop")?;
        }
    }
    Ok(())
}

/// Segments that killed creators left are removed when there is no other room; those of others, and
/// those whose creator lives, are not.
pub(crate) fn orphans_make_room_and_nothing_else_does() -> Outcome {
    permissions_are_told()?;
    let start = || peer_in("-i", "echo 4 >/proc/sys/kernel/shmmni");
    // What is ours has these permissions, and others have any.
    for (mode, by, is_orphan) in [
        ("610", "child", true),
        ("600", "child", false),
        ("610", "self", false),
    ] {
        let mut peer = start()?;
        // The first one looks for orphans as well: now it has looked.
        peer.ask("make sysv 1")?;
        peer.ask("drop")?;
        peer.ask(format!("litter {by} {mode} 4"))?;
        let made = peer.ask("make sysv 1");
        assert_eq!(made.is_ok(), is_orphan, "{mode} by {by}: {made:?}");
        let left = peer.ask("segments")?;
        assert_eq!(left, if is_orphan { "1" } else { "4" }, "{mode} by {by}");
    }
    Ok(())
}

pub(crate) fn too_large_system_v_segment_is_an_error_that_names_shmmax() -> Outcome {
    let most = 16 * page_size();
    let shell = format!("echo {most} >/proc/sys/kernel/shmmax; echo 20 >/proc/sys/kernel/shmall");
    let mut peer = peer_in("-i", &shell)?;
    let too_large = peer.ask(format!("make sysv {}", most + 1));
    let error = too_large.expect_err("it is too large");
    let limit = format!("kernel.shmmax is {most} bytes");
    assert!(error.contains(&limit), "{error}");
    peer.ask(format!("make sysv {most}"))?;
    let too_many = peer.ask(format!("make sysv {most}"));
    let error = too_many.expect_err("they are too many");
    assert!(error.contains("kernel.shmall is 20 pages"), "{error}");
    Ok(())
}

/// memfd and POSIX need descriptors. The default goes on without.
pub(crate) fn default_falls_back_when_no_descriptor_is_left() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let mut other = Peer::start();
    let of_other = other.ask("make memfd 100")?;
    let mut peer = Peer::start();
    let limit = peer.ask("limit files 0")?;
    for mechanism in ["memfd", "posix"] {
        let error = peer
            .ask(format!("make {mechanism} 100"))
            .expect_err("no descriptor");
        assert!(
            error.contains(&format!("RLIMIT_NOFILE is {limit}")),
            "{error}"
        );
    }
    let error = peer
        .ask(format!("open {of_other}"))
        .expect_err("no descriptor");
    assert!(
        error.contains(&format!("RLIMIT_NOFILE is {limit}")),
        "{error}"
    );
    if here(ALL).contains(&"sysv") {
        let id = peer.ask("make default 100")?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        // It had only run out, and is used again as soon as it can be.
        peer.ask("limit files 5")?;
        assert!(peer.ask("make default 100")?.starts_with('m'));
    }
    Ok(())
}

/// Whichever step fails, nothing stays open, and nothing stays behind.
pub(crate) fn nothing_is_left_when_descriptors_run_out_at_any_step() -> Outcome {
    if !here(ALL).contains(&"memfd") {
        return skip("no memfd here");
    }
    let (mut creator, mut other, mut holder) = (Peer::start(), Peer::start(), Peer::start());
    let of_dead = creator.ask("make memfd 100")?;
    let of_other = other.ask("make memfd 100")?;
    holder.ask(format!("open {of_dead}"))?;
    creator.kill();
    let mut dead = Vec::new();
    for left in 0..5 {
        for mechanism in here(ALL) {
            let mut peer = Peer::start();
            let files = peer.ask("files")?;
            peer.ask(format!("limit files {left}"))?;
            let mut held = 0;
            let open_other = format!("open {of_other}");
            let open_dead = format!("open {of_dead}");
            let make = format!("make {mechanism} 100");
            for order in [&make, &open_other, &open_dead, &make] {
                match peer.ask(order) {
                    Ok(_) => held += 1,
                    Err(error) => assert!(error.contains("RLIMIT_NOFILE"), "{order}: {error}"),
                }
                if held > 0 {
                    match peer.ask("clone") {
                        Ok(_) => held += 1,
                        Err(error) => assert!(error.contains("RLIMIT_NOFILE"), "{order}: {error}"),
                    }
                }
            }
            for _ in 0..held {
                peer.ask("drop")?;
            }
            peer.ask("limit files 10")?;
            assert_eq!(peer.ask("files")?, files, "{mechanism} with {left} left");
            dead.push(peer.kill());
        }
    }
    assert_nothing_left(&dead, &[]);
    Ok(())
}

/// To try would raise SIGXFSZ, which kills.
pub(crate) fn exceeding_the_file_size_limit_is_an_error_and_no_signal() -> Outcome {
    let mut peer = Peer::start();
    peer.ask("limit size 5000")?;
    for mechanism in here(&["memfd", "posix"]) {
        let error = peer
            .ask(format!("make {mechanism} 65536"))
            .expect_err("it is too large");
        assert!(error.contains("RLIMIT_FSIZE is 5000 bytes"), "{error}");
        peer.ask(format!("make {mechanism} 5000"))?;
    }
    if here(ALL).contains(&"sysv") {
        let id = peer.ask("make default 65536")?;
        assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    }
    Ok(())
}

/// Whether `shmctl(IPC_STAT)` tells the permissions of a segment, as the outcome of a test if not:
/// those of orphans are their mark.
pub(crate) fn permissions_are_told() -> Outcome {
    if cfg!(target_endian = "big") {
        natively("which tells the permissions of System V segments in the wrong byte order")
    } else {
        Ok(())
    }
}

pub(crate) fn exhausted_address_space_is_an_error_that_names_the_limit() -> Outcome {
    natively("which knows no RLIMIT_AS")?;
    // AddressSanitizer reserves terabytes, and cannot work when it may have no more.
    if address_space() > 1 << 30 {
        return skip("this program itself takes more address space than the test leaves it");
    }
    let mut peer = Peer::start();
    let files = peer.ask("files")?;
    peer.ask(format!("limit space {}", 1 << 30))?;
    for mechanism in here(&["default", "memfd", "sysv", "posix"]) {
        let error = peer.ask(format!("make {mechanism} {}", 1_u32 << 30));
        let error = error.expect_err("no room");
        // On a container with little /dev/shm, POSIX says that first.
        assert!(
            error.contains("RLIMIT_AS is 1073741824 bytes") || error.contains("/dev/shm has"),
            "{mechanism}: {error}"
        );
        assert_eq!(peer.ask("files")?, files);
    }
    assert_nothing_left(&[peer.kill()], &[]);
    Ok(())
}

pub(crate) fn exhausted_mappings_are_an_error_that_names_the_limit() -> Outcome {
    natively("which has mappings of its own")?;
    if address_space() > 1 << 40 || cfg!(target_env = "musl") {
        return skip(
            "this program's allocator takes mappings itself, and ends it if there are none",
        );
    }
    let mut peer = Peer::start();
    let limit = peer.ask("fill-mappings")?;
    for mechanism in here(&["default", "memfd", "sysv", "posix"]) {
        let error = peer.ask(format!("make {mechanism} 4096"));
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

/// What a peer does: takes all mappings that it may have.
pub(crate) fn fill_mappings() -> Answer {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count")?;
    if limit.trim().parse::<u64>()? > 1 << 20 {
        return Err("there may be too many".into());
    }
    // Neighbours of different rights are not joined.
    for turn in 0.. {
        let rights = if turn % 2 == 0 {
            libc::PROT_NONE
        } else {
            libc::PROT_READ
        };
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses the address, and the mapping stays.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, kind, -1, 0) };
        if place == libc::MAP_FAILED {
            break;
        }
    }
    Ok(limit.trim().to_owned())
}

pub(crate) fn exhausted_locked_memory_is_an_error_that_names_the_limit() -> Outcome {
    // Root is not bound by the limit, and only root can raise it.
    let shell = format!("ulimit -l 65536 && exec {} \"$@\"", AS_OTHER.join(" "));
    let wrapper = &["sh", "-c", &*shell, "sh"];
    natively("which locks nothing").and_then(|()| can_start_by(wrapper))?;
    if address_space() > 1 << 30 {
        return skip("this program itself takes more memory than may be locked");
    }
    let mut peer = Peer::start_by(wrapper);
    if let Err(why) = peer.ask("lock-all") {
        return skip(format!("memory cannot be locked here: {why}"));
    }
    for mechanism in here(&["default", "memfd", "sysv", "posix"]) {
        let error = peer.ask(format!("make {mechanism} 134217728"));
        let error = error.expect_err("it would be locked");
        // On a container with little /dev/shm, POSIX says that first.
        assert!(
            error.contains("RLIMIT_MEMLOCK is 67108864 bytes") || error.contains("/dev/shm has"),
            "{mechanism}: {error}"
        );
    }
    assert_nothing_left(&[peer.kill()], &[]);
    Ok(())
}

/// What a peer does: locks everything that it will map.
pub(crate) fn lock_all() -> Answer {
    // SAFETY: no memory changes.
    match unsafe { libc::mlockall(libc::MCL_FUTURE) } {
        0 => Ok(String::new()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// How many bytes of address space this program takes, if `/proc` tells.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0) << 10
}
