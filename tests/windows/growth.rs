//! Sections that grow.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use shmem_providers::{
    Error, OptionStatus, ShMem, ShMemOptions, ShMemProvider, StdShMem, StdShMemProvider,
};

use crate::peer::Peer;
use testkit::Outcome;

const PAGE: usize = 4096;
const SIZE: usize = 100;
const MAX: usize = 16 << 20;

fn growable() -> Outcome<StdShMem> {
    let options = ShMemOptions::new().prefault().reserve(MAX);
    let (segment, report) = StdShMemProvider::new()?.new_shmem_with(SIZE, options)?;
    assert!(matches!(report.prefault, OptionStatus::Refused(_)));
    Ok(segment)
}

pub(crate) fn a_section_grows_where_it_is() -> Outcome {
    let mut segment = growable()?;
    let start = segment.as_ptr();
    assert_eq!((segment.len(), segment.reserved()), (SIZE, MAX));
    let mut peer = Peer::start();
    assert_eq!(
        peer.ask(format!("open {}", segment.id()))?,
        SIZE.to_string()
    );
    segment.fill(1);
    for len in [SIZE + 1, PAGE + 1, 5 << 20, MAX] {
        let old = segment.len();
        segment.grow_to(len)?;
        assert_eq!(
            (segment.as_ptr(), segment.len(), segment.committed()),
            (start, len, len)
        );
        assert!(segment[..old].iter().all(|&byte| byte == 1));
        assert!(segment[old..].iter().all(|&byte| byte == 0));
        segment.fill(1);
        assert!(peer.ask(format!("get {}", len - 1)).is_err());
        assert_eq!(peer.ask("committed")?, len.to_string());
        assert_eq!(peer.ask(format!("grow {len}"))?, len.to_string());
        assert_eq!(peer.ask(format!("get {}", len - 1))?, "1");
        // One that attaches now gets the same.
        let mut second = Peer::start();
        let opened = second.ask(format!("open {}", segment.id()))?;
        assert_eq!(opened, len.to_string());
        assert_eq!(second.ask(format!("get {}", len - 1))?, "1");
    }
    Ok(())
}

pub(crate) fn another_process_grows_a_section() -> Outcome {
    let mut segment = growable()?;
    let mut peer = Peer::start();
    peer.execute(format!("open {} 10", segment.id()))?;
    peer.ask(format!("grow {}", 3 << 20))?;
    peer.execute(format!("put {} 9", (3 << 20) - 1))?;
    peer.kill();
    assert_eq!((segment.len(), segment.committed()), (SIZE, 3 << 20));
    segment.grow_to(segment.committed())?;
    assert_eq!(segment[(3 << 20) - 1], 9);
    Ok(())
}

pub(crate) fn no_section_grows_beyond_its_reservation() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    let mut segment = growable()?;
    let (asked, reserved) = (MAX + 1, MAX);
    let beyond = Err(Error::NotReserved { asked, reserved });
    assert_eq!(segment.grow_to(asked), beyond);
    let (asked, actual) = (SIZE + 1, SIZE);
    assert_eq!(
        provider.shmem_from_id_and_size(segment.id(), asked).err(),
        Some(Error::TooLarge { asked, actual })
    );
    let mut ordinary = provider.new_shmem(3 * PAGE)?;
    ordinary.fill(255);
    let mut attached = provider.shmem_from_id(ordinary.id())?;
    assert_eq!((attached.len(), attached.reserved()), (3 * PAGE, 3 * PAGE));
    assert!(attached.grow_to(3 * PAGE + 1).is_err());
    Ok(())
}

/// Whatever a peer states, nobody uses memory that is not committed, which would end the process.
pub(crate) fn nonsense_about_the_committed_size_is_harmless() -> Outcome {
    let mut provider = StdShMemProvider::new()?;
    for value in [0, 1, PAGE, MAX, MAX + 1, MAX + PAGE, usize::MAX] {
        let mut segment = growable()?;
        let last = segment.as_ptr().expose_provenance() + MAX + 2 * PAGE - size_of::<usize>();
        let cell = std::ptr::with_exposed_provenance_mut::<usize>(last);
        // SAFETY: the view ends with this atomic number, and lives as long as the segment.
        unsafe { AtomicUsize::from_ptr(cell) }.store(value, SeqCst);
        let committed = segment.committed();
        assert!((SIZE..=MAX).contains(&committed), "{value}: {committed}");
        match provider.shmem_from_id(segment.id()) {
            Ok(mut attached) => attached.fill(2),
            Err(error) => assert!(matches!(error, Error::Foreign { .. }), "{error}"),
        }
        segment.grow_to(committed)?;
        segment.fill(1);
    }
    Ok(())
}
