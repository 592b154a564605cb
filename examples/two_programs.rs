//! Two programs: a server prints the id of a segment, a client opens it by that id.
//! Without arguments it starts both. Or run `two_programs serve`, and `two_programs ID` elsewhere.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::{env, error::Error};

use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    match env::args().nth(1).as_deref() {
        Some("serve") => {
            let shared = provider.new_shmem(4096)?.share();
            shared.access().write_at(0, b"hello")?;
            println!("{}", shared.id());
            io::stdin().read_line(&mut String::new())?; // until then the id opens the segment
        }
        Some(id) => {
            let shared = provider.shmem_from_id(id.parse()?)?.share();
            let mut text = [0; 5];
            shared.access().read_at(0, &mut text)?;
            println!("{} bytes: {}", shared.len(), String::from_utf8_lossy(&text));
        }
        None => {
            let mut server = Command::new(env::current_exe()?);
            server.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut server = server.arg("serve").spawn()?;
            let mut output = BufReader::new(server.stdout.take().ok_or("no output")?);
            let mut id = String::new();
            output.read_line(&mut id)?;
            let client = Command::new(env::current_exe()?).arg(id.trim()).status()?;
            let server = server.wait()?; // closes its input, so that it ends
            assert!(client.success() && server.success());
        }
    }
    Ok(())
}
