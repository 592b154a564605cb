//! A ring whose words are overwritten between the operations. Also the body of a fuzzer.

use shmem_providers::channel::Ring;
use shmem_providers::{ErrorKind, NopShMemProvider, Result, ShMem, ShMemProvider, wake::Wait};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The capacity of the ring in bytes.
pub(crate) const CAPACITY: usize = 128;
/// The indices of the positions and of the words that say who waits, then that of the first word of the data.
pub(crate) const WORDS: [usize; 5] = [32, 64, 33, 65, 96];

/// Runs a program of five bytes for each operation. It must end, and no operation may fail but by an error.
pub(crate) fn run(program: &[u8]) {
    let mut segment = NopShMemProvider
        .new_shmem(Ring::size(CAPACITY).expect("it is small"))
        .expect("there is memory");
    Ring::initialise(&mut segment, CAPACITY).expect("it fits");
    let shared = segment.share();
    let ring = Ring::in_segment(&shared).expect("it was initialised");
    let mut writer = ring.writer().expect("the positions are 0");
    let mut reader = ring.reader().expect("the positions are 0");
    let now = Wait::new().spins(1).timeout(Duration::ZERO);
    let mut message = Vec::new();
    for operation in program.chunks_exact(5) {
        let [code, index, value @ ..] = operation else {
            continue;
        };
        let value = value
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let len = usize::from(*index) % (CAPACITY / 2);
        match code % 12 {
            0 => check(writer.try_send(&[1; CAPACITY][..len])),
            1 => check(reader.try_recv(&mut message)),
            2 => check(writer.reserve(len, now).and_then(|grant| {
                grant.map_or(Ok(()), |grant| {
                    grant.access().fill(2);
                    grant.commit_len(len / 2)
                })
            })),
            3 => check(reader.peek(now).map(|message| {
                assert!(message.is_none_or(|message| message.to_vec().len() <= ring.max_message()));
            })),
            4 => check(reader.try_drain().and_then(|messages| {
                let Some(mut messages) = messages else {
                    return Ok(0);
                };
                let mut count = 0;
                while let Some(message) = messages.next_message()? {
                    assert!(message.len() <= ring.max_message());
                    count += 1;
                    assert!(count <= CAPACITY / 8, "it does not end");
                }
                messages.release()
            })),
            5 => check(writer.send_batch([&[3; CAPACITY][..len], &[], &[4]], now)),
            6 => check(reader.recv_into(&mut [0; CAPACITY], now)),
            7 => check(ring.writer().map(|new| writer = new)),
            8 => check(ring.reader().map(|new| reader = new)),
            code => {
                let access = shared.access();
                let words = access.as_atomic_u32().expect("they are aligned");
                let at = WORDS.get(usize::from(index % 16)).copied();
                let at = at.unwrap_or(WORDS[4] + usize::from(*index) * 2 % (CAPACITY / 4));
                let old = words[at].load(Relaxed);
                let new = match code {
                    9 => value,
                    10 => old.wrapping_add(value % 64 * 8).wrapping_sub(256),
                    _ if value % 2 == 0 => u32::MAX,
                    _ => value % 130,
                };
                words[at].store(new, Relaxed);
            }
        }
    }
    assert!(message.len() <= ring.max_message());
}

/// Checks that nothing has gone wrong but what a hostile peer can cause.
pub(crate) fn check<T>(result: Result<T>) {
    if let Err(error) = result {
        let kind = error.kind();
        let is_expected = matches!(kind, ErrorKind::Corrupt | ErrorKind::TooLarge);
        assert!(is_expected, "{error}");
    }
}
