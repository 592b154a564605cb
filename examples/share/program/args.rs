//! [`Args`]: the command line.

use core::num::NonZeroUsize;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use lexopt::prelude::*;
use shmem_providers::{Mechanism, StdShMemProvider};

use super::Result;

pub(super) const USAGE: &str = "\
Shares the bytes of files with worker processes, through shared memory and through pipes,
checks their results, and reports the times.

Usage: share [OPTION…] [FILE or DIRECTORY…]

  --workers N     number of worker processes (default: one per core, at least 2)
  --repeat N      rounds after the first; their medians are reported (default: 5)
  --mechanism M   default, memfd, sysv or posix (whose names stay in /dev/shm if the parent is
                  killed)
  --kill          kill a worker in the middle of its part, and report what is left
  --help          this text

The bytes of all files are joined; a directory stands for all files in it. The default is the
sources of the crate and of its tests.";

/// The command line.
pub(super) struct Args {
    files: Vec<PathBuf>,
    pub(super) workers: usize,
    pub(super) repeat: usize,
    pub(super) provider: StdShMemProvider,
    pub(super) kill: bool,
    pub(super) help: bool,
}

impl Args {
    pub(super) fn parse() -> Result<Self> {
        let mut args = Self {
            files: Vec::new(),
            workers: available_parallelism().map_or(2, |cores| cores.get().max(2)),
            repeat: 5,
            provider: StdShMemProvider::default(),
            kill: false,
            help: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("workers") => args.workers = parser.value()?.parse::<NonZeroUsize>()?.get(),
                Long("repeat") => args.repeat = parser.value()?.parse::<NonZeroUsize>()?.get(),
                Long("mechanism") => args.provider = parser.value()?.parse_with(provider)?,
                Long("kill") => args.kill = true,
                Short('h') | Long("help") => args.help = true,
                Value(file) => args.files.push(file.into()),
                _ => return Err(arg.unexpected().into()),
            }
        }
        if args.files.is_empty() {
            let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
            args.files = ["src", "tests"].map(|name| sources.join(name)).into();
        }
        Ok(args)
    }

    /// Returns the bytes of all files, at least one.
    pub(super) fn read_files(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for path in &self.files {
            read(path, &mut bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if bytes.is_empty() {
            return Err("the input is empty".into());
        }
        Ok(bytes)
    }
}

/// Appends the bytes of the file, or of all files in the directory, in the order of their names.
fn read(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    if !path.is_dir() {
        File::open(path)?.read_to_end(bytes)?;
        return Ok(());
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let mut inside: Vec<_> = entries.collect::<io::Result<_>>()?;
    inside.sort();
    inside.iter().try_for_each(|path| read(path, bytes))
}

fn provider(name: &str) -> core::result::Result<StdShMemProvider, &'static str> {
    let mechanism = match name {
        "default" => return Ok(StdShMemProvider::default()),
        "memfd" => Mechanism::Memfd,
        "sysv" => Mechanism::SystemV,
        "posix" => Mechanism::Posix,
        _ => return Err("a mechanism is default, memfd, sysv or posix"),
    };
    Ok(StdShMemProvider::with_mechanism(mechanism))
}
