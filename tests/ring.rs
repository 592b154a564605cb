//! `channel::Ring` in one process: sequences of operations, hostile peers. With segments on the heap, so that the
//! tests run everywhere.
#![cfg(any(unix, windows))]

#[path = "ring/hostile.rs"]
mod hostile;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use shmem_providers::channel::Message;
use shmem_providers::channel::Ring;
use shmem_providers::error::TypeMismatch;
use shmem_providers::wake::Wait;
use shmem_providers::{
    Error, ErrorKind, NopShMem, NopShMemProvider, Result, ShMem, ShMemProvider, Shared,
};

/// Returns a segment with a ring whose positions are `position`.
fn segment(capacity: usize, position: u32) -> Result<Shared<NopShMem>> {
    let mut segment = NopShMemProvider.new_shmem(Ring::size(capacity)?)?;
    Ring::initialise(&mut segment, capacity)?;
    let shared = segment.share();
    let words = shared.access().as_atomic_u32()?;
    for at in &hostile::WORDS[..2] {
        words[*at].store(position, Relaxed);
    }
    Ok(shared)
}

#[derive(Clone, Debug)]
enum Operation {
    Send(usize),
    Commit(usize, usize),
    DropGrant(usize),
    Batch(Vec<usize>, bool),
    Receive,
    ReceiveInto(usize),
    Peek(bool),
    Drain(usize, bool),
    Replace,
}

fn operation() -> impl Strategy<Value = Operation> {
    // One more than fits.
    let len = || 0..=121_usize;
    prop_oneof![
        3 => len().prop_map(Operation::Send),
        2 => (len(), len()).prop_map(|(len, sent)| Operation::Commit(len, sent)),
        1 => len().prop_map(Operation::DropGrant),
        2 => (vec(len(), 0..5), any::<bool>()).prop_map(|(all, sent)| Operation::Batch(all, sent)),
        3 => Just(Operation::Receive),
        1 => len().prop_map(Operation::ReceiveInto),
        2 => any::<bool>().prop_map(Operation::Peek),
        2 => (0..5_usize, any::<bool>()).prop_map(|(most, taken)| Operation::Drain(most, taken)),
        1 => Just(Operation::Replace),
    ]
}

proptest! {
    /// A ring is a queue, wherever its positions are: also where they wrap.
    #[test]
    fn a_ring_is_a_queue(
        operations in vec(operation(), 1..200),
        position in prop_oneof![Just(0_u32), 0x1fff_ffe0..=0x1fff_ffff_u32].prop_map(|units| units * 8),
    ) {
        let shared = segment(256, position)?;
        let ring = Ring::in_segment(&shared)?;
        prop_assert_eq!((ring.capacity(), ring.max_message()), (256, 120));
        let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
        let mut queue = VecDeque::<Vec<u8>>::new();
        let mut fill = 0_u8;
        let mut message = |len: usize| {
            fill = fill.wrapping_add(1);
            vec![fill; len]
        };
        let mut found = Vec::new();
        for operation in operations {
            match operation {
                Operation::Send(len) => {
                    let message = message(len);
                    match writer.try_send(&message) {
                        Ok(true) => queue.push_back(message),
                        Ok(false) => prop_assert!(!queue.is_empty(), "an empty ring takes any message"),
                        Err(error) => {
                            prop_assert_eq!(error, Error::MessageTooLong { len, max: 120 });
                            prop_assert_eq!(len, 121);
                        }
                    }
                }
                Operation::Commit(len, sent) => {
                    if let Ok(Some(grant)) = writer.try_reserve(len) {
                        let message = message(len);
                        grant.access().write_at(0, &message)?;
                        let committed = grant.commit_len(sent);
                        prop_assert_eq!(committed.is_ok(), sent <= len);
                        if sent <= len {
                            queue.push_back(message[..sent].to_vec());
                        }
                    }
                }
                Operation::DropGrant(len) => {
                    if let Ok(Some(grant)) = writer.try_reserve(len) {
                        grant.access().fill(0xaa);
                    }
                }
                Operation::Batch(lengths, is_sent) => {
                    let mut batch = writer.batch();
                    let mut all = Vec::new();
                    for len in lengths {
                        let message = message(len);
                        if let Ok(true) = batch.push(&message) {
                            all.push(message);
                        }
                    }
                    prop_assert_eq!(batch.len(), all.len());
                    if is_sent {
                        prop_assert_eq!(batch.commit()?, all.len());
                        queue.extend(all);
                    }
                }
                Operation::Receive => {
                    prop_assert_eq!(reader.try_recv(&mut found)?, !queue.is_empty());
                    if let Some(expected) = queue.pop_front() {
                        prop_assert_eq!(&found, &expected);
                    }
                }
                Operation::ReceiveInto(len) => {
                    let now = Wait::new().spins(0).timeout(Duration::ZERO);
                    if let Some(expected) = queue.front() {
                        let mut buffer = vec![0; len];
                        match reader.recv_into(&mut buffer, now) {
                            Ok(found) => {
                                prop_assert_eq!(found, Some(expected.len()));
                                prop_assert_eq!(&buffer[..expected.len()], &expected[..]);
                                queue.pop_front();
                            }
                            Err(_) => prop_assert!(len < expected.len()),
                        }
                    }
                }
                Operation::Peek(is_released) => {
                    let message = reader.try_peek()?;
                    prop_assert_eq!(message.as_ref().map(Message::to_vec), queue.front().cloned());
                    if let (Some(message), true) = (message, is_released) {
                        message.release()?;
                        queue.pop_front();
                    }
                }
                Operation::Drain(most, is_released) => {
                    let messages = reader.try_drain()?;
                    prop_assert_eq!(messages.is_some(), !queue.is_empty());
                    if let Some(mut messages) = messages {
                        for expected in queue.iter().take(most) {
                            let found = messages.next_message()?.expect("it was sent");
                            let mut copy = vec![0; found.len()];
                            found.read_at(0, &mut copy)?;
                            prop_assert_eq!(&copy, expected);
                        }
                        if most >= queue.len() {
                            prop_assert!(messages.next_message()?.is_none());
                        }
                        if is_released {
                            let count = messages.release()?;
                            prop_assert_eq!(count, most.min(queue.len()));
                            queue.drain(..count);
                        }
                    }
                }
                Operation::Replace => {
                    writer = ring.writer()?;
                    reader = Ring::in_segment(&shared)?.reader()?;
                }
            }
        }
    }

    /// Whatever is written to the words of a ring, operations return, and access nothing else.
    #[test]
    fn overwritten_words_cause_errors_only(program in vec(any::<u8>(), 0..1000)) {
        hostile::run(&program);
    }
}

