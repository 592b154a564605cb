//! The second process: a program that does what it is told, line by line.
//!
//! ```text
//! make SIZE                 ok ID            the segment becomes the newest
//! open ID [SIZE]            ok SIZE          the segment becomes the newest
//! env NAME                  ok SIZE          the same, from the environment
//! put OFFSET BYTE           ok               of the newest
//! get OFFSET                ok BYTE          of the newest
//! drop                      ok               the newest
//! handles                   ok COUNT         how many are open
//! churn                                      until it is terminated: makes and drops segments
//! ```

use std::error::Error;
use std::io;

use shmem_providers::{ShMem, ShMemId, ShMemProvider, StdShMem, StdShMemProvider};

use testkit::open_files;
pub(crate) use testkit::peer::Peer;

/// What the second process does until its orders end.
pub(crate) fn serve() {
    let mut segments = Vec::new();
    for order in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = order.split(' ').collect();
        match obey(&mut segments, &words) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("err {}", error.to_string().replace(['\r', '\n'], " ")),
        }
    }
}

fn obey(segments: &mut Vec<StdShMem>, order: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    let newest = segments.last_mut().ok_or("no segment");
    let opened = match *order {
        ["make", size] => {
            let segment = provider.new_shmem(size.parse()?)?;
            let id = segment.id().to_string();
            segments.push(segment);
            return Ok(id);
        }
        ["open", id] => provider.shmem_from_id(ShMemId::from_string(id))?,
        ["open", id, size] => {
            provider.shmem_from_id_and_size(ShMemId::from_string(id), size.parse()?)?
        }
        ["env", name] => provider.existing_from_env(name)?,
        ["put", offset, byte] => {
            newest?
                .access()
                .write_at(offset.parse()?, &[byte.parse()?])?;
            return Ok(String::new());
        }
        ["get", offset] => {
            let mut byte = [0];
            newest?.access().read_at(offset.parse()?, &mut byte)?;
            return Ok(byte[0].to_string());
        }
        ["drop"] => {
            drop(segments.pop());
            return Ok(String::new());
        }
        ["handles"] => return Ok(open_files().to_string()),
        ["churn"] => loop {
            provider.new_shmem(65536)?[0] = 1;
        },
        _ => return Err(format!("unknown order {order:?}").into()),
    };
    let size = opened.len().to_string();
    segments.push(opened);
    Ok(size)
}
