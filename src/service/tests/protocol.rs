//! Every frame is one message with one encoding, or is rejected with the reason.

use alloc::vec;
use core::num::NonZeroU64;

use proptest::prelude::*;

use super::id;
use crate::id::ShMemId;
use crate::service::protocol::{
    Command, DecodeError, FRAME, Frame, Opcode, PipeEnd, Reply, Request, Status, VERSION,
};

fn any_id() -> impl Strategy<Value = ShMemId> {
    "[ -~]{1,19}".prop_map(|text| ShMemId::from_string(&text))
}

/// The byte 0 is one like others.
fn any_byte() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>()]
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        proptest::option::of(any_id()).prop_map(Command::Hello),
        (any_id(), 1..u64::MAX).prop_map(|(id, size)| Command::Register {
            id,
            size: NonZeroU64::new(size).unwrap(),
        }),
        any_id().prop_map(Command::Open),
        any_id().prop_map(Command::Release),
        any_id().prop_map(Command::Fork),
        (any_id(), 1..u64::MAX).prop_map(|(id, size)| Command::Create {
            id,
            size: NonZeroU64::new(size).unwrap(),
        }),
        (any_id(), any_byte()).prop_map(|(id, byte)| Command::Lock { id, byte }),
        (any_id(), any_byte()).prop_map(|(id, byte)| Command::Relock { id, byte }),
        any_id().prop_map(Command::Unlock),
        (any_id(), any_byte()).prop_map(|(id, byte)| Command::Query { id, byte }),
        (any_id(), any::<bool>()).prop_map(|(id, reads)| Command::Life {
            id,
            end: if reads { PipeEnd::Read } else { PipeEnd::Write },
        }),
        any_id().prop_map(Command::Settle),
    ]
}

proptest! {
    #[test]
    fn a_request_decodes_to_itself(number: u32, command in any_command()) {
        let request = Request { number, command };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        let opcode = request.command.opcode() as u8;
        prop_assert_eq!(Reply::decode(&request.encode()), Err(DecodeError::Opcode(opcode)));
    }

    #[test]
    fn each_message_has_one_encoding(bytes: [u8; 32], head in 0..32_u8, tail: u8, small: bool) {
        let mut frame: Frame = [0; FRAME];
        frame[..2].copy_from_slice(&[VERSION, head & 15 | (head & 16) << 3]);
        frame[4..36].copy_from_slice(&bytes);
        if small {
            // Most values of the field for sizes are not valid in most messages.
            frame[8] &= 3;
            frame[9..16].fill(0);
        }
        // Most ids are shorter than the field, as real ones are.
        frame[20 + usize::from(tail) % 16..36].fill(0);
        if let Ok(request) = Request::decode(&frame) {
            prop_assert_eq!(request.encode(), frame);
        }
        if let Ok(reply) = Reply::decode(&frame) {
            prop_assert_eq!(reply.encode(), frame);
        }
    }

    #[test]
    fn a_changed_frame_is_another_message_or_none(
        number: u32,
        command in any_command(),
        index in 0..FRAME,
        change in 1..=u8::MAX,
    ) {
        let request = Request { number, command };
        let mut frame = request.encode();
        frame[index] ^= change;
        prop_assert_ne!(Request::decode(&frame), Ok(request));
    }
}

#[test]
fn request_bytes_match_the_table() {
    let size = NonZeroU64::new(0x0102_0304_0506_0708).unwrap();
    let command = Command::Register {
        id: ShMemId::from_string("sabc"),
        size,
    };
    let frame = Request {
        number: 0x0a0b_0c0d,
        command,
    }
    .encode();
    let mut expected = [0; FRAME];
    expected[..8].copy_from_slice(&[1, 2, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
    expected[8..16].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
    expected[16..20].copy_from_slice(b"sabc");
    assert_eq!(frame, expected);
}

#[test]
fn a_reply_decodes_to_itself() {
    let opcodes = [
        Opcode::Hello,
        Opcode::Register,
        Opcode::Open,
        Opcode::Release,
        Opcode::Fork,
        Opcode::Create,
        Opcode::Lock,
        Opcode::Relock,
        Opcode::Unlock,
        Opcode::Query,
        Opcode::Life,
        Opcode::Settle,
    ];
    let statuses = [
        Status::Done,
        Status::Unknown,
        Status::Taken,
        Status::Full,
        Status::BadDescriptor,
        Status::Busy,
        Status::Unsettled,
    ];
    for opcode in opcodes {
        for status in statuses {
            for size in [0, 100, u64::MAX] {
                let number = 7;
                let reply = Reply {
                    number,
                    opcode,
                    status,
                    size,
                };
                let decoded = Reply::decode(&reply.encode());
                // Only a reply to `Open` has a size.
                let is_open = opcode == Opcode::Open && status == Status::Done;
                let is_valid = is_open == (size > 0);
                assert_eq!(decoded, is_valid.then_some(reply).ok_or(DecodeError::Size));
                let code = opcode as u8 | 0x80;
                let as_request = Request::decode(&reply.encode());
                assert_eq!(as_request, Err(DecodeError::Opcode(code)));
            }
        }
    }
}

#[test]
fn an_invalid_frame_has_a_reason() {
    let request = Request {
        number: 7,
        command: Command::Open(id(1)),
    };
    let reply = Reply {
        number: 7,
        opcode: Opcode::Open,
        status: Status::Done,
        size: 100,
    };
    let changed = |frame: Frame, index: usize, byte: u8| {
        let mut frame = frame;
        frame[index] = byte;
        frame
    };
    let request = |index, byte| Request::decode(&changed(request.encode(), index, byte));
    let life = Request {
        number: 7,
        command: Command::Life {
            id: id(1),
            end: PipeEnd::Read,
        },
    };
    let life = Request::decode(&changed(life.encode(), 8, 3));
    assert_eq!(life, Err(DecodeError::Size));
    let reply = |index, byte| Reply::decode(&changed(reply.encode(), index, byte));
    assert_eq!(request(0, 2), Err(DecodeError::Version(2)));
    assert_eq!(request(1, 0), Err(DecodeError::Opcode(0)));
    assert_eq!(request(1, 13), Err(DecodeError::Opcode(13)));
    for opcode in [Opcode::Register, Opcode::Create, Opcode::Life] {
        assert_eq!(request(1, opcode as u8), Err(DecodeError::Size));
    }
    assert_eq!(request(2, 1), Err(DecodeError::Status(1)));
    assert_eq!(request(3, 1), Err(DecodeError::Padding));
    assert_eq!(request(8, 1), Err(DecodeError::Size));
    assert_eq!(request(16, 0), Err(DecodeError::Id));
    assert_eq!(request(18, b'1'), Err(DecodeError::Id));
    assert_eq!(request(39, 1), Err(DecodeError::Padding));
    assert_eq!(reply(0, 2), Err(DecodeError::Version(2)));
    assert_eq!(reply(1, 0x8d), Err(DecodeError::Opcode(0x8d)));
    assert_eq!(reply(2, 7), Err(DecodeError::Status(7)));
    assert_eq!(reply(3, 1), Err(DecodeError::Padding));
    assert_eq!(reply(8, 0), Err(DecodeError::Size));
    assert_eq!(reply(16, 1), Err(DecodeError::Id));
    assert_eq!(reply(36, 1), Err(DecodeError::Padding));
}
