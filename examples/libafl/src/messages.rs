//! LLMP between separate programs, with messages of which a page holds three.
//!
//! The sender aborts half-way. Its successor attaches, by id, to the page that it was at: its dead
//! predecessor has made it, and only the broker still holds it. The receiver aborts as well, at a page
//! of the broker.

use std::num::NonZeroUsize;
use std::thread::sleep;
use std::time::Duration;

use libafl::Error;
use libafl_bolts::llmp::{Broker, LlmpBroker, LlmpClient, LlmpClientDescription, Tag};
use libafl_bolts::shmem::{ShMemProvider, StdShMem, StdShMemProvider};

use crate::counted::Counted;
use crate::report::say;

/// How many messages there are.
pub const MESSAGES: u32 = 16;

/// How many bytes one has. A page of LLMP has a mebibyte.
const LENGTH: usize = 300_000;

/// After how many of them a process aborts.
const SENT: u32 = 8;
const RECEIVED: u32 = 5;

const TAG: Tag = Tag(0x5EED_5EED);

/// One of our own, over the default.
type Provider = Counted<StdShMemProvider>;
type Client = LlmpClient<StdShMem, Provider>;

pub fn run(role: &str, port: u16) -> Result<(), Error> {
    match role {
        "broker" => broker(port),
        "sender" => {
            let provider = Provider::new()?;
            let mut client = LlmpClient::create_attach_to_tcp(provider.clone(), port)?;
            say(&format!("sender: process {} begins", std::process::id()));
            send(&mut client, 0..SENT)?;
            let made = provider.made();
            assert!(made > 0, "its pages were made by another provider");
            leave(&client, role)
        }
        "sender-again" => {
            let (mut client, predecessor) = resume("sender")?;
            say(&format!("sender: goes on after {predecessor}"));
            send(&mut client, SENT..MESSAGES)?;
            exit(client)
        }
        "receiver" => {
            let mut client = connect(port)?;
            say("receiver: is there");
            receive(&mut client, 0..RECEIVED)?;
            leave(&client, role)
        }
        "receiver-again" => {
            let (mut client, predecessor) = resume("receiver")?;
            say(&format!("receiver: goes on after {predecessor}"));
            receive(&mut client, RECEIVED..MESSAGES)?;
            exit(client)
        }
        _ => Err(Error::illegal_argument("no such role")),
    }
}

/// Ends when two clients have been there and none is left.
fn broker(port: u16) -> Result<(), Error> {
    let mut broker = LlmpBroker::create_attach_to_tcp(Provider::new()?, (), port)?;
    broker.set_exit_after(NonZeroUsize::new(2).expect("not zero"));
    say("broker: is there");
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

/// Looks again and again, as fuzzers do: where a page ends, LLMP's own blocking call panics.
fn receive(client: &mut Client, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    for number in numbers {
        loop {
            match client.recv_buf()? {
                Some((_, TAG, bytes)) if bytes == message(number) => break,
                Some(_) => {
                    let lost = format!("message {number} is not what was sent");
                    return Err(Error::illegal_state(lost));
                }
                None => sleep(Duration::from_millis(1)),
            }
        }
        say(&format!("receiver: message {number}"));
    }
    Ok(())
}

/// Which message it is stands in every word of it.
fn message(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(LENGTH / 4)
}

/// Writes down where it is, waits until the broker has opened its page, and aborts.
fn leave(client: &Client, role: &str) -> ! {
    let described = client
        .describe()
        .and_then(|description| Ok(postcard::to_allocvec(&(description, std::process::id()))?))
        .expect("a client can be described");
    client.await_safe_to_unmap_blocking();
    std::fs::write(role, described).expect("the description can be written");
    std::process::abort()
}

/// Goes on where a client of that role was when it aborted. Says who that was.
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

/// Tells the broker that this client ends, and waits until it has heard it.
fn exit(mut client: Client) -> Result<(), Error> {
    client.sender_mut().send_exiting()?;
    while !client.safe_to_unmap() {
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
