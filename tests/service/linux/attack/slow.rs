//! Services that do not work as they should. Each operation of their clients ends within five seconds.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Signal, kill_process};

use super::lifetime::{TestDir, eventually_gone, eventually_opens};
use super::peer::{Answer, Commands};
use super::raw::{self, Raw};
use super::stopped::stop;
use super::{Scene, attackers};
use testkit::Outcome;
use testkit::peer::Peer;

/// Returns the time limit of an operation, with a reserve for other programs on this machine.
fn limit() -> Duration {
    let emulated = std::env::var_os("SHMEM_TEST_EMULATED").is_some();
    Duration::from_secs(if emulated { 60 } else { 7 })
}

/// Returns the result of an operation, and checks that it takes no longer than [`limit`].
#[track_caller]
fn in_time<T>(operation: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = operation();
    let time = start.elapsed();
    assert!(time < limit(), "the operation took {time:?}");
    result
}

/// What a peer does: pretends to be a service until it is killed.
pub(crate) fn pretend(how: &str, address: &Path) -> Answer {
    // A previous service may have left its socket.
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
    // It serves the first client until that holds its segments.
    let first = Raw::of(net::accept(&listener)?);
    for _ in 0..=HELD {
        let request = first
            .receive()?
            .ok_or("the client has closed its connection")?;
        first.send(&done(request.bytes), &[])?;
    }
    first.receive()?;
    drop(first);
    loop {
        let client = Raw::of(net::accept(&listener)?);
        let how = how.to_owned();
        thread::spawn(move || {
            // An error ends this connection.
            let _ = answer(&client, &how);
        });
    }
}

/// How many segments the client holds.
const HELD: usize = 5;

/// Returns the reply to a request that succeeds.
fn done(mut request: Vec<u8>) -> Vec<u8> {
    request[1] |= 0x80;
    request[8..].fill(0);
    request
}

fn answer(client: &Raw, how: &str) -> Answer {
    while let Some(request) = client.receive()? {
        let is_hello = request.bytes[1] == raw::HELLO;
        let reply = done(request.bytes);
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

/// Checks that operations end whatever the service does, and that the next service gets what clients hold.
fn served_by(how: &str) -> Outcome {
    let dir = TestDir::new()?;
    let mut false_service = Peer::start();
    false_service.execute(format!("pretend {how} {}", dir.address.display()))?;
    let mut client = dir.peer();
    let mut id = String::new();
    for _ in 0..HELD {
        id = client.make(100)?;
    }
    for _ in 0..2 {
        // They may succeed or fail.
        let _ = in_time(|| client.make(100));
        let _ = in_time(|| client.try_open("s000000000000000000"));
        let _ = in_time(|| client.try_open(&id));
    }
    false_service.kill();
    let mut other = dir.peer();
    eventually_opens(&mut other, &id);
    // The client trusts no service until it has closed all that a false one has sent.
    let end = Instant::now() + Duration::from_secs(40);
    while let Err(reason) = in_time(|| client.make(100)) {
        assert!(Instant::now() < end, "{reason}");
        thread::sleep(Duration::from_millis(10));
    }
    in_time(|| client.drop_newest())?;
    drop((other, client));
    dir.assert_nothing_left();
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

/// The service reads none of the requests, and the socket's buffer is too small for all of them.
pub(crate) fn release_does_not_wait() -> Outcome {
    const MANY: usize = 400;
    let mut scene = Scene::new()?;
    let mut client = scene.peer();
    let mut last = String::new();
    for _ in 0..MANY {
        match client.make(100) {
            Ok(id) => last = id,
            // The client has reached its limit.
            Err(_) => break,
        }
    }
    scene.honest.try_open(&last)?;
    stop(&scene.host)?;
    let start = Instant::now();
    for _ in 0..MANY {
        client.drop_newest()?;
    }
    let time = start.elapsed();
    assert!(time < Duration::from_millis(1900), "{time:?}");
    kill_process(scene.host.process(), Signal::CONT)?;
    // The service learns of it later.
    eventually_gone(&mut scene.honest, &last);
    client.make(100)?;
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

/// A thread that waits for the request of another one does not wait for its deadline as well.
pub(crate) fn deadlines_of_threads_do_not_add_up() -> Outcome {
    let scene = Scene::new()?;
    let mut client = scene.peer();
    client.make(100)?;
    stop(&scene.host)?;
    let failed: u32 = in_time(|| client.ask_for("crowd 8"))?;
    kill_process(scene.host.process(), Signal::CONT)?;
    assert_eq!(failed, 8);
    drop(client);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn client_without_descriptors_gets_an_error_that_names_the_limit() -> Outcome {
    let scene = Scene::new()?;
    let mut client = scene.peer();
    client.make(100)?;
    client.execute("limit 64")?;
    client.execute("full")?;
    let error = client
        .try_open(&scene.id)
        .expect_err("no descriptor is left");
    assert!(error.contains("RLIMIT_NOFILE is 64"), "{error}");
    client.execute("limit 256")?;
    client.try_open(&scene.id)?;
    drop(client);
    scene.assert_unharmed();
    Ok(())
}
