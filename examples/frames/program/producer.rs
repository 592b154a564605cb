//! [`Producer`]: draws frames in the ring, and waits for the consumers that are there.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;
use std::process::{Command, ExitStatus};

use shmem_providers::wake::{self, Wait};

use super::consumer::{SEAT, TOTAL};
use super::frame::draw;
use super::process::{Consumer, command};
use super::ring::{ACTIVE, FRAMES, FREE, JOINING, Ring, Seat};
use super::{Result, Transport};

/// How long the producer waits before it looks whether the consumer still runs.
const PATIENCE: Duration = Duration::from_millis(20);

pub(super) struct Producer {
    pub(super) ring: Ring,
    /// At index `i`, the consumer in seat `i`.
    pub(super) consumers: Vec<Consumer>,
    command: Command,
    /// The number of frames drawn.
    drawn: u32,
}

/// What happened while a frame was drawn.
pub(super) enum Event {
    /// The consumer in this seat has ended, for instance because it was killed.
    Ended(usize, ExitStatus),
    /// The consumer in this seat gets the frames from now on.
    Joined(usize),
}

impl Producer {
    /// Creates a ring and starts consumers of `total` frames, all of which have joined.
    pub(super) fn new(size: usize, consumers: usize, total: u32) -> Result<Self> {
        let mut command = command()?;
        command.env(TOTAL, total.to_string());
        let mut producer = Self {
            ring: Ring::create(size, &mut command)?,
            consumers: Vec::new(),
            command,
            drawn: 0,
        };
        for seat in 0..consumers {
            let consumer = producer.start(seat)?;
            producer.consumers.push(consumer);
        }
        for seat in 0..consumers {
            producer.wait_until_joined(seat)?;
        }
        Ok(producer)
    }

    fn start(&mut self, seat: usize) -> Result<Consumer> {
        Consumer::start(self.command.env(SEAT, seat.to_string()))
    }

    /// Starts another consumer for a seat. It joins while frames are drawn.
    pub(super) fn replace(&mut self, seat: usize) -> Result<()> {
        self.consumers[seat] = self.start(seat)?;
        Ok(())
    }

    /// Draws the next frame in place. Reports what happened to `report`.
    pub(super) fn draw(
        &mut self,
        mut report: impl FnMut(&mut Self, Event) -> Result<()>,
    ) -> Result<()> {
        for seat in 0..self.consumers.len() {
            if self.admit(seat) {
                report(self, Event::Joined(seat))?;
            }
            if let Some(status) = self.wait_for_room(seat, FRAMES - 1)? {
                report(self, Event::Ended(seat, status))?;
            }
        }
        draw(self.ring.frame(self.drawn), self.drawn);
        self.drawn = self.drawn.wrapping_add(1);
        self.ring.control.drawn.store(self.drawn, Release);
        wake::all(&self.ring.control.drawn)?;
        Ok(())
    }

    /// Lets a consumer that waits start with the next frame. Returns `true` if one has waited.
    fn admit(&self, seat: usize) -> bool {
        let seat = &self.ring.control.seats[seat];
        let is_joining = seat.state.load(Acquire) == JOINING;
        if is_joining {
            seat.done.store(self.drawn, Relaxed);
            seat.state.store(ACTIVE, Release);
            // Fails only where the consumer could not sleep either.
            let _ = wake::one(&seat.state);
        }
        is_joining
    }

    /// Waits until the consumer has at most `behind` frames to check. If it has ended instead, the seat is
    /// free afterwards, and the status is returned.
    fn wait_for_room(&mut self, seat: usize, behind: u32) -> Result<Option<ExitStatus>> {
        let Seat { state, done, .. } = &self.ring.control.seats[seat];
        while state.load(Relaxed) == ACTIVE {
            let found = done.load(Acquire);
            if self.drawn.wrapping_sub(found) <= behind {
                break;
            }
            let changed = Wait::new().timeout(PATIENCE).while_equal(done, found)?;
            if changed.is_none() {
                if let Some(status) = self.consumers[seat].ended()? {
                    state.store(FREE, Relaxed);
                    return Ok(Some(status));
                }
            }
        }
        Ok(None)
    }

    /// Waits until the consumer has joined.
    pub(super) fn wait_until_joined(&mut self, seat: usize) -> Result<()> {
        while self.ring.control.seats[seat].state.load(Relaxed) != ACTIVE {
            let state = &self.ring.control.seats[seat].state;
            let joining = Wait::new().timeout(PATIENCE).while_equal(state, FREE)?;
            if joining.is_none() {
                if let Some(status) = self.consumers[seat].ended()? {
                    return Err(format!("a consumer has not joined: {status}").into());
                }
            }
            self.admit(seat);
        }
        Ok(())
    }

    /// Returns the number of frames that the consumers in this seat have checked.
    pub(super) fn checked(&self, seat: usize) -> u32 {
        self.ring.control.seats[seat].checked.load(Relaxed)
    }
}

impl Transport for Producer {
    fn produce(&mut self) -> Result<()> {
        self.draw(|_, event| match event {
            Event::Ended(_, status) => Err(format!("a consumer has ended: {status}").into()),
            Event::Joined(_) => Ok(()),
        })
    }

    fn consumers(&mut self) -> &mut [Consumer] {
        &mut self.consumers
    }
}
