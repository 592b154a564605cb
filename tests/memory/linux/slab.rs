//! Many small objects in one segment.

use std::collections::HashSet;
use std::error::Error;
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmem_providers::{
    Error as ShMemError, MemfdShMemProvider, ShMemDescription, ShMemProvider, Slab, SlabObject,
    SlabRef, StdShMemProvider, UnixShMemProvider,
};

use super::peer::{Answer, Commands, Peer};
use super::pool::{forked, wait};
use testkit::{Outcome, natively, skip};

pub(crate) fn objects_are_apart_and_zeroed() -> Outcome {
    for size in [1, 63, 64, 65, 5000] {
        let slab = Slab::new(&mut StdShMemProvider::new()?, size, 100)?;
        let mut objects: Vec<_> = std::iter::from_fn(|| slab.allocate()).collect();
        assert_eq!((objects.len(), slab.available()), (100, 0));
        for (mark, object) in (0..).zip(&objects) {
            assert_eq!(object.access().len(), size);
            object.access().fill(mark);
        }
        let bytes = |object: &SlabObject<_>| -> Result<_, ShMemError> {
            let mut copy = vec![0; size];
            object.access().read_at(0, &mut copy)?;
            Ok(copy)
        };
        for (mark, object) in (0..).zip(&objects) {
            assert_eq!(bytes(object)?, vec![mark; size]);
        }
        let refs: HashSet<_> = objects.iter().map(SlabObject::slab_ref).collect();
        assert_eq!(refs.len(), 100);
        assert!(
            refs.iter()
                .all(|one| one.offset % 64 == 0 && one.len == size)
        );
        // A free object is reused and zeroed.
        let freed = objects.swap_remove(50).slab_ref();
        assert_eq!(slab.available(), 1);
        let reused = slab.allocate().ok_or("there is room for one")?;
        assert_eq!(reused.slab_ref(), freed);
        assert_eq!(bytes(&reused)?, vec![0; size]);
        // An object keeps the slab alive.
        drop((slab, objects));
        reused.access().fill(1);
        assert_eq!(bytes(&reused)?, vec![1; size]);
    }
    Ok(())
}

pub(crate) fn another_process_finds_an_object() -> Outcome {
    let slab = Slab::new(&mut StdShMemProvider::new()?, 100, 1000)?;
    let objects: Vec<_> = std::iter::from_fn(|| slab.allocate()).collect();
    let mut peer = Peer::start();
    for index in [0, 1, 500, 999] {
        objects[index].access().fill(3);
        peer.change_object(objects[index].slab_ref())?;
        let mut bytes = [0; 100];
        objects[index].access().read_at(0, &mut bytes)?;
        assert_eq!(bytes, [4; 100]);
    }
    let mut bytes = [9; 100];
    objects[2].access().read_at(0, &mut bytes)?;
    assert_eq!(bytes, [0; 100]);

    let mut provider = StdShMemProvider::new()?;
    let mut other = provider.new_shmem(100)?;
    let wrong = objects[0].slab_ref().access_in(&mut other);
    assert!(
        matches!(wrong, Err(ShMemError::InvalidId { .. })),
        "{wrong:?}"
    );
    let mut attached = provider.shmem_from_description(slab.segment())?;
    let lie = SlabRef {
        offset: usize::MAX,
        ..objects[0].slab_ref()
    };
    let wrong = lie.access_in(&mut attached);
    assert!(
        matches!(wrong, Err(ShMemError::OutOfBounds { .. })),
        "{wrong:?}"
    );
    Ok(())
}

/// What a peer does: checks that all bytes of an object are 3, and changes them to 4.
pub(crate) fn change_object(words: &[&str]) -> Answer {
    let &[id, size, offset, len] = words else {
        return Err("no object is named".into());
    };
    let object = SlabRef {
        segment: ShMemDescription::from_string_and_size(id, size.parse()?),
        offset: offset.parse()?,
        len: len.parse()?,
    };
    let mut segment = StdShMemProvider::new()?.shmem_from_description(object.segment)?;
    let access = object.access_in(&mut segment)?;
    let mut bytes = vec![0; access.len()];
    access.read_at(0, &mut bytes)?;
    if bytes.iter().any(|&byte| byte != 3) {
        return Err(format!("{bytes:?}").into());
    }
    access.fill(4);
    Ok(String::new())
}

pub(crate) fn impossible_slab_sizes_are_errors() -> Outcome {
    for (size, count) in [
        (0, 1),
        (1, 0),
        (0, 0),
        (usize::MAX, 1),
        (usize::MAX / 2, usize::MAX / 2),
        (64, usize::MAX),
    ] {
        for refused in [
            Slab::new(&mut StdShMemProvider::new()?, size, count).err(),
            Slab::new(&mut UnixShMemProvider::new()?, size, count).err(),
        ] {
            assert!(
                matches!(refused, Some(ShMemError::InvalidSize { .. })),
                "{refused:?}"
            );
        }
    }
    Ok(())
}

