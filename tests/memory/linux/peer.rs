//! The second process: a program that does what it is told, line by line.

use std::error::Error;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use shmem_providers::{OptionStatus, ShMemOptions, ShMemProvider, StdShMemProvider};

use super::{pool, slab, snapshot, wake};
pub(crate) use testkit::peer::*;

/// What a command comes to.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// What the second process does until its orders end.
pub(crate) fn serve() {
    for order in io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = order.split(' ').collect();
        match obey(&words) {
            Ok(text) => println!("ok {text}"),
            Err(error) => println!("err {error}"),
        }
    }
}

fn obey(order: &[&str]) -> Answer {
    match *order {
        ["pong", id, rounds] => wake::pong(id, rounds.parse()?),
        ["sleep", id, value] => wake::sleep(id, value.parse()?),
        ["timer", micros] => wake::timer(micros.parse()?),
        ["hold", id] => pool::hold(id),
        ["forks"] => pool::forks(),
        ["moves"] => pool::moves(),
        ["child-makes"] => pool::child_makes(),
        ["child-allocates"] => slab::child_allocates(),
        ["knock", id] => pool::knock(id),
        ["view", id, expected] => snapshot::view(id, expected.parse()?),
        ["object", ref place @ ..] => slab::object(place),
        ["nothing"] => Ok(String::new()),
        ["lock", size, limit] => lock(size.parse()?, limit.parse()?),
        _ => Err(format!("unknown order {order:?}").into()),
    }
}

/// Lowers the limit on locked memory, and then locks a segment; without the privilege to ignore it.
fn lock(size: usize, limit: u64) -> Answer {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Memlock, limit)?;
    if rustix::process::geteuid().is_root() {
        // SAFETY: this program has one thread, and gives up its privileges for good.
        if unsafe { libc::setuid(65534) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    let mut provider = StdShMemProvider::new()?;
    let (_segment, report) = provider.new_shmem_with(size, ShMemOptions::new().lock())?;
    Ok(match report.lock {
        OptionStatus::Refused(reason) => reason.to_string(),
        _ => "granted".into(),
    })
}
