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
//! | 8–16 | size in bytes, in `Register` and `Create`; the byte, in requests about locks; the end, in `Life` | size of the segment, in `Open` only |
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
    /// As `Register`, for a segment that this client has just created: its bytes cannot be locked by clients of
    /// an earlier service.
    Create {
        /// Chosen by the client.
        id: ShMemId,
        /// In bytes.
        size: NonZeroU64,
    },
    /// Locks a byte of a segment that the client holds, until it unlocks it or its connection ends. A client
    /// has one lock at most.
    Lock {
        /// The segment.
        id: ShMemId,
        /// Counted from the start of the segment.
        byte: u64,
    },
    /// As `Lock`, for a byte that this client had locked when an earlier service died.
    Relock {
        /// The segment.
        id: ShMemId,
        /// Counted from the start of the segment.
        byte: u64,
    },
    /// Unlocks the byte of this segment that the client has locked.
    Unlock(ShMemId),
    /// Asks whether any client has locked the byte: `Taken` or `Done`.
    Query {
        /// The segment.
        id: ShMemId,
        /// Counted from the start of the segment.
        byte: u64,
    },
    /// Returns one end of the pipe of this service. A client that has a lock keeps the end for writing until the
    /// next service knows of the lock. So all of these are closed once that knows all locks whose owners are alive.
    Life {
        /// The segment, which the client holds. For the end for writing, it has to be settled, or the client
        /// has a lock in it.
        id: ShMemId,
        /// Which end.
        end: PipeEnd,
    },
    /// Declares that this service knows all locks in this segment, which the client holds.
    Settle(ShMemId),
}

/// An end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PipeEnd {
    /// The end to read from.
    Read = 1,
    /// The end to write to.
    Write = 2,
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
    /// See [`Command::Create`].
    Create = 6,
    /// See [`Command::Lock`].
    Lock = 7,
    /// See [`Command::Relock`].
    Relock = 8,
    /// See [`Command::Unlock`].
    Unlock = 9,
    /// See [`Command::Query`].
    Query = 10,
    /// See [`Command::Life`].
    Life = 11,
    /// See [`Command::Settle`].
    Settle = 12,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was carried out.
    Done = 0,
    /// No segment has this id, or no fork was announced with this token. For requests about locks: the client
    /// does not hold this segment, or it has no such byte or lock.
    Unknown = 1,
    /// The id belongs to another segment, or the byte is locked.
    Taken = 2,
    /// A limit of the service, or of this client's share of it, is reached.
    Full = 3,
    /// The descriptor is missing, or is not shared memory of this size.
    BadDescriptor = 4,
    /// The request can be repeated later. After `Hello`, the client has to connect again.
    Busy = 5,
    /// The segment was locked under an earlier service, and this one does not know yet which locks still exist.
    Unsettled = 6,
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
            Self::Create { .. } => Opcode::Create,
            Self::Lock { .. } => Opcode::Lock,
            Self::Relock { .. } => Opcode::Relock,
            Self::Unlock(_) => Opcode::Unlock,
            Self::Query { .. } => Opcode::Query,
            Self::Life { .. } => Opcode::Life,
            Self::Settle(_) => Opcode::Settle,
        }
    }
}

impl Request {
    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let (id, size) = match self.command {
            Command::Hello(token) => (token.unwrap_or_default(), 0),
            Command::Register { id, size } | Command::Create { id, size } => (id, size.get()),
            Command::Open(id)
            | Command::Release(id)
            | Command::Fork(id)
            | Command::Unlock(id)
            | Command::Settle(id) => (id, 0),
            Command::Lock { id, byte }
            | Command::Relock { id, byte }
            | Command::Query { id, byte } => (id, byte),
            Command::Life { id, end } => (id, end as u64),
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
        let byte = fields.size;
        let command = match (opcode, size, id.is_empty()) {
            (Opcode::Hello, None, true) => Command::Hello(None),
            (Opcode::Hello, None, false) => Command::Hello(Some(id)),
            (Opcode::Register, Some(size), false) => Command::Register { id, size },
            (Opcode::Open, None, false) => Command::Open(id),
            (Opcode::Release, None, false) => Command::Release(id),
            (Opcode::Fork, None, false) => Command::Fork(id),
            (Opcode::Create, Some(size), false) => Command::Create { id, size },
            (Opcode::Lock, _, false) => Command::Lock { id, byte },
            (Opcode::Relock, _, false) => Command::Relock { id, byte },
            (Opcode::Query, _, false) => Command::Query { id, byte },
            (Opcode::Unlock, None, false) => Command::Unlock(id),
            (Opcode::Settle, None, false) => Command::Settle(id),
            (Opcode::Life, _, false) => Command::Life {
                id,
                end: PipeEnd::from_code(byte).ok_or(DecodeError::Size)?,
            },
            (
                Opcode::Register
                | Opcode::Create
                | Opcode::Lock
                | Opcode::Relock
                | Opcode::Query
                | Opcode::Life,
                Some(_),
                true,
            )
            | (Opcode::Lock | Opcode::Relock | Opcode::Query, None, true) => {
                return Err(DecodeError::Id);
            }
            (Opcode::Register | Opcode::Create | Opcode::Life, ..) | (_, Some(_), _) => {
                return Err(DecodeError::Size);
            }
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

impl PipeEnd {
    fn from_code(code: u64) -> Option<Self> {
        [Self::Read, Self::Write]
            .into_iter()
            .find(|&end| end as u64 == code)
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
            Self::Create,
            Self::Lock,
            Self::Relock,
            Self::Unlock,
            Self::Query,
            Self::Life,
            Self::Settle,
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
            Self::Unsettled,
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
