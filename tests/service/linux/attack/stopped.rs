//! Who does not go on: stopped by a signal, or killed, at any moment.

use std::time::Duration;
use std::{fs, io, thread};

use rustix::process::{Signal, kill_process};

use super::{Dice, Scene};
use testkit::Outcome;
use testkit::peer::Peer;

fn go_on(peer: &Peer) -> io::Result<()> {
    Ok(kill_process(peer.process(), Signal::CONT)?)
}

/// Stops it, and waits until all of its threads have.
pub(crate) fn stop(peer: &Peer) -> io::Result<()> {
    kill_process(peer.process(), Signal::STOP)?;
    let is_stopped = || -> io::Result<bool> {
        for task in fs::read_dir(format!("/proc/{}/task", peer.pid()))? {
            // A thread that has ended meanwhile is no obstacle.
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
    let held = idle.ask("make 100")?;
    let busy = scene.churning();
    let mut dice = Dice::new();
    for _ in 0..20 {
        stop(&idle)?;
        thread::sleep(Duration::from_micros(dice.roll() % 5000));
        stop(&busy)?;
        scene.assert_served();
        // What it holds is held.
        scene.ask_honest(&format!("try {held}"))?;
        go_on(&idle)?;
        go_on(&busy)?;
    }
    idle.ask("make 100")?;
    // A signal that ends it works on a stopped one as well.
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

/// Nobody can take over from it, because it is not dead. Who asks is told, and does not wait for ever.
pub(crate) fn stopped_host_is_an_error() -> Outcome {
    let mut scene = Scene::new()?;
    scene.ask_honest("make 100")?;
    stop(&scene.host)?;
    for request in ["make 100".into(), format!("try {}", scene.id)] {
        let error = scene.ask_honest(&request).expect_err("nobody answers");
        assert!(error.contains("does not answer"), "{error}");
    }
    // To let go takes no answer.
    scene.ask_honest("drop")?;
    go_on(&scene.host)?;
    scene.assert_unharmed();
    Ok(())
}
