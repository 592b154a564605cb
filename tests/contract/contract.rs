//! The rules of the contract.
#![allow(clippy::unnecessary_wraps, reason = "all rules have one type")]

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use shmem_providers::{Error, ShMem, ShMemId, ShMemProvider};

use testkit::{Outcome, becomes_writable, if_lacking, name_exists, skip, too_few_descriptors};

/// The differences between mechanisms.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// The id still opens the segment after its creator has dropped it.
    pub(crate) id_outlives_creator: bool,
    /// The sizes that the system reports are multiples of this.
    pub(crate) rounded_to: usize,
    /// The mapping of a read-only attachment stays read-only, also for `mprotect`.
    pub(crate) protects_readers: bool,
}

const SIZE: usize = 65536;

pub(crate) fn a_new_segment_is_zeroed_and_exact<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    for size in [1, 100, 4096, 4097, SIZE] {
        let segment = p.new_shmem(size)?;
        assert_eq!(segment.len(), size);
        assert!(segment.iter().all(|&byte| byte == 0));
        assert_eq!(segment.as_ptr().addr() % 4096, 0);
        assert_eq!(segment.description().size, size);
        assert_eq!(segment.description().id, segment.id());
        assert!(format!("{segment:?}").contains(segment.id().as_str()));
    }
    Ok(())
}

pub(crate) fn an_attachment_sees_the_same_bytes<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    let mut made = p.new_shmem(SIZE)?;
    made[0] = 1;
    made[SIZE - 1] = 2;
    let mut by_id = p.shmem_from_id(made.id())?;
    assert_eq!((by_id.len(), by_id[0], by_id[SIZE - 1]), (SIZE, 1, 2));
    assert_eq!(by_id.id(), made.id());
    by_id[7] = 3;
    assert_eq!(made[7], 3);
    let by_description = p.shmem_from_description(made.description())?;
    assert_eq!((by_description.len(), by_description[7]), (SIZE, 3));
    // Another provider opens the same, because providers hold nothing of their own.
    let by_another = P::new()?.shmem_from_id(made.id())?;
    assert_eq!(by_another[7], 3);
    Ok(())
}

pub(crate) fn a_read_only_attachment_sees_the_same_bytes_and_cannot_be_mprotected<
    P: ShMemProvider,
>(
    p: &mut P,
    rules: Rules,
) -> Outcome {
    let size = 5000;
    let mut made = p.new_shmem(size)?;
    made[0] = 1;
    made[size - 1] = 2;
    let reader = p.shmem_from_id_read_only(made.id())?;
    assert_eq!(reader.len(), size.next_multiple_of(rules.rounded_to));
    assert_eq!((reader.id(), reader.is_empty()), (made.id(), false));
    let read = |at| reader.access().load_u8(at, Ordering::Acquire);
    assert_eq!((read(0)?, read(size - 1)?), (1, 2));
    made[7] = 3;
    assert_eq!(read(7)?, 3);
    let part = p.shmem_from_id_and_size_read_only(made.id(), 8)?;
    let mut bytes = [0; 8];
    part.access().read_at(0, &mut bytes)?;
    assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 3]);
    let beyond = p.shmem_from_id_and_size_read_only(made.id(), 1 << 20);
    assert!(matches!(refused(beyond), Error::TooLarge { .. }));
    let nothing = p.shmem_from_id_and_size_read_only(made.id(), 0);
    assert_eq!(refused(nothing), Error::InvalidSize { size: 0 });
    for reader in [&reader, &part] {
        let writable = becomes_writable(reader.as_ptr());
        assert!(!writable || !rules.protects_readers);
    }
    // A reader is a holder.
    let id = made.id();
    if rules.id_outlives_creator {
        drop(made);
        drop(part);
        p.shmem_from_id(id)?[7] = 4;
        assert_eq!(read(7)?, 4);
    } else {
        drop((made, part));
        assert_eq!(read(7)?, 3);
    }
    drop(reader);
    assert!(refused(p.shmem_from_id_read_only(id)).is_not_found());
    Ok(())
}

