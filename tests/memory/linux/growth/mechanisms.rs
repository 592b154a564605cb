//! Growth over single mechanisms.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use shmem_providers::{
    Error, Mechanism, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, PosixBackend,
    ServedShMemProvider, ShMem, ShMemOptions, ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

use super::peer::GrowthCommands;
use super::{MAX, SIZE, growable};
use crate::linux::peer::Peer;
use testkit::{Outcome, if_lacking, page_size};

/// POSIX memory of a service has no name, so its mode alone tells that it can grow.
pub(crate) fn served_posix_segments_grow() -> Outcome {
    let mut p = ServedShMemProvider::<PosixBackend>::new()?;
    let mut segment = growable(&mut p)?;
    let mut peer = Peer::start();
    segment.grow_to(7000)?;
    peer.execute(format!("grow open served_posix {}", segment.id()))?;
    assert_eq!(peer.state().len, 7000);
    peer.grow_to(MAX)?;
    peer.touch()?;
    assert_eq!(segment.committed(), MAX);
    segment.grow_to(MAX)?;
    assert_eq!(segment[MAX - page_size()], 1);
    Ok(())
}

/// The service registers the whole object, of which less may be committed.
pub(crate) fn a_service_takes_over_descriptors_of_segments_that_grow() -> Outcome {
    let mut segment = growable(&mut MemfdShMemProvider::new()?)?;
    segment[99] = 7;
    let mut p = ServedShMemProvider::<MemfdBackend>::new()?;
    let received = p.shmem_from_fd(segment.as_fd().try_clone_to_owned()?)?;
    let mut opened = p.shmem_from_id(received.id())?;
    assert_eq!(
        (opened.len(), opened.reserved(), opened[99]),
        (SIZE, MAX, 7)
    );
    opened.grow_to(MAX)?;
    assert_eq!((segment.committed(), received.committed()), (MAX, MAX));
    Ok(())
}

/// A program that is killed leaves no name, whether or not its segment could grow.
pub(crate) fn orphans_that_could_grow_are_removed() -> Outcome {
    let mut peer = Peer::start();
    let id = peer.ask(format!("grow new posix {SIZE} {MAX}"))?;
    assert!(testkit::name_exists(&id));
    peer.kill();
    MmapShMemProvider::remove_orphans()?;
    assert!(!testkit::name_exists(&id));

    // One that persists does so, and can grow.
    let mut p = MmapShMemProvider::new()?;
    let segment = growable(&mut p)?.persist()?;
    let id = segment.id();
    drop(segment);
    MmapShMemProvider::remove_orphans()?;
    let mut attached = p.shmem_from_id(id)?;
    MmapShMemProvider::remove(id)?;
    assert_eq!((attached.len(), attached.reserved()), (SIZE, MAX));
    attached.grow_to(MAX)?;
    Ok(())
}

pub(crate) fn system_v_segments_refuse_to_grow() -> Outcome {
    let options = ShMemOptions::new().reserve(MAX);
    let by_default = StdShMemProvider::with_mechanism(Mechanism::SystemV);
    for refused in [
        UnixShMemProvider::new()?
            .new_shmem_with(SIZE, options)
            .err(),
        by_default.clone().new_shmem_with(SIZE, options).err(),
    ] {
        assert!(
            matches!(&refused, Some(Error::Unsupported { what }) if what.contains("System V")),
            "{refused:?}"
        );
    }
    let segment = UnixShMemProvider::new()?.new_shmem(SIZE);
    let mut segment = segment.or_else(if_lacking)?;
    let (asked, reserved) = (SIZE + 1, SIZE);
    let refused = segment.grow_to(asked);
    assert_eq!(refused, Err(Error::NotReserved { asked, reserved }));
    Ok(())
}

/// The default takes a mechanism that can grow. A forked child inherits the mapping, and can grow it too.
pub(crate) fn the_default_chooses_a_mechanism_that_grows() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let segment = growable(&mut p)?;
    assert_ne!(segment.mechanism(), Some(Mechanism::SystemV));
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = growable(&mut p)?;
    // SAFETY: the child makes system calls only, and ends without running anything else.
    let child = unsafe { testkit::fork() };
    if child == 0 {
        let grown = segment.grow_to(MAX);
        // SAFETY: the child ends at once.
        unsafe { libc::_exit(i32::from(grown.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((ended, status), (child, 0));
    assert_eq!(segment.committed(), MAX);
    Ok(())
}
