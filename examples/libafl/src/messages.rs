//! LLMP between separate programs, with messages so large that a page holds three.
//!
//! The sender aborts after half of them. Its successor attaches, by id, to the page that the sender was writing:
//! its creator is dead, and only the broker still holds it. The receiver aborts as well, while it reads a page of
//! the broker.

use std::num::NonZeroUsize;
use std::thread::sleep;
use std::time::Duration;

use libafl::Error;
use libafl_bolts::llmp::{Broker, LlmpBroker, LlmpClient, LlmpClientDescription, Tag};
use libafl_bolts::shmem::{ShMemProvider, StdShMem, StdShMemProvider};

use crate::counted::Counted;
use crate::report::report;

/// The number of messages.
pub const MESSAGES: u32 = 16;

/// The length of a message in bytes. A page of LLMP has a mebibyte.
const LENGTH: usize = 300_000;

/// The number of messages after which the sender, and the receiver, abort.
const SENT: u32 = 8;
const RECEIVED: u32 = 5;

const TAG: Tag = Tag(0x5EED_5EED);

/// A provider that this program implements, over the default.
type Provider = Counted<StdShMemProvider>;
type Client = LlmpClient<StdShMem, Provider>;

pub fn run(role: &str, port: u16) -> Result<(), Error> {
    match role {
        "broker" => broker(port),
        "sender" => {
            let provider = Provider::new()?;
            let mut client = LlmpClient::create_attach_to_tcp(provider.clone(), port)?;
            report(&format!("sender: process {} starts", std::process::id()));
            send(&mut client, 0..SENT)?;
            let created = provider.created();
            assert!(created > 0, "its pages were created by another provider");
            leave(&client, role)
        }
        "sender-again" => {
            let (mut client, predecessor) = resume("sender")?;
            report(&format!("sender: continues after {predecessor}"));
            send(&mut client, SENT..MESSAGES)?;
            exit(client)
        }
        "receiver" => {
            let mut client = connect(port)?;
            report("receiver: connected");
            receive(&mut client, 0..RECEIVED)?;
            leave(&client, role)
        }
        "receiver-again" => {
            let (mut client, predecessor) = resume("receiver")?;
            report(&format!("receiver: continues after {predecessor}"));
            receive(&mut client, RECEIVED..MESSAGES)?;
            exit(client)
        }
        _ => Err(Error::illegal_argument("no such role")),
    }
}

/// Runs the broker until two clients have connected and disconnected.
fn broker(port: u16) -> Result<(), Error> {
    let mut broker = LlmpBroker::create_attach_to_tcp(Provider::new()?, (), port)?;
    broker.set_exit_after(NonZeroUsize::new(2).expect("not zero"));
    report("broker: listening");
    broker.loop_with_timeouts(Duration::from_mins(1), Some(Duration::from_millis(1)));
    Ok(())
}

fn connect(port: u16) -> Result<Client, Error> {
    LlmpClient::create_attach_to_tcp(Provider::new()?, port)
}

fn send(client: &mut Client, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    for number in numbers {
        client.send_buf(TAG, &message(number))?;
    }
    Ok(())
}

/// Polls, as fuzzers do, because LLMP's blocking call panics at the end of a page.
fn receive(client: &mut Client, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    for number in numbers {
        loop {
            match client.recv_buf()? {
                Some((_, TAG, bytes)) if bytes == message(number) => break,
                Some(_) => {
                    let problem = format!("message {number} is not the one that was sent");
                    return Err(Error::illegal_state(problem));
                }
                None => sleep(Duration::from_millis(1)),
            }
        }
        report(&format!("receiver: message {number}"));
    }
    Ok(())
}

/// Returns a message, each word of which is its number.
fn message(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(LENGTH / 4)
}

/// Waits until the broker has opened the client's page, writes a description of the client to a file, and
/// aborts.
fn leave(client: &Client, role: &str) -> ! {
    let described = client
        .describe()
        .and_then(|description| Ok(postcard::to_allocvec(&(description, std::process::id()))?))
        .expect("a client can be described");
    client.await_safe_to_unmap_blocking();
    std::fs::write(role, described).expect("the description can be written");
    std::process::abort()
}

/// Returns the client that continues where the one of this role aborted, and a text about that process.
fn resume(role: &str) -> Result<(Client, String), Error> {
    let bytes = std::fs::read(role)?;
    let (description, pid): (LlmpClientDescription, u32) = postcard::from_bytes(&bytes)?;
    let state = if std::path::Path::new(&format!("/proc/{pid}")).exists() {
        "alive"
    } else {
        "dead"
    };
    let client = LlmpClient::existing_client_from_description(Provider::new()?, &description)?;
    Ok((client, format!("process {pid}, which is {state}")))
}

/// Tells the broker that this client ends, and waits until the broker has read that.
fn exit(mut client: Client) -> Result<(), Error> {
    client.sender_mut().send_exiting()?;
    while !client.safe_to_unmap() {
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
