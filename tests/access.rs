//! `Access`: bounds, alignment, typed values. With segments on the heap, so that the tests run everywhere.

use proptest::prelude::*;
use shmem_providers::{Error, NopShMem, NopShMemProvider, ShMem, ShMemProvider};
use std::sync::atomic::Ordering::Relaxed;

fn segment(size: usize) -> Result<NopShMem, Error> {
    NopShMemProvider.new_shmem(size)
}

proptest! {
    /// Whatever the offset and the length, exactly these bytes are copied, or none. Long copies use other
    /// instructions than short ones.
    #[test]
    fn copies_are_exact_or_refused(
        size in prop_oneof![1_usize..200, 400_usize..2000],
        offset in prop_oneof![0_usize..210, any::<usize>()],
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..210),
            proptest::collection::vec(any::<u8>(), 500..1500),
        ],
    ) {
        let mut segment = segment(size)?;
        let mut expected = vec![0x55; size];
        segment.fill(0x55);
        let written = segment.access().write_at(offset, &bytes);
        let end = offset.checked_add(bytes.len()).filter(|&end| end <= size);
        let beyond = Error::OutOfBounds { offset, len: bytes.len(), size };
        prop_assert_eq!(written, end.map(|_| ()).ok_or(beyond));
        if let Some(end) = end {
            expected[offset..end].copy_from_slice(&bytes);
        }
        prop_assert_eq!(&segment[..], &expected[..]);

        let mut read = vec![0xaa; bytes.len()];
        let done = segment.access().read_at(offset, &mut read);
        prop_assert_eq!(done.is_ok(), end.is_some());
        match end {
            Some(_) => prop_assert_eq!(&read, &bytes),
            None => prop_assert!(read.iter().all(|&byte| byte == 0xaa)),
        }

        match segment.access().range(offset, bytes.len()) {
            Ok(range) => {
                range.fill(0x77);
                prop_assert_eq!(range.len(), bytes.len());
                prop_assert_eq!(range.is_empty(), bytes.is_empty());
            }
            Err(_) => prop_assert!(end.is_none()),
        }
        if let Some(end) = end {
            expected[offset..end].fill(0x77);
        }
        prop_assert_eq!(&segment[..], &expected[..]);
    }
}

#[test]
fn loads_are_aligned_and_within_the_segment() -> Result<(), Error> {
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};

    let mut segment = segment(20)?;
    for (at, byte) in (0..).zip(segment.iter_mut()) {
        *byte = at;
    }
    let bytes: [u8; 20] = segment[..].try_into().expect("it has 20");
    let access = *segment.access();
    for ordering in [Relaxed, Acquire, Release, AcqRel, SeqCst] {
        assert_eq!(access.load_u8(19, ordering)?, 19);
        assert_eq!(access.load_u16(2, ordering)?, u16::from_ne_bytes([2, 3]));
        let expected = u32::from_ne_bytes([16, 17, 18, 19]);
        assert_eq!(access.load_u32(16, ordering)?, expected);
        #[cfg(target_pointer_width = "64")]
        {
            let expected = u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15]);
            assert_eq!(access.load_u64(8, ordering)?, expected);
        }
    }
    let part = access.range(1, 18)?;
    assert_eq!(part.load_u16(1, Acquire)?, u16::from_ne_bytes([2, 3]));
    assert_eq!(
        part.load_u16(0, Acquire),
        Err(Error::Misaligned { align: 2 })
    );
    assert_eq!(
        access.load_u32(2, Acquire),
        Err(Error::Misaligned { align: 4 })
    );
    for (offset, len) in [(20, 1), (usize::MAX, 1), (19, 2), (17, 4)] {
        let size = 20;
        let beyond = Err(Error::OutOfBounds { offset, len, size });
        let loaded = match len {
            1 => access.load_u8(offset, Acquire).map(u32::from),
            2 => access.load_u16(offset, Acquire).map(u32::from),
            _ => access.load_u32(offset, Acquire),
        };
        assert_eq!(loaded, beyond);
    }
    let mut copy = [0; 20];
    access.read_at(0, &mut copy)?;
    assert_eq!(copy, bytes);
    Ok(())
}

/// A segment on the heap that is only read has an id and stays zeroed.
#[test]
fn heap_segments_can_be_attached_for_reading() -> Result<(), Error> {
    let id = shmem_providers::ShMemId::from_string("any");
    let mut provider = NopShMemProvider;
    assert_eq!(
        provider.shmem_from_id_read_only(id).err(),
        Some(Error::Gone { id })
    );
    let reader = provider.shmem_from_id_and_size_read_only(id, 9)?;
    assert_eq!(
        (reader.id(), reader.len(), reader.description().size),
        (id, 9, 9)
    );
    assert_eq!(reader.access().load_u8(8, Relaxed)?, 0);
    Ok(())
}

#[test]
fn atomics_cover_what_they_fit() -> Result<(), Error> {
    let mut segment = segment(23)?;
    segment[16] = 1;
    let access = segment.access();
    assert_eq!(access.as_atomic_u8().len(), 23);
    assert_eq!(access.as_atomic_u16()?.len(), 11);
    assert_eq!(access.as_atomic_u32()?.len(), 5);
    assert_eq!(access.as_atomic_u64()?.len(), 2);
    assert_eq!(
        access.as_atomic_u16()?[8].load(Relaxed).to_ne_bytes(),
        [1, 0]
    );
    access.as_atomic_u64()?[1].store(u64::MAX, Relaxed);
    assert_eq!(access.as_atomic_u32()?[3].load(Relaxed), u32::MAX);
    assert_eq!(access.as_atomic_u8()[15].load(Relaxed), 255);
    Ok(())
}

