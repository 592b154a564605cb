//! What attackers do until they are killed, each in a process of its own.
#![allow(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io;
use rustix::net::sockopt;

use super::descriptors::memory;
use super::peer::Answer;
use super::raw::{self, FORK, HELLO, OPEN, REGISTER, RELEASE, Raw, frame};

/// How long it takes to close what [`lingering`] creates.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) fn attack(how: &str, address: &Path) -> Answer {
    loop {
        match how {
            "linger" => linger(address)?,
            "backlog" => backlog(address)?,
            "connect" => connect(address),
            "hoard" => hoard(address)?,
            "forks" => forks(address)?,
            _ => return Err(format!("unknown attack {how}").into()),
        }
    }
}

/// Creates a TCP socket that takes [`LINGER`] to close while the other one is open.
fn unread() -> Result<(TcpStream, TcpStream), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    while stream.write(&[0; 1 << 12]).is_ok() {}
    stream.set_nonblocking(false)?;
    sockopt::set_socket_linger(&stream, Some(LINGER))?;
    Ok((stream, other))
}

/// Creates a Unix socket that contains such sockets in flight.
pub(crate) fn lingering() -> Result<OwnedFd, Box<dyn Error>> {
    let (here, there) = UnixStream::pair()?;
    // The kernel closes them from the first or from the last. The other side of one is then still open.
    let ((first, its_other), (last, the_other)) = (unread()?, unread()?);
    for fd in [its_other, first, last, the_other] {
        raw::send_over(&here, b"x", &[fd.as_fd()])?;
    }
    Ok(there.into())
}

/// Sends what takes long to close, in every possible way.
fn linger(address: &Path) -> Result<(), Box<dyn Error>> {
    let mut crowd = Vec::new();
    for round in 0..32 {
        let Ok(client) = Raw::connect(address) else {
            break;
        };
        let slow = lingering()?;
        let several: Vec<BorrowedFd<'_>> = vec![slow.as_fd(); 253];
        let register = frame(REGISTER, 100, &raw::id(round));
        // Some of this fails, by limits of the kernel or of the service.
        if round % 4 == 0 {
            let _ = client.send_now(&frame(HELLO, 0, ""), &several);
        } else if matches!(client.ask(&frame(HELLO, 0, ""), &[]), Ok(Some(raw::DONE))) {
            let _ = match round % 4 {
                1 => client.send_now(&register, &several),
                2 => client.send_now(&[7; 40], &[slow.as_fd()]),
                _ => {
                    // One after the other, until one is refused.
                    let mut sent = Ok(());
                    for _ in 0..20 {
                        let slow = lingering()?;
                        sent = client.send_now(&register, &[slow.as_fd()]);
                        if sent.is_err() {
                            break;
                        }
                    }
                    sent
                }
            };
        }
        crowd.push(client);
    }
    thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Sends what takes long to close before the connection is accepted, and closes the connection.
fn backlog(address: &Path) -> Result<(), Box<dyn Error>> {
    let slow = lingering()?;
    for _ in 0..16 {
        let Ok(client) = Raw::connect(address) else {
            break;
        };
        // An empty packet looks like the end of the connection.
        let _ = client.send_now(&[], &[]);
        let _ = client.send_now(&frame(HELLO, 0, ""), &[slow.as_fd()]);
        let _ = client.send_now(&[], &[slow.as_fd()]);
    }
    Ok(())
}

/// Connects ten thousand times, and leaves connections in every possible state.
fn connect(address: &Path) {
    let mut kept = Vec::new();
    for round in 0..10_000 {
        let Ok(client) = Raw::connect(address) else {
            // The backlog is full: free its entries.
            kept.clear();
            continue;
        };
        let _ = match round % 3 {
            0 => Ok(()),
            1 => client.send_now(&frame(HELLO, 0, ""), &[]),
            _ => client.send_now(&[1], &[]),
        };
        if round % 2 == 0 {
            kept.push(client);
        }
        if kept.len() >= 300 {
            kept.clear();
        }
    }
}

/// Takes as many connections and segments as possible, and keeps them.
fn hoard(address: &Path) -> Result<(), Box<dyn Error>> {
    let memory = memory(100)?;
    // Half of all bytes that the service may have.
    let large = super::descriptors::memory(1 << 46).ok();
    let mut crowd = Vec::new();
    let mut number = std::process::id() * 10_000;
    while crowd.len() < 400 {
        let Ok(client) = Raw::connect(address) else {
            break;
        };
        let mut status = client.ask(&frame(HELLO, 0, ""), &[]);
        while matches!(status, Ok(Some(raw::DONE))) && number % 10_000 < 9_000 {
            number += 1;
            if let Some(large) = &large {
                let register = frame(REGISTER, 1 << 46, &raw::id(number));
                let _ = client.ask(&register, &[large.as_fd()]);
                number += 1;
            }
            let register = frame(REGISTER, 100, &raw::id(number));
            status = client.ask(&register, &[memory.as_fd()]);
            if crowd.len() % 8 != 0 {
                break;
            }
        }
        crowd.push(client);
    }
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Holds many segments, announces many forks, and changes what it holds between them.
fn forks(address: &Path) -> Result<(), Box<dyn Error>> {
    let memory = memory(100)?;
    let client = match Raw::connect(address) {
        Ok(client) => client,
        Err(io::Errno::AGAIN) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut status = client.ask(&frame(HELLO, 0, ""), &[]);
    let first = std::process::id() * 10_000;
    let mut number = first;
    while matches!(status, Ok(Some(raw::DONE))) && number < first + 5_000 {
        number += 1;
        let register = frame(REGISTER, 100, &raw::id(number));
        status = client.ask(&register, &[memory.as_fd()]);
    }
    for round in 0..1000 {
        let token = frame(FORK, 0, &raw::id(first + 5_000 + round));
        if !matches!(client.ask(&token, &[]), Ok(Some(_))) {
            break;
        }
        let held = raw::id(first + 1 + round % 8);
        let _ = client.send_now(&frame(RELEASE, 0, &held), &[]);
        let _ = client.ask(&frame(OPEN, 0, &held), &[]);
    }
    Ok(())
}
