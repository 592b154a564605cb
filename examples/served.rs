//! Segments through a service that loses a client and then its host.
//!
//! ```sh
//! cargo run --release --example served
//! ```
//!
//! One process hosts the service. Three others, which are started and not forked, create a segment each and
//! open that of the first one by its id. The first one is killed, then the host. Another process takes over, and
//! a process that starts then opens every segment by the same id as before. At the end nothing is left.
//!
//! `client` is what your program would do. The rest starts the processes, sends them commands, and kills them.

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
            None => demonstrate(&mut io::stdout()),
            Some("host") => host(),
            Some("client") => client(),
            Some(_) => Err("served takes no arguments".into()),
        }
    }

    /// Hosts the service until the standard input ends.
    fn host() -> Result<()> {
        // `Program::start` has put the address into the environment.
        let service = ShMemService::start()?;
        reply("serving");
        for _ in io::stdin().lines() {}
        drop(service);
        Ok(())
    }

    /// Creates and opens segments by the commands in the standard input, and holds them until it ends.
    fn client() -> Result<()> {
        let mut provider = StdServedShMemProvider::new()?;
        let mut held: Vec<StdServedShMem> = Vec::new();
        for command in io::stdin().lines().map_while(io::Result::ok) {
            let result = match command.split_once(' ') {
                Some(("create", text)) => create(&mut provider, text),
                Some(("open", id)) => provider
                    .shmem_from_id(ShMemId::from_string(id))
                    .map_err(Into::into),
                _ => Err("a command is `create TEXT` or `open ID`".into()),
            };
            match result {
                Ok(segment) => {
                    let text = String::from_utf8_lossy(&segment).into_owned();
                    reply(&format!("{} {text}", segment.id()));
                    held.push(segment);
                }
                Err(error) => reply(&format!("- {error}")),
            }
        }
        Ok(())
    }

    fn create(provider: &mut StdServedShMemProvider, text: &str) -> Result<StdServedShMem> {
        let mut segment = provider.new_shmem(text.len())?;
        segment.copy_from_slice(text.as_bytes());
        Ok(segment)
    }

    fn reply(line: &str) {
        let mut out = io::stdout().lock();
        // If the replies are no longer read, the commands end as well.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Runs the demonstration.
    fn demonstrate(out: &mut impl Write) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let address = directory.path().join("service");
        let mut host = Program::start("host", &address)?;
        host.read_reply()?;
        writeln!(
            out,
            "process {} hosts the service at {}",
            host.pid(),
            address.display()
        )?;

        let mut clients = Vec::new();
        let mut ids = Vec::new();
        for name in ["red", "green", "blue"] {
            let mut client = Program::start("client", &address)?;
            let (id, text) = client.request(&format!("create the {name} one"))?;
            writeln!(out, "process {} creates {id}: \"{text}\"", client.pid())?;
            ids.push(id);
            clients.push(client);
        }
        // Only the red one gets more holders than its creator.
        for client in &mut clients[1..] {
            let (_, text) = client.request(&format!("open {}", ids[0]))?;
            writeln!(out, "process {} opens {}: \"{text}\"", client.pid(), ids[0])?;
        }

        let red = clients.remove(0);
        writeln!(
            out,
            "process {}, the creator of the red one, is killed",
            red.pid()
        )?;
        red.kill()?;
        writeln!(out, "process {}, the host, is killed", host.pid())?;
        host.kill()?;

        let mut late = Program::start("client", &address)?;
        writeln!(out, "process {} starts", late.pid())?;
        for id in &ids {
            let (_, text) = late.request(&format!("open {id}"))?;
            writeln!(out, "process {} opens {id}: \"{text}\"", late.pid())?;
        }
        let creator = &mut clients[0];
        let (id, text) = creator.request("create the yellow one")?;
        writeln!(out, "process {} creates {id}: \"{text}\"", creator.pid())?;
        let (_, text) = late.request(&format!("open {id}"))?;
        writeln!(out, "process {} opens {id}: \"{text}\"", late.pid())?;

        // All but one end, and then that one is killed.
        drop(clients);
        late.kill()?;
        let mut last = Program::start("client", &address)?;
        writeln!(
            out,
            "all holders have ended; opening the red one is an error now:"
        )?;
        let Err(error) = last.request(&format!("open {}", ids[0])) else {
            return Err("the segment still exists".into());
        };
        writeln!(out, "  {error}")?;
        drop(last);
        let left = fs::read_dir(directory.path())?.count();
        writeln!(out, "files left in the directory of the address: {left}")?;
        if left > 0 {
            return Err("something was left behind".into());
        }
        Ok(())
    }

    /// Another process of this program. It ends when this is dropped.
    struct Program {
        child: Child,
        /// `None` once the process should end.
        commands: Option<ChildStdin>,
        replies: BufReader<ChildStdout>,
    }

    impl Program {
        fn start(role: &str, address: &Path) -> Result<Self> {
            let mut child = Command::new(env::current_exe()?)
                .arg(role)
                .env(ShMemService::ENV, address)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let commands = child.stdin.take();
            let replies = child.stdout.take().ok_or("a process has no output")?;
            Ok(Self {
                child,
                commands,
                replies: BufReader::new(replies),
            })
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }

        /// Sends a command, and returns the id and the text of the segment.
        fn request(&mut self, command: &str) -> Result<(String, String)> {
            let commands = self.commands.as_mut().ok_or("the process has ended")?;
            writeln!(commands, "{command}")?;
            let reply = self.read_reply()?;
            match reply.split_once(' ') {
                Some(("-", error)) => Err(error.into()),
                Some((id, text)) => Ok((id.into(), text.into())),
                None => Err(format!("process {} has replied {reply:?}", self.pid()).into()),
            }
        }

        fn read_reply(&mut self) -> Result<String> {
            let mut line = String::new();
            self.replies.read_line(&mut line)?;
            if line.is_empty() {
                return Err(format!("process {} has ended", self.pid()).into());
            }
            Ok(line.trim_end().into())
        }

        /// Kills the process with SIGKILL.
        fn kill(mut self) -> Result<()> {
            self.child.kill()?;
            self.child.wait()?;
            Ok(())
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            self.commands = None;
            // Fails only if the process was waited for already.
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
    eprintln!("served: this example needs the feature `std` and Linux");
    std::process::ExitCode::FAILURE
}
