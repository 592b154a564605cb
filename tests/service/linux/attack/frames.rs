//! Frames: none, incomplete, random and false ones.

use std::thread;
use std::time::Duration;

use rustix::fd::AsFd;

use super::descriptors::memory;
use super::raw::{self, FORK, HELLO, OPEN, REGISTER, RELEASE, Raw, frame};
use super::{Dice, Scene};
use testkit::Outcome;

pub(crate) fn silent_connections_are_closed() -> Outcome {
    let mut scene = Scene::new()?;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Raw::connect(scene.address())?);
    }
    scene.assert_served();
    for client in silent {
        assert!(client.is_closed()?);
    }
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn incomplete_frames_end_the_connection() -> Outcome {
    let mut scene = Scene::new()?;
    for introduced in [false, true] {
        let client = if introduced {
            let client = Raw::introduced(scene.address())?;
            client.send(&[1], &[])?;
            client
        } else {
            Raw::sent(scene.address(), &[1], &[])?
        };
        scene.assert_served();
        assert!(client.is_closed()?);
    }
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn slow_frames_end_the_connection() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::connect(scene.address())?;
    let hello = frame(HELLO, 0, "");
    let mut sent = 0;
    // At this pace the frame would take forty seconds.
    for byte in hello {
        scene.assert_served();
        if client.send(&[byte], &[]).is_err() {
            break;
        }
        sent += 1;
        thread::sleep(Duration::from_secs(1));
    }
    assert!(sent < 10, "the service has waited for {sent} bytes");
    assert!(client.is_closed()?);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn random_bytes_harm_nobody() -> Outcome {
    let mut scene = Scene::new()?;
    let mut dice = Dice::new();
    let valid = [
        frame(HELLO, 0, ""),
        frame(REGISTER, 100, &raw::id(1)),
        frame(OPEN, 0, &raw::id(1)),
        frame(RELEASE, 0, &raw::id(1)),
        frame(FORK, 0, &raw::id(1)),
    ];
    for round in 0..600 {
        let mut bytes = match round % 3 {
            // Forty random bytes.
            0 => [0; 40].map(|_: u8| dice.roll().to_le_bytes()[0]),
            // The header of a request, and random bytes.
            1 => {
                let mut bytes = [0; 40].map(|_: u8| dice.roll().to_le_bytes()[0]);
                bytes[..4].copy_from_slice(&valid[round % valid.len()][..4]);
                bytes
            }
            _ => valid[round % valid.len()],
        };
        // One bit is changed, also in a request that would be valid.
        let bit = dice.roll();
        bytes[(bit >> 8) as usize % 40] ^= 1 << (bit % 8);
        if round % 2 == 0 {
            Raw::introduced(scene.address())?.send(&bytes, &[])?;
        } else {
            Raw::sent(scene.address(), &bytes, &[])?;
        }
        if round % 100 == 0 {
            scene.assert_served();
        }
    }
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn malformed_frames_end_the_connection() -> Outcome {
    let mut scene = Scene::new()?;
    let open = frame(OPEN, 0, &raw::id(1));
    let with = |offset: usize, byte: u8| {
        let mut changed = open;
        changed[offset] = byte;
        changed.to_vec()
    };
    let mut long_id = open;
    long_id[16..36].fill(b'a');
    let mut lies = vec![
        // A wrong version, opcode, or byte of the two zeros behind it.
        with(0, 0),
        with(0, 2),
        with(1, 0),
        with(1, 6),
        with(1, 0x7f),
        with(1, OPEN | 0x80),
        with(2, 1),
        with(3, 1),
        // A size where none belongs, and none where one does.
        frame(OPEN, 1, &raw::id(1)).to_vec(),
        frame(HELLO, 1, "").to_vec(),
        frame(REGISTER, 0, &raw::id(1)).to_vec(),
        // Ids that are empty, not terminated, not UTF-8, or followed by other bytes than zeros.
        frame(OPEN, 0, "").to_vec(),
        frame(REGISTER, 100, "").to_vec(),
        frame(RELEASE, 0, "").to_vec(),
        frame(FORK, 0, "").to_vec(),
        long_id.to_vec(),
        with(17, 0xff),
        with(17, 0),
        // A wrong byte of the zeros at the end.
        with(36, 1),
        with(39, 1),
        // A wrong length.
        open[..39].to_vec(),
        vec![0; 100_000],
        // A second introduction.
        frame(HELLO, 0, "").to_vec(),
    ];
    if !raw::IS_STREAM {
        lies.push([&open[..], &[0]].concat());
        lies.push([open, open].concat());
    }
    for lie in lies {
        let client = Raw::introduced(scene.address())?;
        // A packet that is too long for the socket's buffer is refused by the kernel.
        if client.send(&lie, &[]).is_ok() {
            assert!(client.is_closed()?, "{lie:?}");
        }
    }
    // No introduction.
    for request in [
        frame(REGISTER, 100, &raw::id(1)),
        open,
        frame(RELEASE, 0, &raw::id(1)),
        frame(FORK, 0, &raw::id(1)),
    ] {
        let client = Raw::sent(scene.address(), &request, &[])?;
        assert!(client.is_closed()?);
    }
    scene.assert_served();
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn ids_of_others_cannot_be_taken_or_released() -> Outcome {
    let mut scene = Scene::new()?;
    let client = Raw::introduced(scene.address())?;
    let own = memory(100)?;
    let status = |request: [u8; 40]| client.ask(&request, &[]);
    for id in ["/../../etc/passwd", "1", "?too-long", &raw::id(1)] {
        assert_eq!(status(frame(OPEN, 0, id))?, Some(raw::UNKNOWN), "{id}");
    }
    // A client can neither replace a segment of another one nor release it.
    for size in [100, 200] {
        let register = frame(REGISTER, size, &scene.id);
        let memory = memory(size)?;
        let status = client.ask(&register, &[memory.as_fd()])?;
        assert_eq!(status, Some(raw::TAKEN), "{size}");
    }
    client.send(&frame(RELEASE, 0, &scene.id), &[])?;
    client.send(&frame(RELEASE, 0, &raw::id(1)), &[])?;
    scene.assert_served();
    // A holder releases its own hold only, however often it sends the request.
    assert_eq!(status(frame(OPEN, 0, &scene.id))?, Some(raw::DONE));
    for _ in 0..3 {
        client.send(&frame(RELEASE, 0, &scene.id), &[])?;
    }
    scene.assert_served();
    // The child of a fork that was not announced is refused.
    let child = Raw::connect(scene.address())?;
    let hello = frame(HELLO, 0, &raw::id(2));
    assert_eq!(child.ask(&hello, &[])?, Some(raw::UNKNOWN));
    // The token of a fork is valid for one child.
    let register = frame(REGISTER, 100, &raw::id(3));
    assert_eq!(client.ask(&register, &[own.as_fd()])?, Some(raw::DONE));
    let announce = frame(FORK, 0, &raw::id(4));
    assert_eq!(status(announce)?, Some(raw::DONE));
    assert_eq!(status(announce)?, Some(raw::FULL));
    let hello = frame(HELLO, 0, &raw::id(4));
    for expected in [raw::DONE, raw::UNKNOWN] {
        let child = Raw::connect(scene.address())?;
        assert_eq!(child.ask(&hello, &[])?, Some(expected));
    }
    drop((client, child));
    scene.assert_unharmed();
    Ok(())
}