#[test]
fn a_peer_that_overwrites_everything_causes_errors_only() {
    let shared = segment(hostile::CAPACITY, 0).unwrap();
    let ring = Ring::in_segment(&shared).unwrap();
    let (mut writer, mut reader) = (ring.writer().unwrap(), ring.reader().unwrap());
    let is_over = AtomicBool::new(false);
    let short = Wait::new().spins(10).timeout(Duration::from_micros(200));
    thread::scope(|scope| {
        scope.spawn(|| {
            let words = shared.access().as_atomic_u32().unwrap();
            let mut state = 1_u32;
            while !is_over.load(Relaxed) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = hostile::WORDS.get(state as usize >> 8 & 15);
                let at = at.copied().unwrap_or(96 + (state as usize >> 16) % 32);
                let old = words[at].load(Relaxed);
                words[at].store(old ^ state >> 20 & 0x1f8, Relaxed);
            }
        });
        let sender = scope.spawn(move || {
            for len in 0..3000 {
                hostile::check(writer.send(&[1; 56][..len % 57], short));
            }
        });
        let receiver = scope.spawn(move || {
            let mut found = Vec::new();
            for _ in 0..3000 {
                hostile::check(reader.recv(&mut found, short));
                assert!(found.len() <= 56);
            }
        });
        let ended = (sender.join(), receiver.join());
        is_over.store(true, Relaxed);
        assert!(ended.0.is_ok() && ended.1.is_ok());
    });
}

/// Each thing that the library never writes has an error of its own.
#[test]
fn overwritten_rings_are_reported() -> Result<()> {
    let cases: &[(&[(usize, u32)], &str)] = &[
        (&[(32, 4)], "a position is not a multiple of 8"),
        (&[(32, 136)], "further apart than its capacity"),
        (&[(64, 24)], "further apart than its capacity"),
        (&[(96, 57)], "longer than any can be"),
        (&[(96, 16)], "beyond what was sent"),
        (&[(96, u32::MAX)], "not followed by a message"),
    ];
    for (words, problem) in cases {
        let shared = segment(128, 0)?;
        let ring = Ring::in_segment(&shared)?;
        let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
        assert!(writer.try_send(b"hello")?);
        for (at, value) in *words {
            shared.access().as_atomic_u32()?[*at].store(*value, Relaxed);
        }
        let mut read = || reader.try_peek().map(drop);
        let error = read().and_then(|()| ring.reader().map(drop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(problem), "{error}");
    }
    let shared = segment(128, 0)?;
    let ring = Ring::in_segment(&shared)?;
    let mut writer = ring.writer()?;
    let mut reader = ring.reader()?;
    assert!(writer.try_send(b"one")? && writer.try_send(b"two")?);
    assert!(reader.try_peek()?.is_some());
    shared.access().as_atomic_u32()?[32].store(16, Relaxed);
    let error = reader.try_drain().map(drop).unwrap_err();
    assert!(error.to_string().contains("has gone back"), "{error}");
    while writer.try_send(&[0; 56])? {}
    shared.access().as_atomic_u32()?[64].store(136, Relaxed);
    let error = writer.try_send(&[0; 56]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    Ok(())
}

#[test]
fn only_rings_open_as_rings() -> Result<()> {
    let error = Ring::in_segment(&NopShMemProvider.new_shmem(4096)?.share()).unwrap_err();
    let mismatch = TypeMismatch::NotTyped;
    assert!(matches!(error, Error::WrongType { mismatch: found, .. } if found == mismatch));
    for (at, value, kind) in [
        (1, 2, ErrorKind::WrongType),
        (2, 0, ErrorKind::Corrupt),
        (2, 100, ErrorKind::Corrupt),
        (2, 1 << 20, ErrorKind::Corrupt),
        (2, 1 << 31, ErrorKind::Corrupt),
    ] {
        let shared = segment(128, 0)?;
        shared.access().as_atomic_u32()?[at].store(value, Relaxed);
        assert_eq!(Ring::in_segment(&shared).unwrap_err().kind(), kind);
    }
    let mut small = [0; 400];
    assert_eq!(
        Ring::initialise(&mut small, 128).unwrap_err().kind(),
        ErrorKind::OutOfBounds
    );
    for capacity in [(1 << 30) + 1, usize::MAX] {
        let error = Ring::size(capacity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSize);
    }
    Ok(())
}
