//! Copies from and to memory that other processes access at the same time.
//!
//! To the language such memory consists of atomics, and atomics are copied word by word. On
//! `x86_64` the vector instructions of the processor (SSE2), and its string instructions (`rep movsb`, `rep stosb`),
//! are faster. To the compiler, assembly is an unknown function that may have used
//! relaxed atomics, one for each byte. The processor knows no undefined behaviour, and orders what these instructions
//! write before every later store (Intel's manual, volume 3, "Fast-String Operation and
//! Out-of-Order Stores").
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// The size of a machine word in bytes.
const WORD: usize = size_of::<usize>();

/// Copies all bytes of `from` into `into`, which has the same length.
#[inline]
pub(crate) fn load(from: &[AtomicU8], into: &mut [u8]) {
    debug_assert_eq!(from.len(), into.len());
    if strings::load(from, into) {
        return;
    }
    let (head, words, tail) = by_words(from);
    let (first, rest) = into.split_at_mut(head.len());
    let (middle, last) = rest.split_at_mut(words.len() * WORD);
    for (to, from) in first.iter_mut().zip(head).chain(last.iter_mut().zip(tail)) {
        *to = from.load(Relaxed);
    }
    for (to, from) in middle.chunks_exact_mut(WORD).zip(words) {
        to.copy_from_slice(&from.load(Relaxed).to_ne_bytes());
    }
}

/// Copies all bytes of `from` to `to`, which has the same length.
#[inline]
pub(crate) fn store(to: &[AtomicU8], from: &[u8]) {
    debug_assert_eq!(from.len(), to.len());
    if strings::store(to, from) {
        return;
    }
    let (head, words, tail) = by_words(to);
    let (first, rest) = from.split_at(head.len());
    let (middle, last) = rest.split_at(words.len() * WORD);
    for (to, from) in head.iter().zip(first).chain(tail.iter().zip(last)) {
        to.store(*from, Relaxed);
    }
    for (to, from) in words.iter().zip(middle.chunks_exact(WORD)) {
        let mut word = [0; WORD];
        word.copy_from_slice(from);
        to.store(usize::from_ne_bytes(word), Relaxed);
    }
}

/// Sets every byte to `value`.
pub(crate) fn fill(bytes: &[AtomicU8], value: u8) {
    if strings::fill(bytes, value) {
        return;
    }
    let (head, words, tail) = by_words(bytes);
    for byte in head.iter().chain(tail) {
        byte.store(value, Relaxed);
    }
    for word in words {
        word.store(usize::from_ne_bytes([value; WORD]), Relaxed);
    }
}

/// Returns the bytes before the first aligned word, the words, and the bytes after the last word.
#[inline]
fn by_words(bytes: &[AtomicU8]) -> (&[AtomicU8], &[AtomicUsize], &[AtomicU8]) {
    // SAFETY: any bytes are valid for both types, and both are only accessed atomically.
    unsafe { bytes.align_to::<AtomicUsize>() }
}