pub(crate) fn less_may_be_attached_and_more_may_not<P: ShMemProvider>(
    p: &mut P,
    rules: Rules,
) -> Outcome {
    let made = p.new_shmem(5000)?;
    let actual = 5000_usize.next_multiple_of(rules.rounded_to);
    assert_eq!(p.shmem_from_id(made.id())?.len(), actual);
    for size in [1, 4096, 4999, 5000] {
        assert_eq!(p.shmem_from_id_and_size(made.id(), size)?.len(), size);
    }
    // The memory up to the end of the page exists, but is not part of the segment.
    for asked in [5001, 8192, 8193, 16385, SIZE, 1 << 30, isize::MAX as usize] {
        let attached = p.shmem_from_id_and_size(made.id(), asked);
        if asked > actual {
            assert_eq!(refused(attached), Error::TooLarge { asked, actual });
        } else {
            assert_eq!(attached?.len(), asked);
        }
    }
    Ok(())
}

pub(crate) fn impossible_sizes_are_errors<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    let made = p.new_shmem(SIZE)?;
    for size in [0, isize::MAX as usize + 1, usize::MAX] {
        assert_eq!(refused(p.new_shmem(size)), Error::InvalidSize { size });
        let attached = p.shmem_from_id_and_size(made.id(), size);
        assert_eq!(refused(attached), Error::InvalidSize { size });
    }
    // These sizes are possible on 32 bits.
    #[cfg(target_pointer_width = "64")]
    for size in [
        isize::MAX as usize,
        isize::MAX as usize / 8,
        1 << (usize::BITS - 3),
    ] {
        let error = refused(p.new_shmem(size));
        assert!(error.raw_os_error().is_some(), "{error:?}");
        assert!(error.to_string().contains(&size.to_string()), "{error}");
    }
    Ok(())
}

pub(crate) fn ids_that_name_nothing_are_errors<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    let texts = [
        "",
        "-1",
        "-",
        "+5",
        "00",
        "007",
        "1 ",
        " 1",
        "1x",
        "99999999999",
        "2147483648",
        "m",
        "M",
        "mAAAAAAAAAAAAAAAAA",
        "mAAAAAAAAAAAAAAAAAA=",
        "m??????????????????",
        "/",
        "//",
        "/.",
        "/..",
        "/a/b",
        "/../x",
        "x",
        "?too-long",
        "/dev/null",
        "s12345678901234567",
        "s12345678901234567=",
        "w12345678901234567",
        "w12345678901234567=",
        "f12345678901234567",
        "f12345678901234567/",
        "Local\\",
        "Global\\a\\b",
        "ä",
        "\u{1F980}",
        "a text of more than nineteen bytes",
        "m\0",
        "nul\0inside",
    ];
    for text in texts {
        let id = ShMemId::from_string(text);
        let error = refused(p.shmem_from_id(id));
        assert!(
            matches!(error, Error::InvalidId { .. }),
            "{text:?}: {error:?}"
        );
        refused(p.shmem_from_id_and_size(id, SIZE));
        assert!(!error.to_string().is_empty());
    }
    for array in [[0xff; 20], [b'1'; 20], [b'm'; 20], [0; 20]] {
        let error = refused(p.shmem_from_id(ShMemId::from_array(&array)));
        assert!(
            matches!(error, Error::InvalidId { .. }),
            "{array:?}: {error:?}"
        );
    }
    Ok(())
}

pub(crate) fn ids_of_the_right_shape_that_name_nothing_are_errors<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    for text in [
        "2147483647",
        "m------------------",
        "mAAAAAAAAAAAAAAAAAA",
        "s123456789012345678",
        "w123456789012345678",
        "f123456789012345678",
        "Local\\0",
        "Global\\0",
        "/shmem-00000000000",
    ] {
        let error = refused(p.shmem_from_id(ShMemId::from_string(text)));
        let no_proc = !Path::new("/proc/self").exists();
        assert!(
            error.is_not_found()
                || matches!(error, Error::InvalidId { .. })
                || no_proc && matches!(error, Error::Unsupported { .. }),
            "{text}: {error:?}"
        );
    }
    Ok(())
}

pub(crate) fn a_clone_is_another_mapping_and_another_holder<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    let mut made = p.new_shmem(SIZE)?;
    made[9] = 9;
    let mut first = p.clone_ref(&made)?;
    assert_ne!(first.as_ptr(), made.as_ptr());
    assert_eq!((first.len(), first[9], first.id()), (SIZE, 9, made.id()));
    drop(made);
    first[9] = 10;
    // A clone does not need the name, which may have been removed.
    let second = p.clone_ref(&first)?;
    drop(first);
    assert_eq!(second[9], 10);
    Ok(())
}

