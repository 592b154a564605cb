//! Regions: their ids, their sizes, and how long they live.
#![allow(unsafe_code)]

use std::error::Error as AnyError;
use std::path::{Path, PathBuf};
use std::{env, fs};

use shmem_providers::{
    AshmemBackend, AshmemShMemProvider, Error, ServedShMem, ServedShMemProvider, ShMem, ShMemId,
    ShMemProvider,
};

use testkit::peer::Peer;
use testkit::{Outcome, if_lacking, open_files, skip};

type Provider = ServedShMemProvider<AshmemBackend>;

/// Returns a provider, or skips the test if there is no ashmem.
fn requires_ashmem() -> Outcome<AshmemShMemProvider> {
    let mut provider = AshmemShMemProvider::default();
    match provider.new_shmem(1) {
        Ok(_) => Ok(provider),
        Err(error) => if_lacking(error),
    }
}

/// The second process. Its commands are `at PATH`, `make SIZE`, `open ID`, `put OFFSET BYTE` and `get OFFSET`.
pub(crate) fn serve() {
    let (mut provider, mut segments) = (Provider::default(), Vec::new());
    testkit::peer::serve(|command| execute(&mut provider, &mut segments, command));
}

fn execute(
    provider: &mut Provider,
    segments: &mut Vec<ServedShMem<AshmemBackend>>,
    command: &[&str],
) -> Result<String, Box<dyn AnyError>> {
    let newest = segments.last_mut().ok_or("no segment");
    match *command {
        ["at", path] => *provider = Provider::at(path),
        ["make", size] => {
            let segment = provider.new_shmem(size.parse()?)?;
            let id = segment.id().to_string();
            segments.push(segment);
            return Ok(id);
        }
        ["open", id] => {
            let segment = provider.shmem_from_id(ShMemId::from_string(id))?;
            let size = segment.len().to_string();
            segments.push(segment);
            return Ok(size);
        }
        ["put", offset, byte] => newest?
            .access()
            .write_at(offset.parse()?, &[byte.parse()?])?,
        ["get", offset] => {
            let mut byte = [0];
            newest?.access().read_at(offset.parse()?, &mut byte)?;
            return Ok(byte[0].to_string());
        }
        _ => return Err(format!("unknown command {command:?}").into()),
    }
    Ok(String::new())
}

fn peer(address: &Path) -> Peer {
    let mut peer = Peer::start();
    peer.execute(format!("at {}", address.display()))
        .expect("creating a provider cannot fail");
    peer
}

pub(crate) fn an_id_alone_opens_nothing() -> Outcome {
    let mut provider = requires_ashmem()?;
    let segment = provider.new_shmem(100)?;
    assert!(segment.id().is_empty());
    let error = provider.shmem_from_id(segment.id()).expect_err("no name");
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    let id = ShMemId::from_string("a123456789012345678");
    let error = provider.shmem_from_id(id).expect_err("no id");
    assert!(matches!(error, Error::InvalidId { .. }), "{error:?}");
    Ok(())
}

pub(crate) fn a_region_has_its_size_and_is_close_on_exec() -> Outcome {
    let mut provider = requires_ashmem()?;
    let before = open_files();
    for size in [1, 4096, 5000, 1 << 20] {
        let mut made = provider.new_shmem(size)?;
        assert_eq!((made.len(), made.iter().max()), (size, Some(&0)));
        made[size - 1] = 1;
        let mut other = provider.clone_ref(&made)?;
        assert_eq!((other.len(), other[size - 1]), (size, 1));
        other[0] = 2;
        assert_eq!(made[0], 2);
    }
    assert_eq!(open_files(), before);
    let kept = provider.new_shmem(100)?;
    let mut list = std::process::Command::new("ls");
    let output = list.args(["-l", "/proc/self/fd"]).output()?;
    assert!(output.status.success());
    let inherited = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!inherited.contains("ashmem"), "{inherited}");
    drop(kept);
    Ok(())
}

pub(crate) fn a_child_shares_what_its_parent_made() -> Outcome {
    let mut made = requires_ashmem()?.new_shmem(100)?;
    // SAFETY: the child only writes to memory and ends.
    match unsafe { libc::fork() } {
        0 => {
            made[7] = 9;
            // SAFETY: the call has no preconditions.
            unsafe { libc::_exit(0) }
        }
        child => {
            // SAFETY: the pointer to the status may be null.
            let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            assert_eq!(ended, child);
        }
    }
    assert_eq!(made[7], 9);
    Ok(())
}

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    let _ = requires_ashmem()?;
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let (mut creator, mut holder) = (peer(&address), peer(&address));
    let id = creator.ask("make 100000")?;
    creator.ask("put 99999 3")?;
    assert_eq!(holder.ask(format!("open {id}"))?, "100000");
    // This also ends the service, which the creator hosts.
    creator.kill();
    let mut late = peer(&address);
    assert_eq!(late.ask(format!("open {id}"))?, "100000");
    assert_eq!(late.ask("get 99999")?, "3");
    late.ask("put 0 4")?;
    assert_eq!(holder.ask("get 0")?, "4");
    holder.kill();
    assert_eq!(late.ask("get 99999")?, "3");
    late.kill();
    let id = ShMemId::from_string(&id);
    let opened = Provider::at(&address).shmem_from_id(id);
    assert!(opened.is_err_and(|error| error.is_not_found()));
    Ok(())
}

pub(crate) fn regions_beyond_31_bits_work() -> Outcome {
    const SIZE: usize = 5 << 30;
    let mut provider = requires_ashmem()?;
    let mut made = match provider.new_shmem(SIZE) {
        Ok(made) => made,
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => return skip(error),
        Err(error) => return Err(error.into()),
    };
    made[SIZE - 1] = 1;
    let clone = provider.clone_ref(&made)?;
    assert_eq!((clone.len(), clone[SIZE - 1]), (SIZE, 1));
    Ok(())
}

pub(crate) fn more_than_a_region_has_is_refused() -> Outcome {
    let _ = requires_ashmem()?;
    let directory = tempfile::tempdir()?;
    let address = directory.path().join("service");
    let mut creator = peer(&address);
    let id = ShMemId::from_string(&creator.ask("make 5000")?);
    for asked in [5001, 8192, usize::MAX / 2] {
        let opened = Provider::at(&address).shmem_from_id_and_size(id, asked);
        let actual = 5000;
        assert_eq!(opened.err(), Some(Error::TooLarge { asked, actual }));
    }
    Ok(())
}

pub(crate) fn device_named_after_the_boot_id_is_found() -> Outcome {
    let mut provider = requires_ashmem()?;
    if env::var_os("SHMEM_TEST_MACHINE").is_none() {
        return skip("tests may not rename the device of this machine");
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let name = PathBuf::from(format!("/dev/ashmem{}", boot_id.trim()));
    fs::rename("/dev/ashmem", &name)?;
    let made = provider.new_shmem(4096);
    fs::rename(&name, "/dev/ashmem")?;
    assert_eq!(made?.len(), 4096);
    // The provider notices that the device was renamed again.
    assert_eq!(provider.new_shmem(4097)?.len(), 4097);
    Ok(())
}
