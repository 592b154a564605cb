//! Whatever is written to the words of a ring between operations, they return `Ok` or `Err`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/ring/hostile.rs"]
mod hostile;

fuzz_target!(|data: &[u8]| hostile::run(data));
