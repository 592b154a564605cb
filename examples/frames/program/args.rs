//! [`Args`]: the command line.

use lexopt::prelude::*;

use super::Result;
use super::frame::LINE;
use super::ring::SEATS;

pub(super) const USAGE: &str = "\
Produces frames for several consumer processes in shared memory, through pipes and through Unix
sockets, checks them, and reports the rates.

Usage: frames [OPTION…]

  --frames N      number of frames in a round (default: 400)
  --size N        size of a frame in bytes, a multiple of 64 (default: 1048576)
  --consumers N   number of consumer processes, 16 at most (default: 3)
  --kill          kill a consumer of the shared memory, replace it, and report what is left
  --help          this text";

/// The fewest frames with which there is time to kill and to replace a consumer.
const MIN_KILL: u32 = 60;
/// The most frames: their numbers and those of the warm-up fit into 32 bits.
const MAX_FRAMES: u32 = 1 << 30;

/// The command line.
pub(super) struct Args {
    pub(super) frames: u32,
    pub(super) size: u32,
    pub(super) consumers: usize,
    pub(super) kill: bool,
    pub(super) help: bool,
}

impl Args {
    pub(super) fn parse() -> Result<Self> {
        let mut args = Self {
            frames: 400,
            size: 1 << 20,
            consumers: 3,
            kill: false,
            help: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("frames") => args.frames = parser.value()?.parse()?,
                Long("size") => args.size = parser.value()?.parse()?,
                Long("consumers") => args.consumers = parser.value()?.parse()?,
                Long("kill") => args.kill = true,
                Short('h') | Long("help") => args.help = true,
                _ => return Err(arg.unexpected().into()),
            }
        }
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<()> {
        let fewest = if self.kill { MIN_KILL } else { 1 };
        if !(fewest..=MAX_FRAMES).contains(&self.frames) {
            return Err(format!("--frames must be {fewest} to {MAX_FRAMES}").into());
        }
        if self.size == 0 || self.size as usize % LINE != 0 {
            return Err(format!("--size must be a multiple of {LINE}").into());
        }
        if !(1..=SEATS).contains(&self.consumers) {
            return Err(format!("--consumers must be 1 to {SEATS}").into());
        }
        Ok(())
    }
}