/// Copies with vector and string instructions. Each function returns `false` if that would be slower, and does
/// nothing then.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod strings {
    use core::arch::asm;
    use core::ops::RangeInclusive;
    use core::sync::atomic::AtomicU8;

    /// The size of a vector, which every such processor has (SSE2), in bytes.
    const VECTOR: usize = 16;
    /// How many vectors a round of the loop copies.
    const ROUND: usize = 4 * VECTOR;
    /// From this many bytes, the target is aligned first.
    const LONG: usize = 512;
    /// Between these lengths, string instructions are at least as fast as vectors. Below, their start costs more than
    /// the copy; above, they write past the caches that the other process reads from.
    const STRINGS: RangeInclusive<usize> = 4096..=1 << 18;
    /// Below this many bytes, the start-up cost of the instruction outweighs its speed.
    const MIN_FILL: usize = 512;

    #[inline]
    pub(super) fn load(from: &[AtomicU8], into: &mut [u8]) -> bool {
        if from.len() < VECTOR {
            return false;
        }
        let (source, target) = (from.as_ptr().cast::<u8>(), into.as_mut_ptr());
        // SAFETY: both slices have at least this many bytes. `into` is borrowed exclusively, and
        // `from` may be read while others write it.
        unsafe { copy(source, target, from.len().min(into.len())) };
        true
    }

    #[inline]
    pub(super) fn store(to: &[AtomicU8], from: &[u8]) -> bool {
        if to.len() < VECTOR {
            return false;
        }
        let (source, target) = (from.as_ptr(), to.as_ptr().cast_mut().cast::<u8>());
        // SAFETY: both slices have at least this many bytes. Nothing writes to `from`, and `to`
        // consists of atomics, which any holder of a reference may write.
        unsafe { copy(source, target, from.len().min(to.len())) };
        true
    }

    pub(super) fn fill(bytes: &[AtomicU8], value: u8) -> bool {
        if bytes.len() < MIN_FILL {
            return false;
        }
        let target = bytes.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: `target` is valid for writing `bytes.len()` bytes, which are atomics that any
        // holder of a reference may write. The direction flag is clear at the start of an assembly
        // block.
        unsafe {
            asm!(
                "rep stosb",
                inout("rcx") bytes.len() => _,
                inout("rdi") target => _,
                in("al") value,
                options(nostack, preserves_flags),
            );
        }
        true
    }

    /// Copies at least the bytes of a vector.
    ///
    /// # Safety
    ///
    /// `len` bytes may be read from `source` and written to `target`, also twice, in the way of relaxed atomics.
    #[inline]
    unsafe fn copy(source: *const u8, target: *mut u8, len: usize) {
        if len >= LONG {
            // SAFETY: as the caller ensures, and the length is checked.
            return unsafe { copy_long(source, target, len) };
        }
        // SAFETY: as the caller ensures.
        unsafe { copy_vectors(source, target, len) };
    }

    /// # Safety
    ///
    /// As [`copy`], for at least [`LONG`] bytes.
    unsafe fn copy_long(source: *const u8, target: *mut u8, len: usize) {
        if STRINGS.contains(&len) {
            // SAFETY: as the caller ensures.
            return unsafe { copy_string(source, target, len) };
        }
        // SAFETY: the length is at least `LONG`, which is more than a vector.
        unsafe { copy_vector(source, target) };
        let first = VECTOR - target.addr() % VECTOR;
        let (source, target) = (source.wrapping_add(first), target.wrapping_add(first));
        let rounds = (len - first) / ROUND;
        // SAFETY: these are the bytes after the first ones, and the target is aligned now. There is at least one round.
        unsafe { copy_rounds(source, target, rounds) };
        let done = rounds * ROUND;
        let (source, target) = (source.wrapping_add(done), target.wrapping_add(done));
        // SAFETY: these are the bytes that are left, with the ones before them.
        unsafe { copy_vectors(source, target, len - first - done) };
    }

    /// Copies 16 bytes at a time, and then the last 16 of all.
    ///
    /// # Safety
    ///
    /// As [`copy`], also if there are fewer bytes than in a vector, but as many before them.
    #[inline]
    unsafe fn copy_vectors(source: *const u8, target: *mut u8, len: usize) {
        let mut done = 0;
        while len - done >= VECTOR {
            // SAFETY: at least `VECTOR` bytes are left from `done` on.
            unsafe { copy_vector(source.wrapping_add(done), target.wrapping_add(done)) };
            done += VECTOR;
        }
        if done < len {
            let source = source.wrapping_add(len).wrapping_sub(VECTOR);
            let target = target.wrapping_add(len).wrapping_sub(VECTOR);
            // SAFETY: these are the last bytes, of which some are copied a second time.
            unsafe { copy_vector(source, target) };
        }
    }

    /// # Safety
    ///
    /// As [`copy`], for the bytes of a vector.
    #[inline]
    unsafe fn copy_vector(source: *const u8, target: *mut u8) {
        // SAFETY: the caller ensures that the bytes of a vector may be read and written.
        unsafe {
            asm!(
                "movdqu {vector}, [{source}]",
                "movdqu [{target}], {vector}",
                vector = out(xmm_reg) _,
                source = in(reg) source,
                target = in(reg) target,
                options(nostack, preserves_flags),
            );
        }
    }

    /// # Safety
    ///
    /// As [`copy`], for the bytes of `rounds` rounds, of which there is at least one. The target is a multiple of the
    /// size of a vector.
    #[inline]
    unsafe fn copy_rounds(source: *const u8, target: *mut u8, rounds: usize) {
        // SAFETY: the caller ensures that `rounds * ROUND` bytes may be read and written.
        unsafe {
            asm!(
                "2:",
                "movdqu {first}, [{source}]",
                "movdqu {second}, [{source} + 16]",
                "movdqu {third}, [{source} + 32]",
                "movdqu {fourth}, [{source} + 48]",
                "movdqa [{target}], {first}",
                "movdqa [{target} + 16], {second}",
                "movdqa [{target} + 32], {third}",
                "movdqa [{target} + 48], {fourth}",
                "add {source}, 64",
                "add {target}, 64",
                "dec {rounds}",
                "jnz 2b",
                first = out(xmm_reg) _,
                second = out(xmm_reg) _,
                third = out(xmm_reg) _,
                fourth = out(xmm_reg) _,
                source = inout(reg) source => _,
                target = inout(reg) target => _,
                rounds = inout(reg) rounds => _,
                options(nostack),
            );
        }
    }

    /// # Safety
    ///
    /// As [`copy`], for any length.
    unsafe fn copy_string(source: *const u8, target: *mut u8, len: usize) {
        // SAFETY: the caller ensures that `len` bytes may be read and written. The direction flag
        // is clear at the start of an assembly block.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") source => _,
                inout("rdi") target => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Other processors have no faster way than words, and kernels do not use vectors.
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
mod strings {
    use core::sync::atomic::AtomicU8;

    #[inline]
    pub(super) fn load(_from: &[AtomicU8], _into: &mut [u8]) -> bool {
        false
    }

    #[inline]
    pub(super) fn store(_to: &[AtomicU8], _from: &[u8]) -> bool {
        false
    }

    pub(super) fn fill(_bytes: &[AtomicU8], _value: u8) -> bool {
        false
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;
    use core::sync::atomic::AtomicU8;
    use core::sync::atomic::Ordering::Relaxed;

    use super::{fill, load, store};

    /// What is around the bytes that are copied.
    const AROUND: u8 = 0;
    const MARGIN: usize = 32;

    /// Lengths on both sides of every change of method.
    fn lengths() -> impl Iterator<Item = usize> {
        let larger = [511, 512, 513, 600, 1000, 4095, 4096, 4097, 10_000];
        let largest = [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, (1 << 18) + 79];
        (0..200).chain(larger).chain(largest)
    }

    fn pattern(len: usize) -> Vec<u8> {
        (1..=251).cycle().take(len).collect()
    }

    fn atomics(len: usize, value: u8) -> Vec<AtomicU8> {
        (0..len).map(|_| AtomicU8::new(value)).collect()
    }

    fn part(bytes: &[AtomicU8], start: usize, len: usize) -> &[AtomicU8] {
        bytes.split_at(start).1.split_at(len).0
    }

    fn values(bytes: &[AtomicU8]) -> Vec<u8> {
        bytes.iter().map(|byte| byte.load(Relaxed)).collect()
    }

    /// Calls `check` with a length, and places for the first byte with all remainders of 16.
    fn each(mut check: impl FnMut(usize, usize, usize)) {
        for len in lengths() {
            for start in MARGIN..MARGIN + 16 {
                check(len, start, len + 2 * MARGIN + 16);
            }
        }
    }

    #[test]
    fn all_bytes_are_stored_and_no_others() {
        each(|len, start, all| {
            let (to, from) = (atomics(all, AROUND), pattern(len));
            store(part(&to, start, len), &from);
            let found = values(&to);
            let (before, rest) = found.split_at(start);
            let (stored, behind) = rest.split_at(len);
            assert!(stored == from, "{len} bytes at {start}");
            assert!(before.iter().chain(behind).all(|byte| *byte == AROUND));
        });
    }

    #[test]
    fn all_bytes_are_loaded_and_no_others() {
        each(|len, start, all| {
            let expected = pattern(len);
            let from: Vec<_> = expected.iter().map(|byte| AtomicU8::new(*byte)).collect();
            let mut into = vec![AROUND; all];
            let (_, rest) = into.split_at_mut(start);
            load(&from, rest.split_at_mut(len).0);
            let (before, rest) = into.split_at(start);
            let (loaded, behind) = rest.split_at(len);
            assert!(loaded == expected, "{len} bytes at {start}");
            assert!(before.iter().chain(behind).all(|byte| *byte == AROUND));
        });
    }

    #[test]
    fn all_bytes_are_filled_and_no_others() {
        for len in lengths() {
            let bytes = atomics(len + 2 * MARGIN, AROUND);
            fill(part(&bytes, MARGIN, len), 7);
            let is_filled = |at: usize| (MARGIN..MARGIN + len).contains(&at);
            for (at, byte) in values(&bytes).into_iter().enumerate() {
                assert_eq!(byte, if is_filled(at) { 7 } else { AROUND });
            }
        }
    }
}
