//! Several processes share a table under a name: the first one computes it, the others find it complete.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::{self, Command};
use std::{array, env};

use shmem_providers::Named;

fn squares(bytes: &mut [u8]) {
    println!("process {} computes the table", process::id());
    for (number, square) in (0_u64..).zip(bytes.chunks_exact_mut(8)) {
        square.copy_from_slice(&(number * number).to_ne_bytes());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = env::args().nth(1);
    let name = given
        .clone()
        .unwrap_or_else(|| format!("squares/{}", process::id()));
    let table = Named::open_or_create(&name, 1 << 16, squares)?;
    let square = u64::from_ne_bytes(array::from_fn(|i| table[8 * 1111 + i]));
    println!("process {} finds {square}", process::id());
    if given.is_none() {
        for _ in 0..3 {
            assert!(
                Command::new(env::current_exe()?)
                    .arg(&name)
                    .status()?
                    .success()
            );
        }
        // The name and the memory end with the last process that holds them.
        drop(table);
        assert!(Named::open(&name).is_err_and(|error| error.is_not_found()));
    }
    Ok(())
}
