//! Read-only attachments, and attacks on them, on segments with a single writer and on frozen segments, by
//! processes of the same user, in Rust and in C.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::Ordering::Acquire;

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals};
use shmem_providers::{
    Mechanism, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemPool, ShMemProvider,
    StdShMemProvider,
};

use super::peer::{Answer, Peer};
use super::single_writer::{SIZE, bytes, options, single_writer};
use super::snapshot::path_of;
use testkit::{Outcome, if_lacking, natively, skip};

/// The attempts that succeed on an ordinary segment.
const ON_ORDINARY: [&str; 6] = [
    "write",
    "pwrite",
    "mmap",
    "mprotect",
    "remove",
    "punch hole",
];

/// Lets another process attack a segment through the descriptor at this path, and returns which attempts
/// succeeded.
fn attack(id: ShMemId, path: &Path) -> Outcome<Vec<String>> {
    let succeeded = Peer::start().ask(format!("attack {id} {} {SIZE}", path.display()))?;
    Ok(succeeded.split_terminator(',').map(str::to_owned).collect())
}

/// Returns the path of the descriptor for other processes.
fn public_path(id: ShMemId) -> Outcome<PathBuf> {
    let own = path_of(id)?;
    let pid = std::process::id().to_string();
    Ok(Path::new("/proc")
        .join(pid)
        .join(own.strip_prefix("/proc/self")?))
}

/// What a peer does: tries to change a segment, and returns which attempts succeeded.
pub(crate) fn try_to_change(id: &str, path: &str, size: usize) -> Answer {
    let mut file = File::options().read(true).write(true).open(path)?;
    let reader = File::open(path)?;
    let len = size as u64;
    let map = |file: &File, protection| {
        // SAFETY: the kernel chooses the address, and nothing refers to the mapping.
        unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        }
    };
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: nothing relies on a fault when these pages are written.
    let becomes_writable = |page| unsafe { libc::mprotect(page, size, both) == 0 };
    let mut attempts = Vec::new();
    attempts.push(("write", file.write(b"R").is_ok()));
    attempts.push(("pwrite", file.write_at(b"R", 1).is_ok()));
    attempts.push(("mmap", map(&file, both) != libc::MAP_FAILED));
    let page = map(&file, libc::PROT_READ);
    attempts.push(("mprotect", becomes_writable(page)));
    // SAFETY: nothing refers to the bytes of the mapping.
    let removed = unsafe { libc::madvise(page, size, libc::MADV_REMOVE) == 0 };
    attempts.push(("remove", removed));
    let page = map(&reader, libc::PROT_READ);
    attempts.push(("reader mmap", page == libc::MAP_FAILED));
    attempts.push(("reader mprotect", becomes_writable(page)));
    attempts.push(("reader pwrite", reader.write_at(b"R", 2).is_ok()));
    let memory = File::options().write(true).open("/proc/self/mem")?;
    attempts.push(("mem", memory.write_at(b"R", page.addr() as u64).is_ok()));
    let keep = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    attempts.push(("punch hole", fallocate(&file, keep, 0, len).is_ok()));
    let zero = FallocateFlags::ZERO_RANGE;
    attempts.push(("zero range", fallocate(&file, zero, 0, len).is_ok()));
    let collapse = FallocateFlags::COLLAPSE_RANGE;
    attempts.push((
        "collapse range",
        fallocate(&file, collapse, 0, 4096).is_ok(),
    ));
    attempts.push(("shrink", file.set_len(0).is_ok()));
    attempts.push(("grow", file.set_len(2 * len).is_ok()));
    attempts.push((
        "seal writes",
        fcntl_add_seals(&file, SealFlags::WRITE).is_ok(),
    ));
    // With this crate: attaching for writing, and writing through a reader's mapping and descriptor.
    let id = ShMemId::from_string(id);
    let mut provider = StdShMemProvider::new()?;
    attempts.push(("crate", provider.shmem_from_id(id).is_ok()));
    let attached = provider.shmem_from_id_read_only(id)?;
    let page = attached.as_ptr().cast_mut();
    attempts.push(("crate mprotect", becomes_writable(page.cast())));
    attempts.push((
        "crate mem",
        memory.write_at(b"R", page.addr() as u64).is_ok(),
    ));
    attempts.push((
        "crate pwrite",
        File::open(path_of(id)?)?.write_at(b"R", 3).is_ok(),
    ));
    let succeeded: Vec<_> = attempts
        .iter()
        .filter(|(_, done)| *done)
        .map(|(name, _)| *name)
        .collect();
    Ok(succeeded.join(","))
}

