//! A peer overwrites any words of a channel, before it is opened and while it is used, even during a copy. There are
//! errors and garbled values, but no panic, nothing longer than the maximum, and no call without end.
#![no_main]

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shmem_providers::channel::Latest;
use shmem_providers::wake::Wait;
use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};

/// The largest length of a value in bytes.
const MAX_LEN: usize = 70;

fuzz_target!(|data: &[u8]| {
    let Some((&[slots], writes)) = data.split_first_chunk() else {
        return;
    };
    let size = Latest::size(MAX_LEN, usize::from(slots % 16));
    let mut segment = NopShMemProvider.new_shmem(size).expect("there is memory");
    Latest::initialise(&mut segment, MAX_LEN, usize::from(slots % 16)).expect("it fits");
    let shared = segment.share();
    let words = shared.access().as_atomic_u32().expect("it is aligned");
    let latest = Latest::in_segment(&shared).expect("nothing is overwritten yet");
    let (mut writer, mut reader) = (latest.writer(), latest.reader());
    let mut value = Vec::new();
    let wait = Wait::new().spins(1).timeout(Duration::ZERO);

    let mut writes = writes.chunks_exact(6);
    let mut overwrite = || {
        let write = writes.next()?;
        let at = usize::from(u16::from_le_bytes([write[0], write[1]]));
        let number = u32::from_le_bytes([write[2], write[3], write[4], write[5]]);
        words[at % words.len()].store(number, Relaxed);
        Some(at)
    };
    while let Some(choice) = overwrite() {
        match choice % 5 {
            0 => assert!(writer.publish(&[7; MAX_LEN]).is_ok()),
            1 => {
                let seen = reader.read(&mut value);
                assert!(value.len() <= MAX_LEN);
                if let Ok(Some(seen)) = seen {
                    assert_eq!(seen.len, value.len());
                }
            }
            2 => {
                let _ = reader.next(&mut value, wait);
            }
            3 => {
                let _ = reader.read_with(|access| {
                    assert!(access.len() <= MAX_LEN);
                    overwrite()
                });
            }
            _ => {
                if let Ok(other) = Latest::in_segment(&shared) {
                    assert!(Latest::size(other.max_len(), other.slots()) <= size);
                    let _ = other.reader().read(&mut value);
                    let _ = other.writer().publish(&value);
                }
            }
        }
    }
});