#[test]
fn atomics_are_aligned_or_refused() -> Result<(), Error> {
    let mut segment = segment(64)?;
    let access = segment.access();
    for offset in 0..32 {
        let range = access.range(offset, 32)?;
        assert_eq!(range.as_atomic_u16().is_ok(), offset % 2 == 0);
        assert_eq!(range.as_atomic_u32().is_ok(), offset % 4 == 0);
        match range.as_atomic_u64() {
            Ok(words) => assert_eq!((offset % 8, words.len()), (0, 4)),
            Err(error) => assert_eq!(error, Error::Misaligned { align: 8 }),
        }
    }
    Ok(())
}

#[test]
fn the_heap_has_what_was_asked_for() -> Result<(), Error> {
    for size in [1, 7, 8, 9, 4095] {
        let segment = segment(size)?;
        assert_eq!((segment.len(), segment.as_ptr().addr() % 8), (size, 0));
        assert!(segment.iter().all(|&byte| byte == 0));
    }
    assert_eq!(segment(0).err(), Some(Error::InvalidSize { size: 0 }));
    let size = usize::MAX;
    assert_eq!(segment(size).err(), Some(Error::InvalidSize { size }));
    let size = isize::MAX as usize;
    assert!(segment(size).is_err_and(|error| error.to_string().contains(&size.to_string())));
    Ok(())
}

/// The heap guarantees an alignment of 8 bytes. An alignment of a page is rare.
#[test]
fn a_value_that_wants_more_alignment_is_refused() -> Result<(), Error> {
    #[derive(Debug)]
    #[repr(align(4096))]
    struct Page {
        _byte: u8,
    }

    let mut segments = Vec::new();
    for _ in 0..20 {
        match NopShMemProvider.new_on_shmem(Page { _byte: 1 }) {
            Ok(mut segment) => {
                assert!(segment.as_mut_ptr_of::<Page>().is_some());
                segments.push(segment);
                // This moves the next one.
                segments.push(self::segment(24)?);
            }
            Err(error) => {
                assert_eq!(error, Error::Misaligned { align: 4096 });
                return Ok(());
            }
        }
    }
    panic!("twenty segments in a row are aligned to a page: {segments:?}");
}

#[test]
fn the_heap_is_shared_with_nobody() -> Result<(), Error> {
    let mut provider = NopShMemProvider::new()?;
    let mut made = provider.new_shmem(10)?;
    made.fill(1);
    let mut attached = provider.shmem_from_description(made.description())?;
    assert_eq!(attached[..], [0; 10]);
    assert_eq!(provider.clone_ref(&made)?[..], [0; 10]);
    assert!(provider.shmem_from_id(made.id()).is_err());
    provider.release_shmem(&mut attached);
    assert!(attached.is_empty() && attached.access().is_empty());
    Ok(())
}

#[cfg(feature = "zerocopy")]
mod typed {
    use super::*;
    use zerocopy::{FromBytes, Immutable, IntoBytes, TryFromBytes};

    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct Header {
        length: u32,
        kind: [u16; 2],
    }

    /// A type with padding, which may be read but not written.
    #[derive(Debug, FromBytes)]
    #[repr(C)]
    struct Padded {
        small: u8,
        large: u32,
    }

    #[derive(Debug, PartialEq, TryFromBytes, IntoBytes, Immutable)]
    #[repr(u8)]
    enum State {
        Idle = 1,
        Busy = 2,
    }

    #[test]
    fn values_come_back_from_any_offset() -> Result<(), Error> {
        let mut segment = segment(40)?;
        let access = segment.access();
        for offset in 0..=32 {
            let header = Header {
                length: 70_000,
                kind: [1, 2],
            };
            access.write(offset, &header)?;
            assert_eq!(access.read::<Header>(offset)?, header);
        }
        access.write(3, &[5_u64, 6][..])?;
        assert_eq!(access.read::<[u64; 2]>(3)?, [5, 6]);
        Ok(())
    }

    #[test]
    fn values_beyond_the_end_are_refused() -> Result<(), Error> {
        let mut segment = segment(8)?;
        let access = segment.access();
        for offset in [1, 8, 9, usize::MAX] {
            assert!(access.read::<Header>(offset).is_err());
            assert!(access.write(offset, &[7_u64; 1]).is_err());
            assert!(access.try_read::<[bool; 8]>(offset).is_err());
        }
        assert_eq!(access.read::<u64>(0)?, 0);
        Ok(())
    }

    #[test]
    fn padding_is_no_obstacle() -> Result<(), Error> {
        let mut segment = segment(8)?;
        segment.fill(0xff);
        let padded = segment.access().read::<Padded>(0)?;
        assert_eq!((padded.small, padded.large), (0xff, u32::MAX));
        Ok(())
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() -> Result<(), Error> {
        let mut segment = segment(2)?;
        let access = segment.access();
        access.write(1, &State::Busy)?;
        assert_eq!(access.try_read::<State>(1)?, State::Busy);
        assert_eq!(access.try_read::<State>(0), Err(Error::InvalidValue));
        assert_eq!(access.try_read::<bool>(0), Ok(false));
        assert_eq!(access.try_read::<bool>(1), Err(Error::InvalidValue));
        access.write(0, &State::Idle)?;
        assert_eq!(access.try_read::<bool>(0), Ok(true));
        Ok(())
    }
}