/// The attacks are real: most succeed on an ordinary segment, though not through a read-only attachment.
pub(crate) fn an_ordinary_segment_can_be_changed_by_its_peers() -> Outcome {
    let segment = MemfdShMemProvider::new()?.shmem_from_bytes(&[5; SIZE])?;
    let mut succeeded = attack(segment.id(), &public_path(segment.id())?)?;
    assert_eq!(succeeded.pop().as_deref(), Some("crate"));
    assert_eq!(succeeded, ON_ORDINARY);
    assert_ne!(segment[..], [5; SIZE]);
    Ok(())
}

pub(crate) fn a_c_program_can_change_only_ordinary_segments() -> Outcome {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("attack");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/memory/linux/attack.c");
    let compiled = Command::new("cc")
        .arg("-o")
        .args([&program, Path::new(source)])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return skip("no C compiler here");
    }
    let attack = |id| -> Outcome<Vec<String>> {
        let path = public_path(id)?;
        let output = Command::new(&program)
            .arg(path)
            .arg(SIZE.to_string())
            .output()?;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let ordinary = MemfdShMemProvider::new()?.shmem_from_bytes(&[5; SIZE])?;
    assert_eq!(attack(ordinary.id())?, ON_ORDINARY);
    let segment = single_writer()?;
    assert_eq!(attack(segment.id())?, Vec::<String>::new());
    assert!(segment.iter().all(|&byte| byte == 5));
    let frozen = segment.freeze()?;
    assert_eq!(attack(frozen.id())?, Vec::<String>::new());
    assert_eq!(frozen.as_frozen(), Some(&[5; SIZE][..]));
    Ok(())
}

pub(crate) fn nobody_but_the_single_writer_can_change_its_segment() -> Outcome {
    natively("which reports success for advice that it ignores")?;
    let mut segment = single_writer()?;
    let id = segment.id();
    let path = public_path(id)?;
    assert_eq!(attack(id, &path)?, Vec::<String>::new());
    assert!(segment.iter().all(|&byte| byte == 5));
    // The same through the descriptor of a reader, and after the writer has gone.
    let reader = StdShMemProvider::new()?.shmem_from_id_read_only(id)?;
    segment.fill(6);
    assert_eq!(bytes(&reader), [6; SIZE]);
    drop(segment);
    let path = public_path(id)?;
    let mut succeeded = attack(id, &path)?;
    // Without a writer, a peer can freeze it.
    succeeded.retain(|attempt| attempt != "seal writes");
    assert_eq!(succeeded, Vec::<String>::new());
    assert_eq!(bytes(&reader), [6; SIZE]);
    Ok(())
}

pub(crate) fn nobody_can_change_a_frozen_segment() -> Outcome {
    natively("which reports success for advice that it ignores")?;
    let segment = single_writer()?;
    let id = segment.id();
    let before = StdShMemProvider::new()?.shmem_from_id_read_only(id)?;
    assert_eq!(before.as_frozen(), None);
    let frozen = segment.freeze()?;
    for reader in [&before, &frozen] {
        assert_eq!(reader.as_frozen(), Some(&[5; SIZE][..]));
    }
    assert_eq!(attack(id, &public_path(id)?)?, Vec::<String>::new());
    assert_eq!(bytes(&before), [5; SIZE]);
    Ok(())
}

/// What a peer does: holds a segment for reading until it ends.
pub(crate) fn hold_read_only(id: &str) -> Answer {
    let reader = StdShMemProvider::new()?.shmem_from_id_read_only(ShMemId::from_string(id))?;
    std::mem::forget(reader);
    Ok(String::new())
}

/// An ordinary segment, too, opens for writing through a holder that only reads.
pub(crate) fn an_id_opens_through_a_reader_alone() -> Outcome {
    let mut p = MemfdShMemProvider::new()?;
    let segment = p.shmem_from_bytes(&[5; SIZE])?;
    let id = segment.id();
    let mut reader = Peer::start();
    reader.execute(format!("read-only {id}"))?;
    drop(segment);
    p.shmem_from_id(id)?.fill(6);
    assert_eq!(bytes(&p.shmem_from_id_read_only(id)?), [6; SIZE]);
    Ok(())
}

pub(crate) fn a_reader_attaches_from_the_environment() -> Outcome {
    let segment = single_writer()?;
    let frozen = segment.freeze()?;
    let mut command = Peer::command();
    frozen.hand_over(&mut command, "SHMEM_READ_ONLY")?;
    assert_eq!(
        Peer::started(&mut command).ask("read-only-env SHMEM_READ_ONLY")?,
        "5"
    );
    Ok(())
}

