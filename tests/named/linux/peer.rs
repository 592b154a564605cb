//! What a second process does: `COMMAND WORD…` by line, or one call with `once`.

use std::collections::HashMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shmem_providers::{
    MmapShMemProvider, Named, NamedOptions, Persist, ShMem, ShMemProvider, StdShMemProvider,
};

/// The bytes that an initialisation writes behind the number of the process.
pub(crate) const FILL: u8 = 0xab;

/// The size of the segments of peers.
pub(crate) const SIZE: usize = 4096;

/// Initialises a segment in many steps: the number of the process, a counter, and the rest.
pub(crate) fn initialise(bytes: &mut [u8]) {
    for byte in &mut bytes[8..] {
        *byte = FILL;
        if std::ptr::from_ref(byte).addr() % 512 == 0 {
            std::thread::yield_now();
        }
    }
    bytes[..4].copy_from_slice(&process::id().to_ne_bytes());
}

/// Returns the number of the process that initialised the segment, if it did so to the end.
pub(crate) fn initialised_by(segment: &mut impl ShMem) -> Result<u32, Box<dyn Error>> {
    let mut bytes = vec![0; segment.len()];
    segment.access().read_at(0, &mut bytes)?;
    match bytes[8..].iter().position(|&byte| byte != FILL) {
        Some(at) => Err(format!("byte {at} is not initialised").into()),
        None => Ok(u32::from_ne_bytes(bytes[..4].try_into()?)),
    }
}

/// Options that write nothing to the directory of names but what the library does.
fn options(directory: &str) -> NamedOptions {
    NamedOptions::new().directory(directory)
}

pub(crate) fn serve() {
    let mut named = NamedOptions::new();
    let mut held: HashMap<String, Named<StdShMemProvider>> = HashMap::new();
    testkit::peer::serve(|words| -> Result<String, Box<dyn Error>> {
        match *words {
            ["dir", path] => named = named.clone().directory(path),
            ["timeout", ms] => named = named.clone().timeout(Duration::from_millis(ms.parse()?)),
            ["persist"] => named = named.clone().persist(Persist::UntilRemoved),
            // Appends its number to the log for each initialisation.
            ["make", name, log] => {
                let mut opened = named.try_open_or_create(name, SIZE, |bytes| {
                    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
                    initialise(bytes);
                    writeln!(log, "{}", process::id())?;
                    Ok::<_, Box<dyn Error>>(())
                })?;
                let creator = initialised_by(&mut opened)?;
                held.insert(name.into(), opened);
                return Ok(creator.to_string());
            }
            // Ends after it has told that it initialises: killed, or stopped.
            ["stuck", name] => {
                named.open_or_create(name, SIZE, |bytes| {
                    bytes.fill(1);
                    println!("ok initialising");
                    loop {
                        std::thread::park();
                    }
                })?;
            }
            ["open", name] => {
                let mut opened = named.open(name)?;
                let creator = initialised_by(&mut opened)?;
                held.insert(name.into(), opened);
                return Ok(creator.to_string());
            }
            ["count", name] => {
                let segment = held.get_mut(name).ok_or("not held")?;
                let access = segment.access();
                let counter = &access.as_atomic_u32()?[1];
                return Ok(counter.fetch_add(1, Ordering::SeqCst).to_string());
            }
            ["storm", name, times] => {
                for _ in 0..times.parse()? {
                    let mut opened = named.open_or_create(name, SIZE, initialise)?;
                    initialised_by(&mut opened)?;
                }
            }
            ["drop", name] => drop(held.remove(name).ok_or("not held")?),
            ["list"] => {
                let listed: Vec<_> = named.list()?.into_iter().map(|named| named.name).collect();
                return Ok(listed.join(" "));
            }
            ["remove", name] => named.remove(name)?,
            ["public"] => {
                // The directory that the environment of this process chooses.
                drop(Named::open_or_create("public", SIZE, initialise)?);
            }
            _ => return Err(format!("unknown command {words:?}").into()),
        }
        Ok(String::new())
    });
}

/// Creates or opens the segment once and drops it, as `DIRECTORY KIND NAME`.
pub(crate) fn once(words: &[String]) {
    let [directory, kind, name] = words else {
        panic!("{words:?}");
    };
    let result = match kind.as_str() {
        "std" => options(directory)
            .open_or_create(name, SIZE, initialise)
            .map(drop),
        "persistent" => options(directory)
            .persist(Persist::UntilRemoved)
            .open_or_create(name, SIZE, initialise)
            .map(drop),
        "posix" => {
            let provider = MmapShMemProvider::new().expect("it needs nothing");
            NamedOptions::with_provider(provider)
                .directory(Path::new(directory))
                .open_or_create(name, SIZE, initialise)
                .map(drop)
        }
        other => panic!("{other}"),
    };
    if let Err(error) = result {
        eprintln!("{error}");
        process::exit(1);
    }
}