pub(crate) fn a_released_segment_is_empty_and_gone<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    let mut made = p.new_shmem(SIZE)?;
    let mut attached = p.shmem_from_id(made.id())?;
    let id = made.id();
    p.release_shmem(&mut attached);
    assert_eq!(p.shmem_from_id(id)?.len(), SIZE);
    p.release_shmem(&mut made);
    p.release_shmem(&mut made);
    assert_eq!((made.len(), made.id()), (0, id));
    assert!(made.as_ptr_of::<u8>().is_none());
    assert!(made.access().as_atomic_u64()?.is_empty());
    assert_eq!(refused(p.clone_ref(&made)), Error::Released { id });
    let error = refused(p.shmem_from_id(id));
    assert!(error.is_not_found(), "{error:?}");
    assert!(!name_exists(id.as_str()));
    Ok(())
}

pub(crate) fn the_last_holder_ends_it<P: ShMemProvider>(p: &mut P, rules: Rules) -> Outcome {
    let mut made = p.new_shmem(SIZE)?;
    let id = made.id();
    made[1] = 1;
    let first = p.shmem_from_id(id)?;
    drop(made);
    assert_eq!(first[1], 1);
    if rules.id_outlives_creator {
        let second = p.shmem_from_id(id)?;
        drop(first);
        let third = p.shmem_from_id(id)?;
        assert_eq!((second[1], third[1]), (1, 1));
    }
    let error = refused(p.shmem_from_id(id));
    assert!(error.is_not_found(), "{error:?}");
    assert!(!name_exists(id.as_str()));
    Ok(())
}

pub(crate) fn values_are_placed_and_found<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    #[derive(Debug, PartialEq)]
    #[repr(C, align(64))]
    struct Header(u64, [u8; 3]);

    let mut made = p.new_on_shmem(Header(5, [1, 2, 3]))?;
    assert_eq!(made.len(), size_of::<Header>());
    let attached = p.shmem_from_id(made.id())?;
    assert_eq!(attached[..8], 5_u64.to_ne_bytes());
    assert_eq!(attached[8..11], [1, 2, 3]);
    assert!(made.as_mut_ptr_of::<Header>().is_some());
    let room = p.uninit_on_shmem::<[u16; 300]>()?;
    assert_eq!(room.len(), 600);
    Ok(())
}

pub(crate) fn values_that_cannot_be_placed_are_errors<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    /// 32 MiB, aligned to 32 MiB, as few mappings are.
    #[repr(align(0x200_0000))]
    struct Aligned {
        _byte: u8,
    }

    assert_eq!(refused(p.new_on_shmem(())), Error::InvalidSize { size: 0 });
    assert_eq!(
        refused(p.uninit_on_shmem::<[u64; 0]>()),
        Error::InvalidSize { size: 0 }
    );
    match p.uninit_on_shmem::<Aligned>() {
        Ok(segment) => assert_eq!(segment.as_ptr().addr() % align_of::<Aligned>(), 0),
        Err(Error::Misaligned { align }) => assert_eq!(align, align_of::<Aligned>()),
        // The /dev/shm of a container has 64 MiB or less.
        Err(error) => return if_lacking(error),
    }
    Ok(())
}

pub(crate) fn pointers_are_checked_for_size_and_alignment<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    #[repr(align(0x1000_0000))]
    struct Aligned;

    let mut segment = p.new_shmem(16)?;
    let start = segment.as_mut_ptr();
    assert_eq!(
        segment
            .as_mut_ptr_of::<[u64; 2]>()
            .map(<*mut [u64; 2]>::cast),
        Some(start)
    );
    assert_eq!(segment.as_ptr_of::<u8>(), Some(start.cast_const()));
    assert!(segment.as_ptr_of::<[u64; 3]>().is_none());
    assert!(segment.as_mut_ptr_of::<[u8; 17]>().is_none());
    if start.addr() % align_of::<Aligned>() != 0 {
        assert!(segment.as_ptr_of::<[Aligned; 0]>().is_none());
        assert!(segment.as_mut_ptr_of::<[Aligned; 0]>().is_none());
    }
    Ok(())
}

