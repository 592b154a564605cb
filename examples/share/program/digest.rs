//! The work: a map of byte pairs and a CRC-32.

use core::ops::Range;

use crc32fast::Hasher;

/// The size of the map: a counter for each pair of bytes.
pub(super) const MAP: usize = 1 << 16;

/// The result of the work on a range of bytes.
pub(super) struct Digest {
    /// The number of times that each pair occurs, at index `previous * 256 + byte`. Counters stop at 255, like
    /// the counters of edges in a fuzzer's map.
    pub(super) map: Vec<u8>,
    crc: Hasher,
}

impl Digest {
    /// Returns the digest of bytes, given the byte before them. A pair across the border of two ranges belongs
    /// to the second one, so it is counted once.
    pub(super) fn of(previous: Option<u8>, bytes: &[u8]) -> Self {
        let mut digest = Self::with_crc(0, 0);
        digest.update(previous, bytes);
        digest
    }

    /// Returns the digest of `len` bytes with this CRC-32, with an empty map.
    pub(super) fn with_crc(crc: u32, len: usize) -> Self {
        Self {
            map: vec![0; MAP],
            crc: Hasher::new_with_initial_len(crc, len as u64),
        }
    }

    pub(super) fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Adds bytes, given the byte before them.
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

    /// Adds the digest of the bytes that follow.
    pub(super) fn append(&mut self, next: &Self) {
        self.crc.combine(&next.crc);
        for (counter, more) in self.map.iter_mut().zip(&next.map) {
            *counter = counter.saturating_add(*more);
        }
    }
}

/// Returns part `index` of `len` bytes in `count` parts, whose lengths differ by one byte at most.
pub(super) fn part(len: usize, index: usize, count: usize) -> Range<usize> {
    border(len, index, count)..border(len, index + 1, count)
}

/// Returns the start of part `index`.
pub(super) fn border(len: usize, index: usize, count: usize) -> usize {
    len / count * index + len % count * index / count
}
