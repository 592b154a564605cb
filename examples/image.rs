//! An image between processes: one draws a picture, another one inverts it in place.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::{env, error::Error, process::Command};

use shmem_providers::{ShMemProvider, SharedLayout, StdShMemProvider, Typed};

#[derive(SharedLayout)]
#[repr(C)]
struct Image {
    pixels: [[AtomicU8; 40]; 8], // rows of shades of grey
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    if env::var_os("IMAGE").is_some() {
        let image = Typed::<Image>::existing_from_env(&mut provider, "IMAGE")?;
        for pixel in image.pixels.as_flattened() {
            pixel.fetch_xor(0xff, Relaxed);
        }
        return Ok(());
    }
    let image = Typed::<Image>::create(&mut provider, |_| {})?;
    for (y, row) in (0..).zip(&image.pixels) {
        for (x, pixel) in (0..).zip(row) {
            pixel.store(x * 6 + y * 2, Relaxed);
        }
    }
    let mut child = Command::new(env::current_exe()?);
    image.hand_over(&mut child, "IMAGE")?;
    if !child.status()?.success() {
        return Err("the child has failed".into());
    }
    for row in &image.pixels {
        let shade = |pixel: &AtomicU8| b".:-=+*#@"[usize::from(pixel.load(Relaxed) / 32)] as char;
        println!("{}", row.iter().map(shade).collect::<String>());
    }
    Ok(())
}
