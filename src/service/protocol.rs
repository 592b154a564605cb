//! What client and service say to each other: frames of one fixed size, from bytes and back, and
//! nothing else. No sockets, no clocks, no memory.
//!
//! | bytes | in a request | in a reply |
//! | --- | --- | --- |
//! | 0 | [`VERSION`] | the same |
//! | 1 | the opcode | the same with the highest bit set |
//! | 2 | 0 | the [`Verdict`] |
//! | 3 | 0 | 0 |
//! | 4–8 | number of the request | the same |
//! | 8–16 | size in bytes, of `Register` only | size of the segment, of `Open` only |
//! | 16–36 | id or token | 0 |
//! | 36–40 | 0 | 0 |
//!
//! Numbers are little-endian. A frame that has anything else anywhere is no frame. There is one
//! encoding of each message, so what was decoded encodes to the same bytes.

use core::num::NonZeroU64;

use crate::id::ShMemId;

/// The version of this format.
pub const VERSION: u8 = 1;

/// How many bytes a frame has.
pub const FRAME: usize = 40;

/// The bytes of a message.
pub type Frame = [u8; FRAME];

/// Chooses one announced fork: random, and of use once.
pub type Token = ShMemId;

const REPLY: u8 = 0x80;

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client, repeated in the reply.
    pub number: u32,
    /// What it wants.
    pub ask: Ask,
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first frame of a connection. A forked child says which fork it comes from.
    Hello(Option<Token>),
    /// Keep the descriptor that comes with this frame under the id, for as long as somebody holds
    /// it.
    Register {
        /// Chosen by the client.
        id: ShMemId,
        /// In bytes.
        size: NonZeroU64,
    },
    /// Send the descriptor of this id: from now on this client holds it as well.
    Open(ShMemId),
    /// This client does not hold the id any more. The one request without a reply.
    Release(ShMemId),
    /// A child will be forked, which shall hold what this client does.
    Fork(Token),
}

/// What the service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's.
    pub number: u32,
    /// Which kind of request it answers.
    pub to: Opcode,
    /// What became of it.
    pub verdict: Verdict,
    /// What an opened segment has, in bytes. Otherwise 0.
    pub size: u64,
}

/// The kinds of requests, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// See [`Ask::Hello`].
    Hello = 1,
    /// See [`Ask::Register`].
    Register = 2,
    /// See [`Ask::Open`].
    Open = 3,
    /// See [`Ask::Release`].
    Release = 4,
    /// See [`Ask::Fork`].
    Fork = 5,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// It was done.
    Done = 0,
    /// There is no segment of this id, or no fork of this token.
    Unknown = 1,
    /// The id is another segment's.
    Taken = 2,
    /// The service has as much of it as it may.
    Full = 3,
    /// The descriptor is missing, or leads to no shared memory of this size.
    BadDescriptor = 4,
    /// Not at the moment: ask again. If it answers `Hello`, connect again.
    Busy = 5,
}

impl Ask {
    /// Which kind it is.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Hello(_) => Opcode::Hello,
            Self::Register { .. } => Opcode::Register,
            Self::Open(_) => Opcode::Open,
            Self::Release(_) => Opcode::Release,
            Self::Fork(_) => Opcode::Fork,
        }
    }
}

impl Request {
    /// The request as bytes.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let (id, size) = match self.ask {
            Ask::Hello(token) => (token.unwrap_or_default(), 0),
            Ask::Register { id, size } => (id, size.get()),
            Ask::Open(id) | Ask::Release(id) | Ask::Fork(id) => (id, 0),
        };
        Fields {
            code: self.ask.opcode() as u8,
            verdict: 0,
            number: self.number,
            size,
            id: *id.as_array(),
        }
        .encode()
    }

    /// The request that these bytes are, if they are one.
    #[must_use]
    pub fn decode(frame: &Frame) -> Option<Self> {
        let fields = Fields::decode(frame)?;
        let id = ShMemId::try_from_slice(&fields.id).ok()?;
        if *id.as_array() != fields.id || fields.verdict != 0 {
            return None;
        }
        let size = NonZeroU64::new(fields.size);
        let ask = match (Opcode::of(fields.code)?, size, id.is_empty()) {
            (Opcode::Hello, None, true) => Ask::Hello(None),
            (Opcode::Hello, None, false) => Ask::Hello(Some(id)),
            (Opcode::Register, Some(size), false) => Ask::Register { id, size },
            (Opcode::Open, None, false) => Ask::Open(id),
            (Opcode::Release, None, false) => Ask::Release(id),
            (Opcode::Fork, None, false) => Ask::Fork(id),
            _ => return None,
        };
        Some(Self {
            number: fields.number,
            ask,
        })
    }
}

impl Reply {
    /// The reply as bytes.
    #[must_use]
    pub fn encode(&self) -> Frame {
        Fields {
            code: self.to as u8 | REPLY,
            verdict: self.verdict as u8,
            number: self.number,
            size: self.size,
            id: [0; 20],
        }
        .encode()
    }

    /// The reply that these bytes are, if they are one.
    #[must_use]
    pub fn decode(frame: &Frame) -> Option<Self> {
        let fields = Fields::decode(frame)?;
        if fields.code & REPLY == 0 || fields.id != [0; 20] {
            return None;
        }
        let to = Opcode::of(fields.code & !REPLY)?;
        let verdict = Verdict::of(fields.verdict)?;
        let has_size = to == Opcode::Open && verdict == Verdict::Done;
        (has_size == (fields.size != 0)).then_some(Self {
            number: fields.number,
            to,
            verdict,
            size: fields.size,
        })
    }
}

impl Opcode {
    fn of(code: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::Register,
            Self::Open,
            Self::Release,
            Self::Fork,
        ]
        .into_iter()
        .find(|&opcode| opcode as u8 == code)
    }
}

impl Verdict {
    fn of(code: u8) -> Option<Self> {
        [
            Self::Done,
            Self::Unknown,
            Self::Taken,
            Self::Full,
            Self::BadDescriptor,
            Self::Busy,
        ]
        .into_iter()
        .find(|&verdict| verdict as u8 == code)
    }
}

/// The parts of a frame that are not the same in all of them.
struct Fields {
    code: u8,
    verdict: u8,
    number: u32,
    size: u64,
    id: [u8; 20],
}

impl Fields {
    fn encode(&self) -> Frame {
        let [n0, n1, n2, n3] = self.number.to_le_bytes();
        let mut frame = [0; FRAME];
        let (head, rest) = frame.split_at_mut(8);
        head.copy_from_slice(&[VERSION, self.code, self.verdict, 0, n0, n1, n2, n3]);
        let (size, rest) = rest.split_at_mut(8);
        size.copy_from_slice(&self.size.to_le_bytes());
        let (id, _) = rest.split_at_mut(self.id.len());
        id.copy_from_slice(&self.id);
        frame
    }

    fn decode(frame: &Frame) -> Option<Self> {
        let (&[version, code, verdict, zero, n0, n1, n2, n3], rest) = frame.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        (version == VERSION && zero == 0 && rest == [0; 4]).then_some(Self {
            code,
            verdict,
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            size: u64::from_le_bytes(*size),
            id: *id,
        })
    }
}
