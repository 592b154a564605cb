//! `ShMemCursor` compared with the cursor of the standard library, and pipes.

use std::io::{BufRead, Cursor, IoSlice, IoSliceMut, Result, Seek, SeekFrom, Write};

use proptest::prelude::*;
use shmem_providers::{NopShMemProvider, ShMemCursor, ShMemProvider};

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    ReadExact(usize),
    ReadVectored(usize, usize),
    ReadToEnd,
    FillAndConsume,
    Write(Vec<u8>),
    WriteAll(Vec<u8>),
    WriteVectored(Vec<u8>, Vec<u8>),
    Start(u64),
    End(i64),
    Current(i64),
    SetPosition(u64),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (0_usize..40).prop_map(Step::Read),
        (0_usize..40).prop_map(Step::ReadExact),
        (0_usize..20, 0_usize..20).prop_map(|(a, b)| Step::ReadVectored(a, b)),
        Just(Step::ReadToEnd),
        Just(Step::FillAndConsume),
        bytes().prop_map(Step::Write),
        bytes().prop_map(Step::WriteAll),
        (bytes(), bytes()).prop_map(|(a, b)| Step::WriteVectored(a, b)),
        prop_oneof![0_u64..50, any::<u64>()].prop_map(Step::Start),
        prop_oneof![-50_i64..50, any::<i64>()].prop_map(Step::End),
        prop_oneof![-50_i64..50, any::<i64>()].prop_map(Step::Current),
        prop_oneof![0_u64..50, any::<u64>()].prop_map(Step::SetPosition),
        Just(Step::Flush),
    ]
}

/// Performs a step and returns its results as text.
fn act(file: &mut (impl BufRead + Write + Seek), step: &Step) -> String {
    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        format!("{:?}", result.map_err(|error| error.kind()))
    }
    match step {
        Step::Read(len) => {
            let mut buf = vec![0; *len];
            format!("{} {buf:?}", text(file.read(&mut buf)))
        }
        Step::ReadExact(len) => {
            let mut buf = vec![0; *len];
            // The content of the buffer is not specified if the call fails.
            match file.read_exact(&mut buf) {
                Ok(()) => format!("{buf:?}"),
                failed => text(failed),
            }
        }
        Step::ReadVectored(a, b) => {
            let (mut a, mut b) = (vec![0; *a], vec![0; *b]);
            let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
            let read = text(file.read_vectored(&mut bufs));
            format!("{read} {a:?} {b:?}")
        }
        Step::ReadToEnd => {
            let mut buf = Vec::new();
            format!("{} {buf:?}", text(file.read_to_end(&mut buf)))
        }
        Step::FillAndConsume => {
            let filled = file.fill_buf().map(<[u8]>::to_vec);
            let len = filled.as_ref().map_or(0, Vec::len);
            file.consume(len / 2);
            text(filled)
        }
        Step::Write(bytes) => text(file.write(bytes)),
        Step::WriteAll(bytes) => text(file.write_all(bytes)),
        Step::WriteVectored(a, b) => text(file.write_vectored(&[IoSlice::new(a), IoSlice::new(b)])),
        Step::Start(to) => text(file.seek(SeekFrom::Start(*to))),
        Step::End(to) => text(file.seek(SeekFrom::End(*to))),
        Step::Current(to) => text(file.seek(SeekFrom::Current(*to))),
        // The caller does this, because it is not a method of a trait.
        Step::SetPosition(_) => String::new(),
        Step::Flush => text(file.flush()),
    }
}

proptest! {
    #[test]
    fn it_does_what_the_standard_librarys_cursor_does(
        size in 1_usize..48,
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let mut ours = ShMemCursor::new(NopShMemProvider.new_shmem(size)?);
        let mut bytes = vec![0; size];
        let mut theirs = Cursor::new(&mut bytes[..]);
        for step in &steps {
            if let Step::SetPosition(to) = step {
                ours.set_position(*to);
                theirs.set_position(*to);
            }
            prop_assert_eq!(act(&mut ours, step), act(&mut theirs, step), "{:?}", step);
            prop_assert_eq!(ours.position(), theirs.position(), "{:?}", step);
        }
        prop_assert_eq!(&ours.get_ref()[..], &**theirs.get_ref());
        ours.get_mut()[0] = 9;
        prop_assert_eq!(ours.into_inner()[0], 9);
    }
}

#[cfg(unix)]
#[test]
fn the_ends_of_a_pipe_are_closed_once_and_for_all_clones()
-> std::result::Result<(), Box<dyn std::error::Error>> {
    use shmem_providers::pipes::Pipe;
    use std::io::{ErrorKind, Read as _};

    let mut pipe = Pipe::new()?;
    let mut clone = pipe.clone();
    assert!(pipe.read_end().is_some() && pipe.write_end().is_some());
    pipe.write_all(b"one")?;
    pipe.close_write_end();
    assert_eq!(pipe.write_end(), None);
    assert_eq!(
        pipe.write(b"x").map_err(|error| error.kind()),
        Err(ErrorKind::BrokenPipe)
    );
    clone.write_all(b"two")?;
    clone.close_write_end();
    let mut text = String::new();
    clone.read_to_string(&mut text)?;
    assert_eq!(text, "onetwo");
    clone.close_read_end();
    assert_eq!(
        clone.read(&mut [0]).map_err(|error| error.kind()),
        Err(ErrorKind::BrokenPipe)
    );
    assert_eq!(pipe.read(&mut [0])?, 0);

    // Without a reader.
    let mut pipe = Pipe::new()?;
    pipe.close_read_end();
    assert_eq!(
        pipe.write(b"x").map_err(|error| error.kind()),
        Err(ErrorKind::BrokenPipe)
    );
    Ok(())
}
