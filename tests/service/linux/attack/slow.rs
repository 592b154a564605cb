//! Services that do not do what they should, and what becomes of operations of their clients: each of them
//! ends within five seconds.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Signal, kill_process};

use super::super::peer::Answer;
use super::lifetime::{Place, eventually};
use super::raw::{self, Raw};
use super::stopped::stop;
use super::{Scene, attackers};
use testkit::Outcome;
use testkit::peer::Peer;

/// How long an operation may take, with a reserve for other programs on this machine.
fn patience() -> Duration {
    let emulated = std::env::var_os("SHMEM_TEST_EMULATED").is_some();
    Duration::from_secs(if emulated { 60 } else { 7 })
}

/// Asks, checks how long the answer takes, and returns it.
#[track_caller]
fn asked_in_time(peer: &mut Peer, order: &str) -> Result<String, String> {
    let start = Instant::now();
    let answer = peer.ask(order);
    let time = start.elapsed();
    assert!(time < patience(), "{order} took {time:?}: {answer:?}");
    answer
}

/// What a peer does: serves falsely, until it is killed.
pub(crate) fn pretend(how: &str, address: &Path) -> Answer {
    // What the last one has left.
    let _ = std::fs::remove_file(address);
    let kind = if raw::IS_STREAM {
        SocketType::STREAM
    } else {
        SocketType::SEQPACKET
    };
    let listener = net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    net::bind(&listener, &SocketAddrUnix::new(address)?)?;
    net::listen(&listener, 64)?;
    println!("ok ");
    // Until the first client holds what it shall hold, it is honest to it.
    let first = Raw::of(net::accept(&listener)?);
    for _ in 0..=HELD {
        let heard = first.receive()?.ok_or("no client")?;
        first.send(&done(heard.bytes), &[])?;
    }
    first.receive()?;
    drop(first);
    loop {
        let client = Raw::of(net::accept(&listener)?);
        let how = how.to_owned();
        thread::spawn(move || {
            // It ends when the client does.
            let _ = answer(&client, &how);
        });
    }
}

/// How many segments the client holds.
const HELD: usize = 5;

/// The reply to a request that was done.
fn done(mut request: Vec<u8>) -> Vec<u8> {
    request[1] |= 0x80;
    request[8..].fill(0);
    request
}

fn answer(client: &Raw, how: &str) -> Answer {
    while let Some(heard) = client.receive()? {
        let is_hello = heard.bytes[1] == raw::HELLO;
        let reply = done(heard.bytes);
        match how {
            "silent" => thread::sleep(Duration::from_secs(60)),
            "slow" if !is_hello => thread::sleep(Duration::from_millis(1500)),
            "bytes" if !is_hello => {
                for byte in &reply {
                    client.send(&[*byte], &[])?;
                    thread::sleep(Duration::from_millis(900));
                }
                continue;
            }
            "lingering" if !is_hello => {
                let slow = attackers::lingering()?;
                client.send(&reply, &[slow.as_fd(); 200])?;
                continue;
            }
            _ => {}
        }
        client.send(&reply, &[])?;
    }
    Ok(String::new())
}

/// Whatever the service does, operations end, and what is held is handed to the next service.
fn served_by(how: &str) -> Outcome {
    let place = Place::new()?;
    let mut false_one = Peer::start();
    false_one.ask(format!("pretend {how} {}", place.address.display()))?;
    let mut client = place.peer();
    let mut id = String::new();
    for _ in 0..HELD {
        id = client.ask("make 100")?;
    }
    for _ in 0..2 {
        // Whether they fail is another matter.
        let _ = asked_in_time(&mut client, "make 100");
        let _ = asked_in_time(&mut client, "try s000000000000000000");
        let _ = asked_in_time(&mut client, &format!("try {id}"));
    }
    false_one.kill();
    let mut other = place.peer();
    eventually(&mut other, &format!("try {id}"), "");
    // Until all is closed that a false service has sent, this process trusts none.
    let end = Instant::now() + Duration::from_secs(40);
    while let Err(why) = asked_in_time(&mut client, "make 100") {
        assert!(Instant::now() < end, "{why}");
        thread::sleep(Duration::from_millis(10));
    }
    asked_in_time(&mut client, "drop")?;
    drop((other, client));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn silent_service_blocks_no_client() -> Outcome {
    served_by("silent")
}

pub(crate) fn slow_service_blocks_no_client() -> Outcome {
    served_by("slow")
}

pub(crate) fn service_that_sends_single_bytes_blocks_no_client() -> Outcome {
    served_by("bytes")
}

pub(crate) fn service_that_sends_slow_descriptors_blocks_no_client() -> Outcome {
    served_by("lingering")
}

/// Nobody reads what the service is told, and there is no room for all of it.
pub(crate) fn release_does_not_wait() -> Outcome {
    const MANY: usize = 400;
    let mut scene = Scene::new()?;
    let mut client = scene.peer();
    let mut last = String::new();
    for _ in 0..MANY {
        match client.ask("make 100") {
            Ok(id) => last = id,
            // As many as it may.
            Err(_) => break,
        }
    }
    scene.ask_honest(&format!("try {last}"))?;
    stop(&scene.host)?;
    let start = Instant::now();
    for _ in 0..MANY {
        client.ask("drop")?;
    }
    let time = start.elapsed();
    assert!(time < Duration::from_millis(1900), "{time:?}");
    kill_process(scene.host.process(), Signal::CONT)?;
    // It is told later.
    let gone = format!("knows no holder of segment {last}");
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let told = scene.ask_honest(&format!("try {last}"));
        if told.as_ref().is_err_and(|error| error.contains(&gone)) {
            break;
        }
        assert!(Instant::now() < end, "{told:?}");
    }
    client.ask("make 100")?;
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

/// Threads that wait for each other's requests do not wait for each other's deadlines.
pub(crate) fn deadlines_of_threads_do_not_add_up() -> Outcome {
    let scene = Scene::new()?;
    let mut client = scene.peer();
    client.ask("make 100")?;
    stop(&scene.host)?;
    let told = asked_in_time(&mut client, "crowd 8")?;
    kill_process(scene.host.process(), Signal::CONT)?;
    assert_eq!(told, "8 failed");
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn client_without_descriptors_gets_an_error_that_names_the_limit() -> Outcome {
    let scene = Scene::new()?;
    let mut client = scene.peer();
    client.ask("make 100")?;
    client.ask("limit 64")?;
    client.ask("full")?;
    let error = client
        .ask(format!("try {}", scene.id))
        .expect_err("there is no room");
    assert!(error.contains("RLIMIT_NOFILE is 64"), "{error}");
    client.ask("limit 256")?;
    client.ask(format!("try {}", scene.id))?;
    drop(client);
    scene.assert_unharmed();
    Ok(())
}
