//! `Shared`, `SharedRef`, `SharedLayout`, `Typed`: everything here is safe code, and stays so.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize,
};
use std::thread;

use proptest::prelude::*;
use shmem_providers::error::TypeMismatch;
use shmem_providers::{
    Access, Error, ErrorKind, NopShMem, NopShMemProvider, RcShMemProvider, ShMem, ShMemProvider,
    Shared, SharedLayout, SharedRef, Typed,
};

fn shared(size: usize) -> Shared<NopShMem> {
    NopShMemProvider.new_shmem(size).unwrap().share()
}

#[test]
fn only_the_last_owner_gets_the_segment_back() {
    let shared = shared(64);
    shared.access().fill(7);
    let clone = shared.clone();
    let shared = shared.try_into_segment().unwrap_err();
    drop(clone);
    let reference = shared.view::<AtomicU8>(63).unwrap();
    let other = reference.clone();
    let shared = shared.try_into_segment().unwrap_err();
    drop(reference);
    let shared = shared.try_into_segment().unwrap_err();
    assert_eq!(other.load(Relaxed), 7);
    drop(other);
    assert_eq!(shared.try_into_segment().unwrap()[..], [7; 64]);
}

#[test]
fn a_reference_outlives_the_segment_it_came_from() {
    let reference = shared(64).view::<[AtomicU16; 32]>(0).unwrap();
    let last = reference.clone().map(|values| &values[31]);
    last.store(5, Relaxed);
    assert_eq!(reference[31].load(Relaxed), 5);
    assert_eq!(reference.segment().size, 64);
    drop(reference);
    assert_eq!(last.load(Relaxed), 5);
}

