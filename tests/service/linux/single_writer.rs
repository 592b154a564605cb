//! Segments with a single writer whose memory is POSIX shared memory: on Apple's systems the service hands
//! out descriptors that permit reading only. With Apple's rules, all but the kernel's own promises is
//! tested here.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::Ordering::Acquire;
use std::{fs, ptr};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use shmem_providers::{
    Error, FreezeError, OptionStatus, PosixBackend, ReadOnly, ServedShMem, ServedShMemProvider,
    ShMem, ShMemId, ShMemOptions, ShMemProvider,
};

use super::lifetime::{TestDir, eventually};
use super::peer::{Answer, Commands, host_of};
use testkit::{Outcome, becomes_writable, skip};

type Provider = ServedShMemProvider<PosixBackend>;
type Segment = ServedShMem<PosixBackend>;

const SIZE: usize = 5000;

fn options() -> ShMemOptions {
    ShMemOptions::new().single_writer()
}

/// Skips the test where `/proc` opens descriptors again.
fn needs_apple_rules() -> Outcome {
    if cfg!(shmem_apple_rules) {
        return Ok(());
    }
    skip("POSIX segments on Linux have no single writer: make apple-rules")
}

fn single_writer(provider: &mut Provider) -> Outcome<Segment> {
    let (mut segment, report) = provider.new_shmem_with(SIZE, options())?;
    assert_eq!(report.single_writer, OptionStatus::Granted);
    assert!(segment.iter().all(|&byte| byte == 0));
    segment.fill(5);
    Ok(segment)
}

fn bytes<S: ShMem>(reader: &ReadOnly<S>) -> Vec<u8> {
    let mut bytes = vec![0xaa; reader.len()];
    reader.access().read_at(0, &mut bytes).expect("they fit");
    bytes
}

/// How the links of objects start.
const OBJECTS: &str = "/dev/shm/";

/// Returns how a process has objects of POSIX shared memory open, and checks that they have no name.
fn access_modes(process: u32) -> Vec<u32> {
    let fds = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let fds = fds.flatten().filter_map(|fd| {
        let link = fs::read_link(fd.path()).ok()?;
        let name = fd.file_name().into_string().ok()?;
        let link = link.to_string_lossy();
        let is_object = link.starts_with(OBJECTS);
        assert!(!is_object || link.ends_with(" (deleted)"), "{link}");
        is_object.then_some(name)
    });
    fds.filter_map(|number| {
        let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        Some(flags & OFlags::ACCMODE.bits())
    })
    .collect()
}

#[track_caller]
fn assert_read_only(process: u32) {
    let modes = access_modes(process);
    assert!(!modes.is_empty());
    assert_eq!(modes, vec![OFlags::RDONLY.bits(); modes.len()]);
}

