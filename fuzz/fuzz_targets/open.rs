//! Opening any id returns `Ok` or `Err`, and leaves nothing open. Segments that are opened may belong to other
//! programs, so they are never written.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use shmem_providers::{
    Mechanism, MemfdShMemProvider, MmapShMemProvider, NopShMemProvider, ShMem, ShMemId,
    ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

/// The size of the segments that are created here, in bytes.
const SIZE: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&[shape, low, high], rest)) = data.split_first_chunk() else {
        return;
    };
    let size = usize::from(u16::from_le_bytes([low, high]));
    let size = match shape >> 6 {
        0 => usize::MAX - size,
        1 => size,
        _ => size % (SIZE + 2),
    };
    let before = held();
    match shape % 8 {
        0 => near(Mechanism::Memfd, rest, size),
        1 => near(Mechanism::SystemV, rest, size),
        2 => near(Mechanism::Posix, rest, size),
        3 => open(like("m", BASE64URL, rest), size),
        4 => open(like("", b"0123456789", rest), size),
        5 => open(like("/", BASE64URL, rest), size),
        6 => open(ShMemId::from_string(&String::from_utf8_lossy(rest)), size),
        _ => open(bytes(rest), size),
    }
    assert_eq!(before, held(), "descriptors and shared mappings");
});

const BASE64URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns an id in the form of a mechanism's ids.
fn like(start: &str, digits: &[u8], data: &[u8]) -> ShMemId {
    let rest = data
        .iter()
        .map(|&byte| digits[usize::from(byte) % digits.len()]);
    let text: String = start.bytes().chain(rest).map(char::from).take(19).collect();
    ShMemId::from_string(&text)
}

/// Returns the id with these bytes, followed by zeros.
fn bytes(data: &[u8]) -> ShMemId {
    let mut array = [0; 20];
    for (to, from) in array.iter_mut().zip(data) {
        *to = *from;
    }
    ShMemId::from_array(&array)
}

/// Opens an id that differs from that of an existing segment by `changes`, which may be none.
fn near(mechanism: Mechanism, changes: &[u8], size: usize) {
    let mut provider = StdShMemProvider::with_mechanism(mechanism);
    let segment = provider
        .new_shmem(SIZE)
        .expect("the host has the mechanism");
    let mut array = *segment.id().as_array();
    for (byte, change) in array.iter_mut().zip(changes) {
        *byte ^= change;
    }
    let id = ShMemId::from_array(&array);
    open(id, size);
    if id == segment.id() {
        let len = provider
            .shmem_from_id(id)
            .expect("the segment exists")
            .len();
        assert_eq!(len, SIZE);
        let attached = provider.shmem_from_id_and_size(id, size);
        assert_eq!(attached.is_ok(), (1..=SIZE).contains(&size));
    }
}

fn open(id: ShMemId, size: usize) {
    open_by::<StdShMemProvider>(id, size);
    open_by::<MemfdShMemProvider>(id, size);
    open_by::<UnixShMemProvider>(id, size);
    open_by::<MmapShMemProvider>(id, size);
    open_by::<NopShMemProvider>(id, size);
}

fn open_by<P: ShMemProvider>(id: ShMemId, size: usize) {
    let mut provider = P::new().expect("these providers can always be created");
    match provider.shmem_from_id(id) {
        Ok(segment) => assert!(segment.id() == id && !segment.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match provider.shmem_from_id_and_size(id, size) {
        Ok(segment) => assert_eq!(segment.len(), size),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Returns the numbers of descriptors and of shared mappings of this process.
fn held() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").expect("/proc").count();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let shared = |line: &&str| {
        line.split(' ')
            .nth(1)
            .is_some_and(|mode| mode.ends_with('s'))
    };
    (descriptors, maps.lines().filter(shared).count())
}
