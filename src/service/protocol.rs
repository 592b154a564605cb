//! The messages between client and service: frames of one fixed size, encoded to bytes and decoded from
//! them. No sockets, no clock, no allocation.
//!
//! | bytes | in a request | in a reply |
//! | --- | --- | --- |
//! | 0 | [`VERSION`] | the same |
//! | 1 | the [`Opcode`] | the same with the highest bit set |
//! | 2 | 0 | the [`Status`] |
//! | 3 | 0 | 0 |
//! | 4–8 | number of the request | the same |
//! | 8–16 | size in bytes, in `Register` only | size of the segment, in `Open` only |
//! | 16–36 | id or token | 0 |
//! | 36–40 | 0 | 0 |
//!
//! Integers are little-endian. A frame with any other value in any byte is rejected with a
//! [`DecodeError`]. Each message has exactly one encoding, so a decoded message encodes to the same bytes.

use core::num::NonZeroU64;

use crate::id::ShMemId;

/// The version of this format.
pub const VERSION: u8 = 1;

/// The size of a frame in bytes.
pub const FRAME: usize = 40;

/// The bytes of a message.
pub type Frame = [u8; FRAME];

/// Identifies one announced fork. It is random and can be used once.
pub type Token = ShMemId;

/// The bit that distinguishes the opcode of a reply from that of its request.
const REPLY: u8 = 0x80;

/// A message from a client to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client and repeated in the reply.
    pub number: u32,
    /// The operation.
    pub command: Command,
}

/// An operation that a client requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Introduces the client. It is the first frame of a connection. A forked child passes the token with
    /// which its parent announced the fork.
    Hello(Option<Token>),
    /// Stores the descriptor that comes with this frame under the id, until its last holder releases it.
    Register {
        /// Chosen by the client.
        id: ShMemId,
        /// In bytes.
        size: NonZeroU64,
    },
    /// Returns the descriptor stored under this id and makes the client one of its holders.
    Open(ShMemId),
    /// Removes the client from the holders of this id. The only request without a reply.
    Release(ShMemId),
    /// Announces a fork: the child that presents this token will hold what this client holds now.
    Fork(Token),
}

/// A message from the service to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request.
    pub number: u32,
    /// The kind of the request.
    pub opcode: Opcode,
    /// The outcome.
    pub status: Status,
    /// The size of the opened segment, in bytes. 0 in all other replies.
    pub size: u64,
}

/// The kinds of requests, with their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// See [`Command::Hello`].
    Hello = 1,
    /// See [`Command::Register`].
    Register = 2,
    /// See [`Command::Open`].
    Open = 3,
    /// See [`Command::Release`].
    Release = 4,
    /// See [`Command::Fork`].
    Fork = 5,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was carried out.
    Done = 0,
    /// No segment has this id, or no fork was announced with this token.
    Unknown = 1,
    /// The id belongs to another segment.
    Taken = 2,
    /// A limit of the service, or of this client's share of it, is reached.
    Full = 3,
    /// The descriptor is missing, or is not shared memory of this size.
    BadDescriptor = 4,
    /// The request can be repeated later. After `Hello`, the client has to connect again.
    Busy = 5,
}

/// Why a frame is not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The peer uses this other version of the format.
    Version(u8),
    /// No request has this opcode, or no reply.
    Opcode(u8),
    /// No reply has this status. In a request it is always 0.
    Status(u8),
    /// The size is missing, or this message has none.
    Size,
    /// The id is missing, is not text followed by zeros, or this message has none.
    Id,
    /// A byte that has to be 0 is not.
    Padding,
}

