//! Segments through the service: it loses a client, then its host, and goes on.
//!
//! ```sh
//! cargo run --release --example served
//! ```
//!
//! One program serves; three others, started afresh and not forked, make a segment each and open
//! those of the others by their ids. One of them is killed, then the program that serves: another
//! one takes over, everything that somebody holds can be opened by the same id as before, and a
//! program that comes now finds it. At the end nothing is left.
//!
//! `client` is what a program of yours would do; the rest tells it when, and kills.

#[cfg(all(feature = "std", target_os = "linux"))]
mod program {
    use std::env;
    use std::error::Error;
    use std::fs;
    use std::io::{self, BufRead, BufReader, Write};
    use std::path::Path;
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

    use shmem_providers::{
        ShMem, ShMemId, ShMemProvider, ShMemService, StdServedShMem, StdServedShMemProvider,
    };

    type Result<T> = std::result::Result<T, Box<dyn Error>>;

    pub(super) fn main() -> Result<()> {
        match env::args().nth(1).as_deref() {
            None => story(&mut io::stdout()),
            Some("host") => host(),
            Some("client") => client(),
            Some(_) => Err("served takes no arguments".into()),
        }
    }

    /// Serves until this program is told to end.
    fn host() -> Result<()> {
        // The address comes from the environment, see `Program::start`.
        let service = ShMemService::start()?;
        answer("serving");
        for _ in io::stdin().lines() {}
        drop(service);
        Ok(())
    }

    /// Makes and opens segments as it is told.
    fn client() -> Result<()> {
        let mut provider = StdServedShMemProvider::new()?;
        let mut held: Vec<StdServedShMem> = Vec::new();
        for order in io::stdin().lines().map_while(io::Result::ok) {
            let done = match order.split_once(' ') {
                Some(("make", text)) => make(&mut provider, text),
                Some(("open", id)) => provider
                    .shmem_from_id(ShMemId::from_string(id))
                    .map_err(Into::into),
                _ => Err("an order is `make TEXT` or `open ID`".into()),
            };
            match done {
                Ok(segment) => {
                    let text = String::from_utf8_lossy(&segment).into_owned();
                    answer(&format!("{} {text}", segment.id()));
                    held.push(segment);
                }
                Err(error) => answer(&format!("- {error}")),
            }
        }
        Ok(())
    }

    fn make(provider: &mut StdServedShMemProvider, text: &str) -> Result<StdServedShMem> {
        let mut segment = provider.new_shmem(text.len())?;
        segment.copy_from_slice(text.as_bytes());
        Ok(segment)
    }

    fn answer(line: &str) {
        let mut out = io::stdout().lock();
        // Without anybody to tell, the orders end as well.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// What happens, in order.
    fn story(out: &mut impl Write) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let address = folder.path().join("service");
        let mut server = Program::start("host", &address)?;
        server.hear()?;
        writeln!(
            out,
            "process {} serves at {}",
            server.pid(),
            address.display()
        )?;

        let mut clients = Vec::new();
        let mut ids = Vec::new();
        for name in ["red", "green", "blue"] {
            let mut client = Program::start("client", &address)?;
            let (id, _) = client.ask(&format!("make the {name} one"))?;
            writeln!(
                out,
                "process {} makes {id}: \"the {name} one\"",
                client.pid()
            )?;
            ids.push(id);
            clients.push(client);
        }
        // Only the red one is held by others as well.
        for client in &mut clients[1..] {
            let (_, text) = client.ask(&format!("open {}", ids[0]))?;
            writeln!(out, "process {} opens {}: \"{text}\"", client.pid(), ids[0])?;
        }

        let red = clients.remove(0);
        writeln!(
            out,
            "process {} is killed, which made the red one",
            red.pid()
        )?;
        red.kill()?;
        writeln!(out, "process {} is killed, which served", server.pid())?;
        server.kill()?;

        let mut late = Program::start("client", &address)?;
        for id in &ids {
            let (_, text) = late.ask(&format!("open {id}"))?;
            writeln!(
                out,
                "process {} comes and opens {id}: \"{text}\"",
                late.pid()
            )?;
        }
        let (id, _) = clients[0].ask("make the yellow one")?;
        let (_, text) = late.ask(&format!("open {id}"))?;
        writeln!(
            out,
            "process {} opens {id}, which is new: \"{text}\"",
            late.pid()
        )?;

        // All but one end, and then that one is killed.
        drop(clients);
        late.kill()?;
        let mut last = Program::start("client", &address)?;
        writeln!(
            out,
            "everybody who held them has ended; who opens one now is told:"
        )?;
        let Err(error) = last.ask(&format!("open {}", ids[0])) else {
            return Err("it is still there".into());
        };
        writeln!(out, "  {error}")?;
        drop(last);
        let left = fs::read_dir(folder.path())?.count();
        writeln!(out, "files left beside the address: {left}")?;
        if left > 0 {
            return Err("something was left behind".into());
        }
        Ok(())
    }

    /// This program, started once more. It ends when this is dropped.
    struct Program {
        child: Child,
        /// `None` once it is to end.
        orders: Option<ChildStdin>,
        answers: BufReader<ChildStdout>,
    }

    impl Program {
        fn start(role: &str, address: &Path) -> Result<Self> {
            let mut child = Command::new(env::current_exe()?)
                .arg(role)
                .env(ShMemService::ENV, address)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let orders = child.stdin.take();
            let answers = child.stdout.take().ok_or("a program has no output")?;
            Ok(Self {
                child,
                orders,
                answers: BufReader::new(answers),
            })
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }

        /// An order, and the id and the text of the segment that it led to.
        fn ask(&mut self, order: &str) -> Result<(String, String)> {
            let orders = self.orders.as_mut().ok_or("it has ended")?;
            writeln!(orders, "{order}")?;
            let told = self.hear()?;
            match told.split_once(' ') {
                Some(("-", error)) => Err(error.into()),
                Some((id, text)) => Ok((id.into(), text.into())),
                None => Err(format!("process {} says {told:?}", self.pid()).into()),
            }
        }

        fn hear(&mut self) -> Result<String> {
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            if line.is_empty() {
                return Err(format!("process {} has ended", self.pid()).into());
            }
            Ok(line.trim_end().into())
        }

        /// Ends it with SIGKILL.
        fn kill(mut self) -> Result<()> {
            self.child.kill()?;
            self.child.wait()?;
            Ok(())
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            self.orders = None;
            // Whether it could be waited for: it ends with its orders.
            let _ = self.child.wait();
        }
    }
}

#[cfg(all(feature = "std", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    match program::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("served: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(feature = "std", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("served: this needs the feature `std`, and it is written for Linux");
    std::process::ExitCode::FAILURE
}