/// A slab can have as many objects as there are addresses. Those that are never allocated cost nothing.
pub(crate) fn unused_objects_of_a_slab_cost_nothing() -> Outcome {
    let mut p = MemfdShMemProvider::new()?;
    let (size, count) = if cfg!(target_pointer_width = "64") {
        (1, 1 << 40)
    } else {
        (1, 1 << 23)
    };
    let slab = match Slab::new(&mut p, size, count) {
        Ok(slab) => slab,
        Err(error @ ShMemError::Os { .. }) => return skip(error),
        Err(error) => return Err(error.into()),
    };
    assert_eq!(slab.available(), count);
    let mut objects: Vec<_> = (0..1000).map_while(|_| slab.allocate()).collect();
    assert_eq!((objects.len(), slab.available()), (1000, count - 1000));
    let refs: HashSet<_> = objects.iter().map(SlabObject::slab_ref).collect();
    assert_eq!(refs.len(), 1000);
    // Objects are freed in any order, and freed ones are reused first.
    objects.swap(3, 700);
    objects.truncate(500);
    assert_eq!(slab.available(), count - 500);
    let freed: HashSet<_> = (0..500)
        .map_while(|_| slab.allocate())
        .collect::<Vec<_>>()
        .iter()
        .map(SlabObject::slab_ref)
        .collect();
    assert_eq!(freed.len(), 500);
    assert!(freed.is_subset(&refs));
    assert_eq!(slab.available(), count - 500);
    Ok(())
}

/// Of a part that was attached, objects that do not fit are errors.
pub(crate) fn a_part_has_the_objects_that_fit() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let slab = Slab::new(&mut p, 100, 10)?;
    let objects: Vec<_> = std::iter::from_fn(|| slab.allocate()).collect();
    for len in [1, 99, 100, 128, 227, 228, 1000, 1280] {
        let mut part = p.shmem_from_id_and_size(slab.segment().id, len)?;
        for (index, object) in objects.iter().enumerate() {
            let is_there = object.slab_ref().access_in(&mut part).is_ok();
            assert_eq!(is_there, 128 * index + 100 <= len, "{index} in {len}");
        }
        for (offset, bytes) in [(0, len + 1), (len, 1), (usize::MAX, 2), (1, usize::MAX)] {
            let lie = SlabRef {
                offset,
                len: bytes,
                ..objects[0].slab_ref()
            };
            let wrong = lie.access_in(&mut part);
            assert!(
                matches!(wrong, Err(ShMemError::OutOfBounds { .. })),
                "{wrong:?}"
            );
        }
    }
    let more = p.shmem_from_id_and_size(slab.segment().id, 1281);
    assert!(matches!(more, Err(ShMemError::TooLarge { .. })), "{more:?}");
    Ok(())
}

pub(crate) fn a_child_leaves_the_slab_to_its_parent() -> Outcome {
    natively("which ends by itself when a process with threads forks")?;
    Peer::start().execute("child-allocates")?;
    Ok(())
}

/// What a peer does: while threads use the slab, forks children that drop an inherited object and try to
/// allocate another one.
pub(crate) fn child_allocates() -> Answer {
    let slab = Slab::new(&mut StdShMemProvider::new()?, 64, 8)?;
    let stop = AtomicBool::new(false);
    let allocate_and_drop = || {
        while !stop.load(Relaxed) {
            drop(slab.allocate());
        }
    };
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(allocate_and_drop));
        let done = (0..200).try_for_each(|_| -> Result<(), Box<dyn Error>> {
            let ours = slab.allocate().ok_or("there is room for eight")?;
            ours.access().fill(1);
            let mut copied = slab.allocate();
            if let Some(object) = &copied {
                object.access().fill(2);
            }
            let (child, mut stream) = forked(|mut stream| {
                // Dropping an inherited object must not free it in the shared segment.
                drop(copied.take());
                let theirs = slab.allocate();
                stream.write_all(&[
                    u8::from(theirs.is_some()),
                    u8::try_from(slab.available()).unwrap_or(9),
                ])
            })?;
            let mut report = [9; 2];
            stream.read_exact(&mut report)?;
            wait(child)?;
            let copied = copied.as_ref().ok_or("there is room for eight")?;
            for (object, byte) in [(&ours, 1), (copied, 2)] {
                let mut bytes = [0; 64];
                object.access().read_at(0, &mut bytes)?;
                if bytes != [byte; 64] {
                    return Err(format!("a child has changed it: {bytes:?}").into());
                }
            }
            if report != [0, 0] {
                return Err(format!("a child has allocated: {report:?}").into());
            }
            Ok(())
        });
        stop.store(true, Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")?;
        }
        done.map(|()| String::new())
    })
}

pub(crate) fn threads_share_a_slab() -> Outcome {
    let slab = Slab::new(&mut StdShMemProvider::new()?, 1000, 8)?;
    let work = |mark: u8| {
        let slab = slab.clone();
        move || {
            for _ in 0..2000 {
                let Some(object) = slab.allocate() else {
                    continue;
                };
                let mut bytes = [1; 1000];
                object
                    .access()
                    .read_at(0, &mut bytes)
                    .expect("the object has 1000 bytes");
                assert_eq!(bytes, [0; 1000]);
                object.access().fill(mark);
                object
                    .access()
                    .read_at(0, &mut bytes)
                    .expect("the object has 1000 bytes");
                assert_eq!(bytes, [mark; 1000]);
            }
        }
    };
    thread::scope(|scope| {
        for mark in 1..=4 {
            scope.spawn(work(mark));
        }
    });
    assert_eq!(slab.available(), 8);
    Ok(())
}
