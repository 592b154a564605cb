//! The comparison: the producer draws each frame in a buffer, and writes it to every consumer.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use shmem_providers::{NopShMem, NopShMemProvider, ShMem, ShMemProvider};

use super::consumer::{STREAM, TOTAL};
use super::frame::draw;
use super::process::{Consumer, command};
use super::{Result, Transport};

/// A producer that writes into pipes or sockets, and its consumers.
pub(super) struct Streams {
    buffer: NopShMem,
    outputs: Vec<Box<dyn Write>>,
    consumers: Vec<Consumer>,
    drawn: u32,
}

/// Starts a consumer, and returns what it reads from.
type Start = fn(&mut Command) -> Result<(Consumer, Box<dyn Write>)>;

pub(super) fn pipe(command: &mut Command) -> Result<(Consumer, Box<dyn Write>)> {
    let mut consumer = Consumer::start(command.stdin(Stdio::piped()))?;
    let pipe = consumer.0.stdin.take().ok_or("a consumer has no pipe")?;
    Ok((consumer, Box::new(pipe)))
}

pub(super) fn socket(command: &mut Command) -> Result<(Consumer, Box<dyn Write>)> {
    let (theirs, ours) = UnixStream::pair()?;
    let consumer = Consumer::start(command.stdin(OwnedFd::from(theirs)))?;
    Ok((consumer, Box::new(ours)))
}

impl Streams {
    /// Starts consumers of `total` frames.
    pub(super) fn new(size: usize, consumers: usize, total: u32, start: Start) -> Result<Self> {
        let mut streams = Self {
            buffer: NopShMemProvider.new_shmem(size)?,
            outputs: Vec::new(),
            consumers: Vec::new(),
            drawn: 0,
        };
        for _ in 0..consumers {
            // Dropped at the end of the round, and with it the consumer's end of a socket.
            let mut command = command()?;
            command
                .env(TOTAL, total.to_string())
                .env(STREAM, size.to_string());
            let (consumer, output) = start(&mut command)?;
            streams.consumers.push(consumer);
            streams.outputs.push(output);
        }
        Ok(streams)
    }
}

impl Transport for Streams {
    fn produce(&mut self) -> Result<()> {
        draw(self.buffer.access().as_atomic_u64()?, self.drawn);
        self.drawn = self.drawn.wrapping_add(1);
        for output in &mut self.outputs {
            output.write_all(&self.buffer)?;
        }
        Ok(())
    }

    fn consumers(&mut self) -> &mut [Consumer] {
        &mut self.consumers
    }
}
