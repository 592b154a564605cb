//! The work: a map of byte pairs and a CRC-32.

use core::ops::Range;

use crc32fast::Hasher;

/// The size of the map: a counter for each pair of bytes.
pub(super) const MAP: usize = 1 << 16;

/// What is found out about a stretch of bytes.
pub(super) struct Digest {
    /// How often each pair occurs: at `previous * 256 + byte`, and no further than 255, like the
    /// counters of edges in a fuzzer's map.
    pub(super) map: Vec<u8>,
    crc: Hasher,
}

impl Digest {
    /// Of bytes, with the one before them. The pair across a border belongs to the stretch behind
    /// it, and so is counted once.
    pub(super) fn of(previous: Option<u8>, bytes: &[u8]) -> Self {
        let mut digest = Self::with_crc(0, 0);
        digest.update(previous, bytes);
        digest
    }

    /// Of `len` bytes with this CRC-32. The map is still to be filled.
    pub(super) fn with_crc(crc: u32, len: usize) -> Self {
        Self {
            map: vec![0; MAP],
            crc: Hasher::new_with_initial_len(crc, len as u64),
        }
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Takes in more bytes, with the one before them.
    pub(super) fn update(&mut self, previous: Option<u8>, bytes: &[u8]) {
        self.crc.update(bytes);
        let (mut previous, rest) = match (previous, bytes) {
            (Some(previous), rest) => (previous, rest),
            (None, [first, rest @ ..]) => (*first, rest),
            (None, []) => return,
        };
        for &byte in rest {
            let counter = &mut self.map[usize::from(u16::from_be_bytes([previous, byte]))];
            *counter = counter.saturating_add(1);
            previous = byte;
        }
    }

    /// Takes in what was found out about the bytes that come next.
    pub(super) fn append(&mut self, next: &Self) {
        self.crc.combine(&next.crc);
        for (counter, more) in self.map.iter_mut().zip(&next.map) {
            *counter = counter.saturating_add(*more);
        }
    }
}

/// Part `index` of `len` bytes in `count` parts, which differ by one byte at most.
pub(super) fn part(len: usize, index: usize, count: usize) -> Range<usize> {
    border(len, index, count)..border(len, index + 1, count)
}

/// Where part `index` begins.
pub(super) fn border(len: usize, index: usize, count: usize) -> usize {
    len / count * index + len % count * index / count
}
