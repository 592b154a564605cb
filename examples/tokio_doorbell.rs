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
        for number in 0..100 {
            shared.access().write_at(64 + number, b"!")?;
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
        let doorbell = tokio::io::unix::AsyncFd::register(Doorbell::new()?)?;
        let (mut child, mut messages) = (command.spawn()?, vec![]);
        while messages.len() < 100 {
            doorbell.get_ref().arm(&slot);
            if sent.load(Ordering::Acquire) as usize == messages.len() {
                doorbell.readable().await?.clear_ready();
                doorbell.get_ref().clear()?;
            }
            messages.resize(sent.load(Ordering::Acquire) as usize, 0);
            shared.access().read_at(64, &mut messages)?;
        }
        println!("received {} messages", messages.len());
        child.wait().map(drop).map_err(Into::into)
    })
}
