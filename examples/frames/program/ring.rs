//! [`Ring`]: the memory that the producer and the consumers use at the same time.

use core::sync::atomic::{AtomicU32, AtomicU64};

use shmem_providers::{
    ShMem, ShMemProvider, Shared, SharedLayout, SharedRef, StdShMem, StdShMemProvider,
};

use super::Result;

/// The number of frames in the ring. Their numbers count upwards and wrap.
pub(super) const FRAMES: u32 = 4;
/// The largest number of consumers.
pub(super) const SEATS: usize = 16;
/// Where the first frame starts in bytes.
const START: usize = 4096;
/// The variable by which the segment is handed over.
const RING: &str = "FRAMES_RING";

/// What the segment starts with: zeros, at first.
#[derive(SharedLayout)]
#[repr(C)]
pub(super) struct Control {
    /// The number of frames that the producer has drawn.
    pub(super) drawn: AtomicU32,
    pub(super) seats: [Seat; SEATS],
}

/// What belongs to one consumer, in a line of the cache of its own.
#[derive(SharedLayout)]
#[repr(C, align(64))]
pub(super) struct Seat {
    /// One of the states below.
    pub(super) state: AtomicU32,
    /// The number of frames that the consumer no longer needs.
    pub(super) done: AtomicU32,
    /// The number of frames that the consumer has checked.
    pub(super) checked: AtomicU32,
}

/// The consumer has not attached yet, or has ended.
pub(super) const FREE: u32 = 0;
/// The consumer waits until the producer has set `done` to where it is to start.
pub(super) const JOINING: u32 = 1;
/// The producer waits for this consumer before it draws over a frame.
pub(super) const ACTIVE: u32 = 2;

pub(super) struct Ring {
    pub(super) control: SharedRef<Control>,
    frames: Vec<SharedRef<[AtomicU64]>>,
}

impl Ring {
    /// Creates a ring of frames that have `size` bytes, and hands it over to the processes of a command.
    pub(super) fn create(size: usize, command: &mut std::process::Command) -> Result<Self> {
        let bytes = size.saturating_mul(FRAMES as usize).saturating_add(START);
        let shared = StdShMemProvider::new()?.new_shmem(bytes)?.share();
        shared.hand_over(command, RING)?;
        Self::in_segment(&shared)
    }

    /// Attaches to the ring that was handed over to this process.
    pub(super) fn attach() -> Result<Self> {
        Self::in_segment(&StdShMemProvider::new()?.existing_from_env(RING)?.share())
    }

    fn in_segment(shared: &Shared<StdShMem>) -> Result<Self> {
        let size = shared.len().saturating_sub(START) / FRAMES as usize;
        let frame = |index| shared.view_slice(START + index * size, size / size_of::<u64>());
        Ok(Self {
            control: shared.view(0)?,
            frames: (0..FRAMES as usize)
                .map(frame)
                .collect::<core::result::Result<_, _>>()?,
        })
    }

    pub(super) fn frame(&self, number: u32) -> &[AtomicU64] {
        &self.frames[(number % FRAMES) as usize]
    }
}