impl Command {
    /// Returns its kind.
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
    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let (id, size) = match self.command {
            Command::Hello(token) => (token.unwrap_or_default(), 0),
            Command::Register { id, size } => (id, size.get()),
            Command::Open(id) | Command::Release(id) | Command::Fork(id) => (id, 0),
        };
        Fields {
            code: self.command.opcode() as u8,
            status: 0,
            number: self.number,
            size,
            id: *id.as_array(),
        }
        .encode()
    }

    /// Decodes a request.
    ///
    /// # Errors
    ///
    /// If the bytes are not a request of this version.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let fields = Fields::decode(frame)?;
        let opcode = Opcode::from_code(fields.code).ok_or(DecodeError::Opcode(fields.code))?;
        if fields.status != 0 {
            return Err(DecodeError::Status(fields.status));
        }
        let id = ShMemId::try_from_slice(&fields.id).map_err(|_| DecodeError::Id)?;
        // Bytes after the first zero, which `try_from_slice` ignores.
        if *id.as_array() != fields.id {
            return Err(DecodeError::Id);
        }
        let size = NonZeroU64::new(fields.size);
        let command = match (opcode, size, id.is_empty()) {
            (Opcode::Hello, None, true) => Command::Hello(None),
            (Opcode::Hello, None, false) => Command::Hello(Some(id)),
            (Opcode::Register, Some(size), false) => Command::Register { id, size },
            (Opcode::Open, None, false) => Command::Open(id),
            (Opcode::Release, None, false) => Command::Release(id),
            (Opcode::Fork, None, false) => Command::Fork(id),
            (Opcode::Register, Some(_), true) => return Err(DecodeError::Id),
            (Opcode::Register, ..) | (_, Some(_), _) => return Err(DecodeError::Size),
            (_, None, _) => return Err(DecodeError::Id),
        };
        Ok(Self {
            number: fields.number,
            command,
        })
    }
}

impl Reply {
    /// Encodes the reply.
    #[must_use]
    pub fn encode(&self) -> Frame {
        Fields {
            code: self.opcode as u8 | REPLY,
            status: self.status as u8,
            number: self.number,
            size: self.size,
            id: [0; 20],
        }
        .encode()
    }

    /// Decodes a reply.
    ///
    /// # Errors
    ///
    /// If the bytes are not a reply of this version.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let fields = Fields::decode(frame)?;
        let opcode = match fields.code & REPLY {
            0 => None,
            _ => Opcode::from_code(fields.code & !REPLY),
        };
        let opcode = opcode.ok_or(DecodeError::Opcode(fields.code))?;
        let status = Status::from_code(fields.status).ok_or(DecodeError::Status(fields.status))?;
        if fields.id != [0; 20] {
            return Err(DecodeError::Id);
        }
        let has_size = opcode == Opcode::Open && status == Status::Done;
        if has_size != (fields.size != 0) {
            return Err(DecodeError::Size);
        }
        Ok(Self {
            number: fields.number,
            opcode,
            status,
            size: fields.size,
        })
    }
}

impl Opcode {
    fn from_code(code: u8) -> Option<Self> {
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

impl Status {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Done,
            Self::Unknown,
            Self::Taken,
            Self::Full,
            Self::BadDescriptor,
            Self::Busy,
        ]
        .into_iter()
        .find(|&status| status as u8 == code)
    }
}

/// The parts of a frame that differ between messages.
struct Fields {
    code: u8,
    status: u8,
    number: u32,
    size: u64,
    id: [u8; 20],
}

impl Fields {
    fn encode(&self) -> Frame {
        let [n0, n1, n2, n3] = self.number.to_le_bytes();
        let mut frame = [0; FRAME];
        let (head, rest) = frame.split_at_mut(8);
        head.copy_from_slice(&[VERSION, self.code, self.status, 0, n0, n1, n2, n3]);
        let (size, rest) = rest.split_at_mut(8);
        size.copy_from_slice(&self.size.to_le_bytes());
        let (id, _) = rest.split_at_mut(self.id.len());
        id.copy_from_slice(&self.id);
        frame
    }

    fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let &[version, code, status, zero, n0, n1, n2, n3, ref rest @ ..] = frame;
        let &[s0, s1, s2, s3, s4, s5, s6, s7, ref rest @ ..] = rest;
        let &[ref id @ .., z0, z1, z2, z3] = rest;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        if [zero, z0, z1, z2, z3] != [0; 5] {
            return Err(DecodeError::Padding);
        }
        Ok(Self {
            code,
            status,
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            size: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            id: *id,
        })
    }
}
