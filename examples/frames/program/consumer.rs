//! The consumer: a separate process, whose arguments tell it which seat it has and how many frames there are.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;
use std::env;
use std::io::{self, Read};
use std::os::unix::process::parent_id;

use shmem_providers::wake::{self, Wait};
use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};

use super::Result;
use super::frame::check;
use super::ring::{JOINING, Ring};

/// The variables that make a process a consumer: its seat in the ring, and what [`stream`] reads.
pub(super) const SEAT: &str = "FRAMES_SEAT";
pub(super) const STREAM: &str = "FRAMES_STREAM";
/// The number of frames, whatever the transport.
pub(super) const TOTAL: &str = "FRAMES_TOTAL";

/// Checks the frames in the ring, in place.
pub(super) fn ring(seat: &str) -> Result<()> {
    let parent = parent_id();
    let total: u32 = env::var(TOTAL)?.parse()?;
    let ring = Ring::attach()?;
    let control = &ring.control;
    let seat = &control.seats[seat.parse::<usize>()?];
    // The producer may have ended, which stores nothing.
    let wait = |word, value| {
        while Wait::new()
            .timeout(Duration::from_secs(1))
            .while_equal(word, value)?
            .is_none()
        {
            if parent_id() != parent {
                return Err("the producer has ended".into());
            }
        }
        Result::Ok(())
    };

    seat.state.store(JOINING, Release);
    wake::one(&seat.state)?;
    wait(&seat.state, JOINING)?;
    let mut number = seat.done.load(Acquire);
    while number != total {
        wait(&control.drawn, number)?;
        check(ring.frame(number), number)?;
        number = number.wrapping_add(1);
        seat.checked.fetch_add(1, Relaxed);
        seat.done.store(number, Release);
        wake::one(&seat.done)?;
    }
    Ok(())
}

/// Reads frames of `size` bytes from the standard input, a pipe or a socket, and checks them.
pub(super) fn stream(size: &str) -> Result<()> {
    let total: u32 = env::var(TOTAL)?.parse()?;
    let mut input = io::stdin().lock();
    // On the heap, and aligned for the words of a frame.
    let mut buffer = NopShMemProvider.new_shmem(size.parse()?)?;
    for number in 0..total {
        input.read_exact(&mut buffer)?;
        check(buffer.access().as_atomic_u64()?, number)?;
    }
    Ok(())
}