/// What a peer does: returns the last byte of the segment in the environment.
pub(crate) fn read_from_env(name: &str) -> Answer {
    let reader = StdShMemProvider::new()?.existing_from_env_read_only(name)?;
    let last = reader.access().load_u8(reader.len() - 1, Acquire)?;
    Ok(last.to_string())
}

/// A peer that maps every new file of this process for writing before it is sealed is noticed.
pub(crate) fn a_mapping_from_before_the_seal_is_noticed() -> Outcome {
    drop(single_writer()?);
    let mut peer = Peer::start();
    let attacker = peer.pid();
    peer.send(&format!("map-everything {}", std::process::id()));
    let mut p = MemfdShMemProvider::new()?;
    let mut segments = Vec::new();
    for _ in 0..300 {
        // It is an error if the peer is faster each time.
        if let Ok((segment, _)) = p.new_shmem_with(4096, options()) {
            segments.push(segment);
        }
    }
    let maps = fs::read_to_string(format!("/proc/{attacker}/maps"))?;
    let writable: HashSet<&str> = maps
        .lines()
        .filter(|line| line.contains(" rw-s "))
        .filter_map(|line| line.split("/memfd:shmem-").nth(1)?.split(' ').next())
        .collect();
    peer.kill();
    for segment in &segments {
        let id = segment.id();
        assert!(
            !writable.contains(&id.as_str()[8..]),
            "{id} was mapped before"
        );
    }
    Ok(())
}

/// What a peer does until it is killed: maps the files of a process for writing.
pub(crate) fn map_everything(pid: &str) -> Answer {
    let mut seen = HashSet::new();
    let directory = format!("/proc/{pid}/fd");
    loop {
        for entry in fs::read_dir(&directory)?.flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            if !link.to_string_lossy().starts_with("/memfd:shmem-") {
                continue;
            }
            let Ok(file) = File::options().read(true).write(true).open(entry.path()) else {
                continue;
            };
            if !seen.insert(file.metadata()?.ino()) {
                continue;
            }
            let both = libc::PROT_READ | libc::PROT_WRITE;
            let shared = libc::MAP_SHARED;
            // SAFETY: the kernel chooses the address, and nothing refers to the mapping.
            unsafe { libc::mmap(ptr::null_mut(), 4096, both, shared, file.as_raw_fd(), 0) };
        }
    }
}

/// Reading from a hole of a file in `/dev/shm` takes memory, too, and would raise SIGBUS if there were none.
pub(crate) fn sparse_files_are_reserved_for_readers() -> Outcome {
    let mut p = MmapShMemProvider::new()?;
    if let Err(error) = p.new_shmem(1) {
        return if_lacking(error);
    }
    let name = format!("/sparse-{}", std::process::id());
    let path = format!("/dev/shm{name}");
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    file.set_len(SIZE as u64)?;
    let reader = p.shmem_from_id_read_only(ShMemId::from_string(&name));
    let removed = fs::remove_file(path);
    assert_eq!(bytes(&reader?), [0; SIZE]);
    assert!(file.metadata()?.blocks() * 512 >= SIZE as u64);
    Ok(removed?)
}

/// A reader counts as a holder, although it has the file open for reading only.
pub(crate) fn a_pool_leaves_segments_to_their_readers() -> Outcome {
    let pools = [Mechanism::Memfd, Mechanism::SystemV]
        .map(|mechanism| ShMemPool::over(StdShMemProvider::with_mechanism(mechanism), 4, 8 * SIZE));
    for mut pool in pools {
        let mut segment = pool.new_shmem(SIZE)?;
        segment.fill(5);
        let id = segment.id();
        let reader = StdShMemProvider::new()?.shmem_from_id_read_only(id)?;
        let mut peer = Peer::start();
        peer.execute(format!("read-only {id}"))?;
        drop(segment);
        assert_ne!(pool.new_shmem(SIZE)?.id(), id);
        assert_eq!(bytes(&reader), [5; SIZE]);
        drop(reader);
        assert_ne!(pool.new_shmem(SIZE)?.id(), id);
        peer.kill();
        let again = [pool.new_shmem(SIZE)?, pool.new_shmem(SIZE)?];
        assert!(
            again.iter().any(|segment| segment.id() == id),
            "it is not reused"
        );
    }
    Ok(())
}