#[test]
fn threads_use_one_segment_at_the_same_time() {
    const TURNS: u64 = 20_000;

    let shared = shared(4096);
    let counter: SharedRef<AtomicU64> = shared.view(0).unwrap();
    let threads: Vec<_> = (0..4_u8)
        .map(|mark| {
            let (counter, shared) = (counter.clone(), shared.clone());
            thread::spawn(move || {
                for _ in 0..TURNS {
                    counter.fetch_add(1, Relaxed);
                    shared.access().write_at(64, &[mark; 600]).unwrap();
                    let mut copy = [9; 600];
                    shared.access().read_at(64, &mut copy).unwrap();
                    assert!(copy.iter().all(|&byte| byte < 4));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(counter.load(Relaxed), 4 * TURNS);
}

#[test]
fn it_can_be_sent_to_threads_and_tasks() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Shared<NopShMem>>();
    check::<SharedRef<AtomicU64>>();
    check::<SharedRef<[AtomicU64]>>();
    check::<Typed<AtomicU64>>();
    check::<Shared<<RcShMemProvider<NopShMemProvider> as ShMemProvider>::ShMem>>();
}

#[test]
fn a_released_segment_is_shared_without_bytes() {
    let mut segment = NopShMemProvider.new_shmem(64).unwrap();
    NopShMemProvider.release_shmem(&mut segment);
    let shared = segment.share();
    assert!(shared.is_empty());
    assert!(shared.view::<AtomicU8>(0).is_err());
    assert!(shared.view_slice::<AtomicU8>(0, 0).unwrap().is_empty());
}

proptest! {
    /// Whatever the offset and the count, exactly these bytes are referred to, or none.
    #[test]
    fn views_are_within_the_segment_and_aligned(
        offset in prop_oneof![0_usize..80, any::<usize>()],
        count in prop_oneof![0_usize..20, any::<usize>()],
    ) {
        let shared = shared(64);
        let access = shared.access();
        let len = count.saturating_mul(4);
        let fits = offset.checked_add(len).is_some_and(|end| end <= 64);
        match access.view_slice::<AtomicU32>(offset, count) {
            Ok(values) => {
                prop_assert!(fits && offset % 4 == 0);
                prop_assert_eq!(values.len(), count);
                for value in values {
                    value.store(0x0101_0101, Relaxed);
                }
                let mut bytes = [0; 64];
                access.read_at(0, &mut bytes).unwrap();
                let mut expected = [0; 64];
                expected[offset..offset + len].fill(1);
                prop_assert_eq!(bytes, expected);
            }
            Err(Error::Misaligned { align: 4 }) => prop_assert!(fits && offset % 4 != 0),
            Err(error) => {
                prop_assert_eq!(error, Error::OutOfBounds { offset, len, size: 64 });
                prop_assert!(!fits);
            }
        }
    }
}

#[test]
fn all_atomics_but_pointers_are_shared_in_place() {
    #[derive(SharedLayout)]
    #[repr(C, align(16))]
    struct All {
        bytes: AtomicsOf8,
        small: [AtomicI16; 3],
        u16: AtomicU16,
        i32: AtomicI32,
        u32: AtomicU32,
        i64: AtomicI64,
        u64: AtomicU64,
        isize: AtomicIsize,
        usize: AtomicUsize,
    }
    #[derive(SharedLayout)]
    #[repr(transparent)]
    struct AtomicsOf8([AtomicI8; 2]);

    let mut segment = NopShMemProvider.new_shmem(4096).unwrap();
    // Segments on the heap are aligned to 8 only.
    let offset = segment.as_ptr().align_offset(align_of::<All>());
    let access = segment.access();
    let all = access.view::<All>(offset).unwrap();
    all.bytes.0[1].store(-1, Relaxed);
    all.small[2].store(-2, Relaxed);
    all.u16.store(2, Relaxed);
    all.i32.store(-4, Relaxed);
    all.u32.store(4, Relaxed);
    all.i64.store(-8, Relaxed);
    all.u64.store(8, Relaxed);
    all.isize.store(-9, Relaxed);
    all.usize.store(9, Relaxed);
    let again = access.view::<All>(offset).unwrap();
    assert_eq!(again.bytes.0[1].load(Relaxed), -1);
    assert_eq!(again.isize.load(Relaxed), -9);
    assert_eq!(again.i64.load(Relaxed), -8);
}

/// The standard library promises less than it does: that a byte is 0 or 1. Another process may have
/// written any byte, and this is how it is read.
#[test]
fn every_byte_but_zero_is_true() {
    let mut segment = NopShMemProvider.new_shmem(8).unwrap();
    for byte in 0..=u8::MAX {
        let access = segment.access();
        access.fill(byte);
        let flag = access.view::<AtomicBool>(3).unwrap();
        assert_eq!(flag.load(Relaxed), byte != 0, "{byte}");
        assert_eq!(flag.swap(true, Acquire), byte != 0, "{byte}");
        access.fill(byte);
        assert_eq!(flag.fetch_and(true, Release), byte != 0, "{byte}");
    }
}

#[test]
fn bytes_in_a_structure_are_copied_like_a_segment() {
    #[derive(SharedLayout)]
    #[repr(C)]
    struct Frame {
        sequence: AtomicU64,
        pixels: [AtomicU8; 1000],
    }

    let frame = shared(4096).view::<Frame>(8).unwrap();
    Access::from(&frame.pixels[..])
        .write_at(990, &[3; 10])
        .unwrap();
    frame.sequence.store(1, Release);
    assert_eq!(
        (
            frame.pixels[989].load(Relaxed),
            frame.pixels[999].load(Relaxed)
        ),
        (0, 3)
    );
    assert!(
        Access::from(&frame.pixels[..])
            .write_at(991, &[3; 10])
            .is_err()
    );
}

#[derive(Debug, SharedLayout)]
#[repr(C)]
struct Position {
    x: AtomicU32,
    y: AtomicU32,
}

#[test]
fn values_of_other_types_have_other_fingerprints() {
    #[derive(SharedLayout)]
    #[repr(C)]
    struct Swapped {
        y: AtomicU32,
        x: AtomicU32,
    }
    #[derive(SharedLayout)]
    #[repr(C)]
    struct Signed {
        x: AtomicI32,
        y: AtomicU32,
    }
    #[derive(SharedLayout)]
    #[repr(C)]
    struct Generic<T: Sync, const N: usize>
    where
        T: Send,
    {
        values: [T; N],
    }

    let mut prints = [
        Position::FINGERPRINT,
        Swapped::FINGERPRINT,
        Signed::FINGERPRINT,
        AtomicU64::FINGERPRINT,
        AtomicI64::FINGERPRINT,
        <[AtomicU32; 2]>::FINGERPRINT,
        <[AtomicU16; 4]>::FINGERPRINT,
        Generic::<AtomicU32, 2>::FINGERPRINT,
        Generic::<AtomicU16, 4>::FINGERPRINT,
        <[[AtomicU8; 2]; 4]>::FINGERPRINT,
        <[[AtomicU8; 4]; 2]>::FINGERPRINT,
    ];
    let count = prints.len();
    prints.sort_unstable();
    assert!(
        prints.windows(2).all(|pair| pair[0] != pair[1]),
        "{count} types: {prints:x?}"
    );
    // It is part of what programs have to agree on, so it never changes.
    assert_eq!(AtomicU64::FINGERPRINT, 0x7de7_e860_7e88_c77d);
}

/// What opening the value as a `T` reports.
fn mismatch<T: SharedLayout>(shared: &Shared<NopShMem>) -> Option<TypeMismatch> {
    match Typed::<T>::in_segment(shared) {
        Ok(_) => None,
        Err(Error::WrongType { mismatch, .. }) => Some(mismatch),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_typed_segment_opens_as_its_own_type_only() {
    // A segment on the heap cannot be opened by its id, but its bytes can be copied.
    let typed = Typed::<Position>::create(&mut NopShMemProvider, |position| {
        assert_eq!(position.y.load(Relaxed), 0);
        position.y.store(3, Relaxed);
    })
    .unwrap();
    assert_eq!(typed.y.load(Relaxed), 3);
    let size = typed.description().size;
    let copy = shared(size);
    assert_eq!(mismatch::<Position>(&copy), Some(TypeMismatch::NotTyped));

    let whole = typed.into_ref();
    drop(whole);
    let provider = &mut NopShMemProvider;
    let shared = header_and(provider, 8);
    assert_eq!(mismatch::<Position>(&shared), None);
    assert_eq!(
        mismatch::<AtomicU32>(&shared),
        Some(TypeMismatch::Size {
            found: 8,
            expected: 4
        })
    );
    assert_eq!(
        mismatch::<AtomicU64>(&shared),
        Some(TypeMismatch::Alignment {
            found: 4,
            expected: 8
        })
    );
    assert_eq!(
        mismatch::<[AtomicU32; 2]>(&shared),
        Some(TypeMismatch::Fields)
    );

    let error = Typed::<[AtomicU32; 2]>::in_segment(&shared).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongType);
    assert!(error.to_string().contains("same definition"), "{error}");
    // A later version.
    shared
        .access()
        .view::<AtomicU32>(4)
        .unwrap()
        .store(2, Relaxed);
    assert_eq!(
        mismatch::<Position>(&shared),
        Some(TypeMismatch::Version { found: 2 })
    );
}

/// Returns a segment with the header of a `Position` and so many bytes behind it.
fn header_and(provider: &mut NopShMemProvider, len: usize) -> Shared<NopShMem> {
    let shared = provider.new_shmem(64 + len).unwrap().share();
    let words = shared.view_slice::<AtomicU32>(0, 8).unwrap();
    let magic = u32::from_ne_bytes(*b"sTyp");
    let low = |print: u64| u32::try_from(print & 0xffff_ffff).unwrap();
    let print = Position::FINGERPRINT;
    for (word, value) in words
        .iter()
        .zip([magic, 1, 8, 0, 4, 0, low(print), low(print >> 32)])
    {
        word.store(value, Relaxed);
    }
    shared
}

#[test]
fn a_header_that_promises_more_than_there_is_is_an_error() {
    for len in 0..8 {
        let shared = match len {
            0 => shared(64),
            len => header_and(&mut NopShMemProvider, len),
        };
        assert!(Typed::<Position>::in_segment(&shared).is_err(), "{len}");
    }
    for size in [1, 4, 31] {
        assert_eq!(
            mismatch::<Position>(&shared(size)),
            Some(TypeMismatch::NotTyped)
        );
    }
}
