//! Turns.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::Duration;

use shmem_providers::sync::Turn;
use shmem_providers::wake::Wait;
use shmem_providers::{ShMemId, ShMemProvider, SharedLayout, StdShMemProvider, Typed};
use testkit::peer::{Peer, can_start_by};
use testkit::{Outcome, natively};

use super::peer::Answer;
use super::{WAIT, until_it_sleeps};

/// A structure with a turn, as a user would define it.
#[derive(SharedLayout)]
#[repr(C)]
struct Game {
    turn: Turn,
    /// Changed by the process whose turn it is.
    moves: AtomicU32,
}

fn created() -> Outcome<Typed<Game>> {
    Ok(Typed::create(&mut StdShMemProvider::new()?, |_| ())?)
}

/// Starts a process that opens the game.
fn player(game: &Typed<Game>) -> Outcome<Peer> {
    let mut peer = Peer::start();
    peer.execute(format!("turn open {}", game.id()))?;
    Ok(peer)
}

pub(crate) fn two_processes_take_turns() -> Outcome {
    take_turns(2, 50_000)
}

pub(crate) fn three_processes_take_turns_in_a_round() -> Outcome {
    take_turns(3, 2000)
}

/// Each process has as many moves, which none of them makes out of turn.
fn take_turns(players: u32, rounds: u32) -> Outcome {
    let rounds = testkit::repetitions(rounds);
    let game = created()?;
    let mut peers = Vec::new();
    for me in 1..players {
        let mut peer = player(&game)?;
        peer.send(&format!("turn play {} {me} {players} {rounds}", game.id()));
        peers.push(peer);
    }
    play(&game, 0, players, rounds)?;
    for peer in &mut peers {
        peer.answer_to("turn play")?;
    }
    assert_eq!(game.moves.load(Relaxed), players * rounds);
    Ok(())
}

fn play(game: &Game, me: u32, players: u32, rounds: u32) -> Answer {
    for round in 0..rounds {
        if !game.turn.wait_for(me, WAIT)? {
            return Err(format!("it is still the turn of {}", game.turn.current()).into());
        }
        let moves = game.moves.load(Relaxed);
        if moves != round * players + me {
            return Err(format!("{moves} moves before that of {me} in round {round}").into());
        }
        game.moves.store(moves + 1, Relaxed);
        game.turn.pass((me + 1) % players)?;
    }
    Ok(String::new())
}

pub(crate) fn a_killed_waiter_affects_nobody() -> Outcome {
    let game = created()?;
    let (mut killed, mut other) = (player(&game)?, player(&game)?);
    killed.send(&format!("turn wait {} 1", game.id()));
    other.send(&format!("turn wait {} 2", game.id()));
    until_it_sleeps(&killed)?;
    until_it_sleeps(&other)?;
    killed.kill();
    game.turn.pass(2)?;
    assert_eq!(other.answer_to("turn wait")?, "true");
    take_turns_after(&game)
}

/// The same game goes on with other processes.
fn take_turns_after(game: &Typed<Game>) -> Outcome {
    let mut peer = player(game)?;
    game.turn.pass(0)?;
    peer.send(&format!("turn play {} 1 2 100", game.id()));
    play(game, 0, 2, 100)?;
    peer.answer_to("turn play")?;
    Ok(())
}

pub(crate) fn the_turn_of_a_killed_process_is_passed_on() -> Outcome {
    let game = created()?;
    let (mut holder, mut other) = (player(&game)?, player(&game)?);
    other.send(&format!("turn wait {} 2", game.id()));
    game.turn.pass(1)?;
    holder.execute(format!("turn wait {} 1", game.id()))?;
    until_it_sleeps(&other)?;
    holder.kill();
    let soon = Wait::new().timeout(Duration::from_millis(20));
    assert!(!game.turn.wait_for(0, soon)?);
    assert_eq!(game.turn.current(), 1);
    game.turn.pass(2)?;
    assert_eq!(other.answer_to("turn wait")?, "true");
    Ok(())
}

pub(crate) fn only_sleepers_cost_system_calls() -> Outcome {
    natively("whose own calls strace would show")?;
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("calls");
    let log_name = log.to_string_lossy();
    let wrapper = ["strace", "-o", &*log_name, "--"];
    can_start_by(&wrapper)?;
    passes_to_a_sleeper(&wrapper)?;
    let log = fs::read_to_string(&log)?;
    let wakes = |command: &str| {
        let received = log.find(&format!("\"{command}")).unwrap_or(log.len());
        let calls = log[received..].lines().skip(1);
        calls
            .take_while(|line| !line.starts_with("write(1,"))
            .filter(|line| line.starts_with("futex(") && line.contains("FUTEX_WAKE"))
            .count()
    };
    assert_eq!(wakes("turn pass 3"), 0, "{log}");
    assert_eq!(wakes("turn pass 1"), 1, "{log}");
    assert_eq!(wakes("turn pass 4"), 0, "{log}");
    Ok(())
}

/// A process that is traced passes the turn to nobody, to a process that sleeps, and to nobody again.
fn passes_to_a_sleeper(wrapper: &[&str]) -> Outcome {
    let game = created()?;
    let (mut traced, mut sleeper) = (Peer::start_by(wrapper), player(&game)?);
    traced.execute(format!("turn pass 3 {}", game.id()))?;
    sleeper.send(&format!("turn wait {} 1", game.id()));
    until_it_sleeps(&sleeper)?;
    traced.execute(format!("turn pass 1 {}", game.id()))?;
    assert_eq!(sleeper.answer_to("turn wait")?, "true");
    traced.execute(format!("turn pass 4 {}", game.id()))?;
    Ok(())
}

pub(crate) fn a_peer_that_writes_nonsense_prolongs_no_wait() -> Outcome {
    let shared = Typed::<[AtomicU32; 2]>::create(&mut StdShMemProvider::new()?, |_| ())?;
    let segment = StdShMemProvider::new()?.shmem_from_id(shared.id())?;
    let segment = shmem_providers::ShMem::share(segment);
    let turn = segment.view::<Turn>(64)?;
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 8_u32;
            while !has_ended.load(Relaxed) {
                for word in shared.iter() {
                    word.store(value, Relaxed);
                }
                value = value.wrapping_mul(5) | 8;
            }
        });
        for spins in [0, 100] {
            let wait = Wait::new().spins(spins).timeout(Duration::from_millis(20));
            assert!(!turn.wait_for(7, wait).unwrap());
            turn.pass(9).unwrap();
        }
        has_ended.store(true, Relaxed);
    });
    Ok(())
}

/// What a peer does.
pub(crate) fn execute(words: &[&str]) -> Answer {
    let opened = |id: &str| {
        let id = ShMemId::from_string(id);
        Typed::<Game>::open(&mut StdShMemProvider::new()?, id)
    };
    match *words {
        ["open", id] => opened(id).map(|_| String::new()).map_err(Into::into),
        ["play", id, me, players, rounds] => play(
            &*opened(id)?,
            me.parse()?,
            players.parse()?,
            rounds.parse()?,
        ),
        ["wait", id, me] => {
            let game = opened(id)?;
            Ok(game.turn.wait_for(me.parse()?, WAIT)?.to_string())
        }
        ["pass", to, id] => {
            opened(id)?.turn.pass(to.parse()?)?;
            Ok(String::new())
        }
        _ => Err(format!("unknown command {words:?}").into()),
    }
}