pub(crate) fn others_may_write_while_it_is_accessed<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    let mut made = p.new_shmem(SIZE)?;
    let mut attached = p.shmem_from_id(made.id())?;
    let (ours, theirs) = (made.access(), attached.access());
    let turn = 0;
    thread::scope(|scope| -> Result<(), Error> {
        let there = scope.spawn(move || -> Result<(), Error> {
            let words = theirs.as_atomic_u32()?;
            for round in 0..1000 {
                while words[turn].load(Ordering::Acquire) != 2 * round + 1 {
                    thread::yield_now();
                }
                let mut bytes = [0; 100];
                theirs.read_at(13, &mut bytes)?;
                theirs.write_at(1001, &bytes)?;
                words[turn].store(2 * round + 2, Ordering::Release);
            }
            Ok(())
        });
        let words = ours.as_atomic_u32()?;
        for round in 0..1000_u32 {
            ours.write_at(13, &round.to_ne_bytes().repeat(25))?;
            words[turn].store(2 * round + 1, Ordering::Release);
            while words[turn].load(Ordering::Acquire) != 2 * round + 2 {
                thread::yield_now();
            }
            let mut answer = [0; 100];
            ours.read_at(1001, &mut answer)?;
            assert_eq!(answer[..], round.to_ne_bytes().repeat(25));
        }
        there.join().unwrap_or(Err(Error::Unsupported {
            what: "the other thread panicked",
        }))
    })?;
    Ok(())
}

pub(crate) fn segments_may_go_to_other_threads<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome
where
    P::ShMem: Send + Sync + 'static,
{
    let mut made = p.new_shmem(SIZE)?;
    let id = made.id();
    let made = thread::spawn(move || {
        made[3] = 4;
        made
    })
    .join();
    let Ok(made) = made else {
        return Err("the thread panicked".into());
    };
    assert_eq!(p.shmem_from_id(id)?[3], 4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(made[3], 4));
        }
    });
    Ok(())
}

pub(crate) fn a_hundred_segments_have_a_hundred_ids<P: ShMemProvider>(
    p: &mut P,
    _: Rules,
) -> Outcome {
    if let Some(reason) = too_few_descriptors(250) {
        return skip(reason);
    }
    let mut segments = Vec::new();
    for index in 0..100 {
        let mut segment = p.new_shmem(4096)?;
        segment[0] = index;
        segments.push(segment);
    }
    let ids: HashSet<_> = segments.iter().map(ShMem::id).collect();
    assert_eq!(ids.len(), 100);
    for (index, segment) in (0..).zip(&segments) {
        assert_eq!(p.shmem_from_id(segment.id())?[0], index);
    }
    // Dropping the other half does not affect these.
    let odd: Vec<_> = segments.into_iter().skip(1).step_by(2).collect();
    assert!(
        odd.iter()
            .all(|segment| p.shmem_from_id(segment.id()).is_ok())
    );
    Ok(())
}

pub(crate) fn large_and_odd_sizes_work<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    for size in [3, (1 << 20) + 1, 256 << 20] {
        let mut made = match p.new_shmem(size) {
            Ok(made) => made,
            // The /dev/shm of a container has 64 MiB.
            Err(error) => return if_lacking(error),
        };
        made[size - 1] = 1;
        assert_eq!(p.shmem_from_id(made.id())?[size - 1], 1);
    }
    Ok(())
}

pub(crate) fn an_id_is_text_of_at_most_19_bytes<P: ShMemProvider>(p: &mut P, _: Rules) -> Outcome {
    for _ in 0..20 {
        let made = p.new_shmem(1)?;
        let id = made.id();
        assert!((1..=19).contains(&id.as_str().len()), "{id}");
        assert!(
            id.as_str().bytes().all(|byte| byte.is_ascii_graphic()),
            "{id}"
        );
        assert_eq!(ShMemId::from_string(id.as_str()), id);
        assert_eq!(ShMemId::try_from_slice(&id)?, id);
    }
    Ok(())
}

/// Returns the error of an operation that has to fail.
#[track_caller]
fn refused<T: Debug>(result: Result<T, Error>) -> Error {
    result.expect_err("this must be refused")
}
