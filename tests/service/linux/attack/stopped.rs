//! Processes that are stopped by a signal, or killed, at any moment.

use std::time::Duration;
use std::{fs, io, thread};

use rustix::process::{Signal, kill_process};

use super::peer::Commands;
use super::{Dice, Scene};
use testkit::Outcome;
use testkit::peer::Peer;

fn resume(peer: &Peer) -> io::Result<()> {
    Ok(kill_process(peer.process(), Signal::CONT)?)
}

/// Stops a peer and waits until all of its threads have stopped.
pub(crate) fn stop(peer: &Peer) -> io::Result<()> {
    kill_process(peer.process(), Signal::STOP)?;
    let is_stopped = || -> io::Result<bool> {
        for task in fs::read_dir(format!("/proc/{}/task", peer.pid()))? {
            // An empty text means that the thread has ended.
            let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            if !stat.is_empty() && !stat.contains(") T ") {
                return Ok(false);
            }
        }
        Ok(true)
    };
    while !is_stopped()? {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub(crate) fn stopped_clients_keep_their_segments_and_block_nobody() -> Outcome {
    let mut scene = Scene::new()?;
    let mut idle = scene.peer();
    let held = idle.make(100)?;
    let busy = scene.churning();
    let mut dice = Dice::new();
    for _ in 0..20 {
        stop(&idle)?;
        thread::sleep(Duration::from_micros(dice.roll() % 5000));
        stop(&busy)?;
        scene.assert_served();
        // A stopped client still holds its segment.
        scene.honest.try_open(&held)?;
        resume(&idle)?;
        resume(&busy)?;
    }
    idle.make(100)?;
    // The service notices the end of a stopped client as well.
    stop(&busy)?;
    busy.kill();
    drop(idle);
    scene.assert_unharmed();
    Ok(())
}

pub(crate) fn clients_killed_at_any_moment_harm_nobody() -> Outcome {
    let mut scene = Scene::new()?;
    let mut dice = Dice::new();
    for round in 0..60 {
        let busy = [scene.churning(), scene.churning()];
        thread::sleep(Duration::from_micros(dice.roll() % 20_000));
        for peer in busy {
            peer.kill();
        }
        if round % 20 == 0 {
            scene.assert_served();
        }
    }
    scene.assert_unharmed();
    Ok(())
}

/// A stopped host cannot be replaced, because it still lives. Requests end with an error in time.
pub(crate) fn stopped_host_is_an_error() -> Outcome {
    let mut scene = Scene::new()?;
    scene.honest.make(100)?;
    stop(&scene.host)?;
    for result in [
        scene.honest.make(100).map(drop),
        scene.honest.try_open(&scene.id),
    ] {
        let error = result.expect_err("the host is stopped");
        assert!(error.contains("does not answer"), "{error}");
    }
    // A release needs no reply.
    scene.honest.drop_newest()?;
    resume(&scene.host)?;
    scene.assert_unharmed();
    Ok(())
}