/// Where a descriptor can be opened again, the option is an error and leaves nothing.
pub(crate) fn a_single_writer_is_refused_where_descriptors_can_be_reopened() -> Outcome {
    if cfg!(shmem_apple_rules) {
        return skip("with Apple's rules there are single writers");
    }
    let dir = TestDir::new()?;
    let mut peer = dir.peer();
    let error = peer.ask("single-writer refused")?;
    assert!(error.contains("MemfdShMemProvider"), "{error}");
    assert_eq!(access_modes(peer.pid()), []);
    drop(peer);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn no_descriptor_of_a_single_writer_permits_writing() -> Outcome {
    needs_apple_rules()?;
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut writer = dir.peer();
    let id = writer.ask("single-writer create")?;
    for process in [host.pid(), writer.pid()] {
        assert_read_only(process);
    }
    let mut provider = Provider::at(&dir.address);
    let id = ShMemId::from_string(&id);
    let reader = provider.shmem_from_id_read_only(id)?;
    assert_eq!(bytes(&reader), [5; SIZE]);
    for refused in [
        provider.shmem_from_id(id),
        provider.shmem_from_id_and_size(id, 1),
    ] {
        let text = refused.expect_err("it has a writer").to_string();
        assert!(
            text.contains("open it with `shmem_from_id_read_only`"),
            "{text}"
        );
    }
    let mut other = dir.peer();
    other.execute(format!("single-writer read {id}"))?;
    assert_read_only(other.pid());
    drop((reader, provider));
    for peer in [&mut writer, &mut other] {
        peer.execute("single-writer drop")?;
        assert_eq!(access_modes(peer.pid()), []);
    }
    eventually(|| match access_modes(host.pid()).as_slice() {
        [] => Ok(()),
        held => Err(format!("the host holds {held:?}")),
    });
    host.stop_serving()?;
    drop((writer, other, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn the_writer_writes_and_has_no_other_mapping() -> Outcome {
    needs_apple_rules()?;
    let dir = TestDir::new()?;
    let mut provider = Provider::at(&dir.address);
    let mut segment = single_writer(&mut provider)?;
    let reader = provider.shmem_from_id_read_only(segment.id())?;
    segment[4999] = 6;
    assert_eq!(reader.access().load_u8(4999, Acquire)?, 6);
    let refused = provider.clone_ref(&segment).map(drop);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    // One that has to grow later is refused, and so is an attachment that asks for a single writer.
    for refused in [
        provider.new_shmem_with(SIZE, options().reserve(1 << 20)),
        provider.shmem_from_id_with(segment.id(), None, options()),
    ] {
        let refused = refused.map(drop);
        assert!(
            matches!(refused, Err(Error::Unsupported { .. })),
            "{refused:?}"
        );
    }
    // An ordinary segment of the same provider is as before.
    let mut ordinary = provider.new_shmem(SIZE)?;
    ordinary[0] = 1;
    assert_eq!(provider.shmem_from_id(ordinary.id())?[0], 1);
    drop((segment, reader, ordinary, provider));
    dir.assert_nothing_left();
    Ok(())
}

/// The handles that the new host gets permit reading only, too.
pub(crate) fn a_new_host_hands_out_no_more_than_the_old_one() -> Outcome {
    needs_apple_rules()?;
    let dir = TestDir::new()?;
    let host = dir.host();
    let mut writer = dir.peer();
    let id = writer.ask("single-writer create")?;
    let id = ShMemId::from_string(&id);
    host.kill();
    // A process does not see its own locks, so a peer comes first.
    let mut other = dir.peer();
    eventually(|| other.execute(format!("single-writer read {id}")));
    let new = host_of(&dir.address).ok_or("no process serves")?;
    for process in [new, writer.pid(), other.pid()] {
        assert_read_only(process);
    }
    let mut provider = Provider::at(&dir.address);
    let reader = provider.shmem_from_id_read_only(id)?;
    assert_eq!(bytes(&reader), [5; SIZE]);
    let refused = provider.shmem_from_id(id).map(drop);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    // The reader holds it when its writer is gone.
    writer.kill();
    assert_eq!(bytes(&reader), [5; SIZE]);
    eventually(|| {
        let again = provider.shmem_from_id_read_only(id);
        again.map(drop).map_err(|error| error.to_string())
    });
    drop((reader, provider, other));
    dir.assert_nothing_left();
    Ok(())
}

/// The writer gives up its mapping. That no child has it, nobody but the writer can know.
pub(crate) fn a_writer_can_give_up_its_permission() -> Outcome {
    needs_apple_rules()?;
    let dir = TestDir::new()?;
    let mut provider = Provider::at(&dir.address);
    let segment = single_writer(&mut provider)?;
    let id = segment.id();
    let reader = provider.shmem_from_id_read_only(id)?;
    let early = reader.freeze();
    assert!(matches!(early, Err(Error::Unsupported { .. })), "{early:?}");
    let frozen = segment.freeze()?;
    assert!(!becomes_writable(frozen.as_ptr()));
    assert_eq!((bytes(&frozen), frozen.as_frozen()), (vec![5; SIZE], None));
    assert_eq!(reader.as_frozen(), None);
    let refused = provider.shmem_from_id(id).map(drop);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    // Ordinary segments are not frozen.
    let ordinary = provider.new_shmem(SIZE)?;
    match ordinary.freeze() {
        Err(FreezeError::Unchanged(mut kept, Error::Unsupported { .. })) => kept[0] = 1,
        other => return Err(format!("{other:?}").into()),
    }
    drop((frozen, reader, provider));
    dir.assert_nothing_left();
    Ok(())
}

/// What a peer has.
#[derive(Default)]
pub(crate) struct Held {
    writer: Option<Segment>,
    reader: Option<ReadOnly<Segment>>,
}

/// What a peer does: creates a segment with a single writer, reads one, or drops both.
pub(crate) fn execute(held: &mut Held, address: &Path, command: &[&str]) -> Answer {
    let mut provider = Provider::at(address);
    match *command {
        ["refused"] => match provider.new_shmem_with(SIZE, options()) {
            Err(error @ Error::Unsupported { .. }) => return Ok(error.to_string()),
            other => return Err(format!("{other:?}").into()),
        },
        ["create"] => {
            let created = single_writer(&mut provider).map_err(|error| format!("{error:?}"))?;
            let id = created.id().to_string();
            held.writer = Some(created);
            return Ok(id);
        }
        ["read", id] => {
            let reader = provider.shmem_from_id_read_only(ShMemId::from_string(id))?;
            if becomes_writable(reader.as_ptr()) {
                return Err("mprotect made it writable".into());
            }
            if bytes(&reader) != [5; SIZE] {
                return Err("it has other bytes".into());
            }
            held.reader = Some(reader);
            map_all_for_writing()?;
        }
        _ => *held = Held::default(),
    }
    Ok(String::new())
}

/// Fails if one of the objects that this process has open can be mapped for writing.
fn map_all_for_writing() -> Result<(), Box<dyn std::error::Error>> {
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        if !fs::read_link(entry.path()).is_ok_and(|link| link.starts_with(OBJECTS)) {
            continue;
        }
        let number: i32 = entry.file_name().to_string_lossy().parse()?;
        // SAFETY: the segments keep the descriptor open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // Ignored by the system.
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::RDWR)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), SIZE, prot, libc::MAP_SHARED, number, 0) };
        if mapped != libc::MAP_FAILED {
            return Err("it was mapped for writing".into());
        }
    }
    Ok(())
}
