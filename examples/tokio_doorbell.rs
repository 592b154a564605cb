//! A task of `tokio` awaits the messages of another process, which rings a doorbell if the task waits.
#![forbid(unsafe_code)]
#[cfg(not(target_os = "linux"))]
fn main() {}
#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use shmem_providers::sync::{Doorbell, DoorbellSlot};
    use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
    use std::sync::atomic::{AtomicU32, Ordering};
    if std::env::var_os("BELL").is_some() {
        let shared = StdShMemProvider::new()?.existing_from_env("BELL")?.share();
        let (sent, mut ringer) = (shared.view::<AtomicU32>(0)?, None);
        for _ in 0..100 {
            sent.fetch_add(1, Ordering::Release);
            shared.view::<DoorbellSlot>(4)?.ring(&mut ringer)?;
        }
        return Ok(());
    }
    let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
    let (sent, slot) = (shared.view::<AtomicU32>(0)?, shared.view(4)?);
    let mut command = std::process::Command::new(std::env::current_exe()?);
    shared.hand_over(&mut command, "BELL")?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_io().build()?.block_on(async {
        let doorbell = Doorbell::new()?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&doorbell, 3)?;
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd)?;
        let (mut child, mut seen) = (command.spawn()?, 0);
        while seen < 100 {
            doorbell.arm(&slot);
            if sent.load(Ordering::Acquire) == seen {
                pipe.readable().await?;
                let _ = pipe.try_read(&mut [0; 64]); // clears it
            }
            seen = sent.load(Ordering::Acquire);
        }
        println!("received {seen} messages");
        child.wait().map(drop).map_err(Into::into)
    })
}
