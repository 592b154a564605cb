//! Rows about messages: each channel carries the same messages from this process to a forked child.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bench::pairs::{Pairs, Target};
use bench::{Result, SIZE};
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};
use shmem_providers::channel::{Ring, RingReader, RingWriter};
use shmem_providers::wake::Wait;
use shmem_providers::{ShMemProvider, StdShMemProvider};

use crate::iox::Iox;
use crate::raw_ring::RawRing;
use crate::table::Table;
use crate::two::with_child;

/// The sizes of messages in bytes, and how many a batch has.
const SIZES: [(&str, usize, u32); 4] = [
    ("64 B", 64, 20_000),
    ("4 KiB", 4096, 5000),
    ("64 KiB", SIZE, 400),
    ("1 MiB", 1 << 20, 40),
];

/// How many messages of the size under test a ring holds, at least.
const DEPTH: usize = 4;

/// A way to send messages, created before the child is forked.
pub(crate) trait Channel {
    /// Prepares for the next batch. Not measured.
    fn begin(&mut self) -> Result {
        Ok(())
    }

    fn send(&mut self, payload: &[u8]) -> Result;

    /// Receives a message, and reads its first and its last byte, which stands for using it.
    fn receive(&mut self) -> Result<u8>;

    /// Waits until a receiver that is not the forked child has the batch.
    fn end(&mut self) -> Result {
        Ok(())
    }
}

pub(crate) fn ends(message: &[u8]) -> u8 {
    message.first().copied().unwrap_or(0) ^ message.last().copied().unwrap_or(0)
}

/// This crate.
struct Ours {
    writer: RingWriter,
    reader: RingReader,
}

impl Channel for Ours {
    fn send(&mut self, payload: &[u8]) -> Result {
        self.writer.send(payload, Wait::new())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<u8> {
        let message = self.reader.peek(Wait::new())?.ok_or("time is up")?;
        let bytes = message.access();
        let last = bytes.len() - 1;
        let found =
            bytes.load_u8(0, Ordering::Relaxed)? ^ bytes.load_u8(last, Ordering::Relaxed)?;
        message.release()?;
        Ok(found)
    }
}

/// Both rings by hand are the same memory.
struct ByHand(RawRing);

impl Channel for ByHand {
    fn send(&mut self, payload: &[u8]) -> Result {
        self.0.send(payload);
        Ok(())
    }

    fn receive(&mut self) -> Result<u8> {
        Ok(self.0.receive())
    }
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    buffer: Vec<u8>,
}

impl Channel for Pipe {
    fn send(&mut self, payload: &[u8]) -> Result {
        let mut rest = payload;
        while !rest.is_empty() {
            let written = rustix::io::write(&self.writer, rest)?;
            rest = &rest[written..];
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u8> {
        let mut at = 0;
        while at < self.buffer.len() {
            at += rustix::io::read(&self.reader, &mut self.buffer[at..])?;
        }
        Ok(ends(&self.buffer))
    }
}

struct Socket {
    ours: UnixStream,
    theirs: UnixStream,
    buffer: Vec<u8>,
}

impl Channel for Socket {
    fn send(&mut self, payload: &[u8]) -> Result {
        Ok(self.ours.write_all(payload)?)
    }

    fn receive(&mut self) -> Result<u8> {
        self.theirs.read_exact(&mut self.buffer)?;
        Ok(ends(&self.buffer))
    }
}

struct Ipc {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
}

impl Channel for Ipc {
    fn send(&mut self, payload: &[u8]) -> Result {
        Ok(self.sender.send(payload)?)
    }

    fn receive(&mut self) -> Result<u8> {
        let message = self.receiver.recv().map_err(|error| format!("{error:?}"))?;
        Ok(ends(&message))
    }
}

/// Creates all channels for messages of this size, with their names; ours is the first.
fn channels(size: usize, count: u32) -> Result<Vec<(&'static str, Box<dyn Channel>)>> {
    let capacity = (DEPTH * (size + 64)).max(1 << 16).next_power_of_two();
    let mut provider = StdShMemProvider::new()?;
    let ring = Ring::create(&mut provider, capacity)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let (ours, theirs) = UnixStream::pair()?;
    let (sender, receiver) = bytes_channel()?;
    let buffer = vec![0; size];
    Ok(vec![
        (
            "this crate",
            Box::new(Ours {
                writer: ring.writer()?,
                reader: ring.reader()?,
            }),
        ),
        ("a ring by hand", Box::new(ByHand(RawRing::new(capacity)?))),
        (
            "a pipe",
            Box::new(Pipe {
                reader,
                writer,
                buffer: buffer.clone(),
            }),
        ),
        (
            "a Unix socket",
            Box::new(Socket {
                ours,
                theirs,
                buffer,
            }),
        ),
        ("ipc-channel", Box::new(Ipc { sender, receiver })),
        (
            "iceoryx2, polling",
            Box::new(Iox::new(size, capacity / (size + 64), count)),
        ),
    ])
}

/// Sends batches of messages through all channels in turn. Returns the seconds per message of every batch, for each
/// channel.
fn measure(size: usize, count: u32, batches: u32) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let mut channels = channels(size, count)?;
    // The child has the same channels, as far as they exist before the fork.
    let channels = std::cell::RefCell::new(&mut channels);
    let (mut done, mut report) = UnixStream::pair()?;
    with_child(
        || {
            let mut channels = channels.borrow_mut();
            for _ in 0..batches {
                for (_, channel) in channels.iter_mut() {
                    for _ in 0..count {
                        black_box(channel.receive()?);
                    }
                    report.write_all(&[1])?;
                }
            }
            Ok(())
        },
        || {
            let mut channels = channels.borrow_mut();
            let mut answer = [0];
            let payload = vec![7; size];
            let mut times: Vec<_> = channels
                .iter()
                .map(|(name, _)| (*name, Vec::new()))
                .collect();
            for batch in 0..batches {
                for ((_, channel), (_, times)) in channels.iter_mut().zip(&mut times) {
                    channel.begin()?;
                    let start = Instant::now();
                    for _ in 0..count {
                        channel.send(&payload)?;
                    }
                    channel.end()?;
                    done.read_exact(&mut answer)?;
                    // The first batch touches all pages.
                    if batch > 0 {
                        times.push(start.elapsed().as_secs_f64() / f64::from(count));
                    }
                }
            }
            Ok(times)
        },
    )
}

pub(crate) fn rows(table: &mut Table) -> Result {
    for (name, size, count) in SIZES {
        let work = format!("a message of {name} through `channel::Ring`");
        if !table.wants(&work) {
            continue;
        }
        let (count, batches) = if table.once { (8, 2) } else { (count, 21) };
        let times = measure(size, count, batches)?;
        let Some(((_, ours), others)) = times.split_first() else {
            continue;
        };
        for (against, theirs) in others {
            let target = if *against == "a ring by hand" {
                Target::AtMost(1.05)
            } else {
                Target::None
            };
            let mut pairs = Pairs::default();
            for (ours, theirs) in ours.iter().zip(theirs) {
                pairs.push(*ours, *theirs);
            }
            table.add(&work, against, target, Ok(pairs));
        }
    }
    Ok(())
}
