//! `sync::Barrier`, with the event count that its waiters sleep on. Processes arrive, time out and are killed at any
//! step; another process resets the barrier at any time, and a killed process is replaced after that. A step is
//! one access to shared memory or one call; `src/sync/word/explored/protocols.rs` explores the memory model.

use super::event_count::{self, SLEEPS, Waker};
use super::{Model, check};

const PROCESSES: usize = 3;
/// The process that resets.
const RESETTER: usize = PROCESSES;

/// What the protocol, or its user, leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The waiter does not look again after it has announced itself.
    NoRecheck,
    /// The last one wakes before it opens.
    WakesFirst,
    /// Arriving is a load and a store.
    NotAtomic,
    /// A process whose time is up does not withdraw.
    StaysCounted,
    /// A process whose time is up withdraws from whatever generation there is.
    WithdrawsBlindly,
    /// A reset is counted as an opening.
    ResetOpens,
    /// A reset keeps the generation.
    ResetKeepsGeneration,
    /// A killed process is replaced without a reset.
    ReplacedAtOnce,
    Waking(event_count::Fault),
}

/// The word of the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word {
    generation: u8,
    arrived: u8,
}

/// The progress of a process, by what it does next. Numbers are the generation in which it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Arrives(Word),
    Looks(u8),
    Announces(u8),
    LooksAgain(u8, u8),
    Compares(u8, u8),
    Asleep(u8),
    /// The time is up.
    LooksLast(u8),
    ReadsLast(u8),
    Withdraws(u8, Word),
    Resets(Word),
    /// Has opened or reset the barrier.
    Wakes(Waker),
    /// The wrong order: wakes, and then opens.
    WakesBefore(Word),
    OpensLast(Word),
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    at: Word,
    /// The word on which waiters sleep.
    word: u8,
    steps: [Step; PROCESSES + 1],
    /// How often each process may still arrive.
    calls: [u8; PROCESSES],
    kills: u8,
    resets: u8,
    /// How often each process has arrived in this generation and not withdrawn.
    counted: [u8; PROCESSES],
    /// The generations, as bits, that ended because all had arrived, or by a reset.
    opened: u32,
    reset: u32,
    /// Who was killed, and there was no reset since.
    is_missed: [bool; PROCESSES],
    /// A process was killed that had opened or reset the barrier, and may not have woken everybody.
    is_cut_short: bool,
    fault: Option<&'static str>,
}

impl State {
    /// A process that has arrived in this generation sees that it has ended, and returns.
    fn returns(&mut self, me: usize, generation: u8) {
        self.steps[me] = Step::Idle;
        let is_opened = self.opened & 1 << generation != 0;
        let has_passed = self.at.generation == generation + 1;
        if has_passed && !is_opened {
            self.fault = Some("a process has passed a barrier that was reset");
        }
        if !has_passed && self.reset >> generation == 0 {
            self.fault = Some("a process reports a reset that was none");
        }
    }
}

struct Barrier {
    fault: Fault,
    participants: u8,
    /// How often each of them arrives at most.
    calls: u8,
    kills: u8,
    resets: u8,
}

impl Barrier {
    const TWO: Self = Self {
        fault: Fault::None,
        participants: 2,
        calls: 2,
        kills: 1,
        resets: 1,
    };
    const THREE: Self = Self {
        fault: Fault::None,
        participants: 3,
        calls: 1,
        kills: 1,
        resets: 1,
    };

    /// Ends the generation: by an opening, which is counted as one, or by a reset, which is counted as two.
    fn end(&self, state: &mut State, generations: u8) {
        let ended = 1 << state.at.generation;
        if generations == 2 {
            state.reset |= ended;
            state.is_missed = [false; PROCESSES];
        } else {
            state.opened |= ended;
            let counted = state.counted.iter().take(usize::from(self.participants));
            if counted.into_iter().any(|&count| count != 1) {
                state.fault = Some("it has opened before all had arrived");
            }
        }
        state.counted = [0; PROCESSES];
        state.is_cut_short = false;
        state.at.arrived = 0;
        state.at.generation += match self.fault {
            Fault::ResetOpens => 1,
            Fault::ResetKeepsGeneration if generations == 2 => 0,
            _ => generations,
        };
    }

    /// Returns what one process does next. Only a sleeper has a choice, and its first one is that its time is up.
    #[expect(clippy::too_many_lines, reason = "an arm for each step")]
    fn of_process(&self, me: usize, state: &State) -> Vec<(&'static str, State)> {
        let mut after = state.clone();
        let at = state.at;
        let mut others = Vec::new();
        let event = match state.steps[me] {
            Step::Dead => return others,
            Step::Idle if me == RESETTER => {
                if state.resets == 0 {
                    return others;
                }
                after.resets -= 1;
                after.steps[me] = Step::Resets(at);
                "starts a reset"
            }
            Step::Idle => {
                if state.calls[me] == 0 {
                    return others;
                }
                after.calls[me] -= 1;
                after.steps[me] = Step::Arrives(at);
                "starts"
            }
            Step::Arrives(found) | Step::OpensLast(found)
                if found != at && self.fault != Fault::NotAtomic =>
            {
                after.steps[me] = Step::Arrives(at);
                "finds others"
            }
            Step::Arrives(found) if found.arrived + 1 < self.participants => {
                after.counted[me] += 1;
                after.at.arrived = found.arrived + 1;
                after.steps[me] = Step::Looks(found.generation);
                "arrives"
            }
            Step::Arrives(found) if self.fault == Fault::WakesFirst => {
                after.steps[me] = Step::WakesBefore(found);
                "arrives last"
            }
            Step::WakesBefore(found) => {
                wake_all(&mut after);
                after.word = state.word.wrapping_add(4) & !SLEEPS;
                after.steps[me] = Step::OpensLast(found);
                "wakes"
            }
            Step::Arrives(_) | Step::OpensLast(_) => {
                after.counted[me] += 1;
                self.end(&mut after, 1);
                after.steps[me] = match self.fault {
                    Fault::WakesFirst => Step::Idle,
                    _ => Step::Wakes(Waker::Finds),
                };
                "opens"
            }
            Step::Looks(mine) | Step::LooksAgain(mine, _) | Step::LooksLast(mine)
                if mine != at.generation =>
            {
                after.returns(me, mine);
                "returns"
            }
            Step::Looks(mine) => {
                after.steps[me] = Step::Announces(mine);
                "looks"
            }
            Step::Announces(mine) => {
                after.word |= SLEEPS;
                after.steps[me] = match self.fault {
                    Fault::NoRecheck => Step::Compares(mine, after.word),
                    _ => Step::LooksAgain(mine, after.word),
                };
                "announces"
            }
            Step::LooksAgain(mine, announced) => {
                after.steps[me] = Step::Compares(mine, announced);
                "looks again"
            }
            Step::Compares(mine, announced) if announced == state.word => {
                after.steps[me] = Step::Asleep(mine);
                "sleeps"
            }
            Step::Compares(mine, _) => {
                after.steps[me] = Step::Looks(mine);
                "does not sleep"
            }
            Step::Asleep(mine) => {
                let mut woken = state.clone();
                woken.steps[me] = Step::Looks(mine);
                others.push(("is woken without a reason", woken));
                after.steps[me] = Step::LooksLast(mine);
                "times out"
            }
            Step::LooksLast(_) if self.fault == Fault::StaysCounted => {
                after.steps[me] = Step::Idle;
                "gives up"
            }
            Step::LooksLast(mine) => {
                after.steps[me] = Step::ReadsLast(mine);
                "looks a last time"
            }
            Step::ReadsLast(mine) => {
                after.steps[me] = Step::Withdraws(mine, at);
                "reads"
            }
            Step::Withdraws(mine, found)
                if mine != found.generation && self.fault != Fault::WithdrawsBlindly =>
            {
                // Decided by the value that was read.
                after.returns(me, mine);
                "returns"
            }
            Step::Withdraws(mine, found) if found != at => {
                after.steps[me] = Step::Withdraws(mine, at);
                "finds others"
            }
            Step::Withdraws(_, found) => {
                let arrived = found.arrived.saturating_sub(1);
                after.at = Word { arrived, ..found };
                after.counted[me] = state.counted[me].saturating_sub(1);
                if state.counted[me] == 0 {
                    after.fault = Some("a process withdraws that is not counted");
                }
                after.steps[me] = Step::Idle;
                "withdraws"
            }
            Step::Resets(found) if found != at => {
                after.steps[me] = Step::Resets(at);
                "finds others"
            }
            Step::Resets(_) => {
                self.end(&mut after, 2);
                after.steps[me] = Step::Wakes(Waker::Finds);
                "resets"
            }
            Step::Wakes(waker) => {
                let fault = match self.fault {
                    Fault::Waking(fault) => Some(fault),
                    _ => None,
                };
                let woken = waker.step(state.word, fault);
                after.word = woken.word;
                if woken.wakes {
                    wake_all(&mut after);
                }
                after.steps[me] = woken.next.map_or(Step::Idle, Step::Wakes);
                woken.event
            }
        };
        others.insert(0, (event, after));
        others
    }

    /// Returns `true` if a process returns that runs alone, by its timeout if by nothing else.
    fn returns_alone(&self, me: usize, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..20 {
            if state.steps[me] == Step::Idle {
                return true;
            }
            state = self.of_process(me, &state).swap_remove(0).1;
        }
        false
    }
}

fn wake_all(state: &mut State) {
    for step in &mut state.steps {
        if let Step::Asleep(generation) = *step {
            *step = Step::Looks(generation);
        }
    }
}

impl Model for Barrier {
    type State = State;
    type Event = (usize, &'static str);

    fn start(&self) -> State {
        State {
            at: Word {
                generation: 0,
                arrived: 0,
            },
            word: 0,
            steps: [Step::Idle; PROCESSES + 1],
            calls: std::array::from_fn(|me| {
                if me < usize::from(self.participants) {
                    self.calls
                } else {
                    0
                }
            }),
            kills: self.kills,
            resets: self.resets,
            counted: [0; PROCESSES],
            opened: 0,
            reset: 0,
            is_missed: [false; PROCESSES],
            is_cut_short: false,
            fault: None,
        }
    }

    fn next(&self, state: &State) -> Vec<(Self::Event, State)> {
        let mut events = Vec::new();
        for me in 0..=PROCESSES {
            let of_me = self.of_process(me, state);
            events.extend(of_me.into_iter().map(|(event, after)| ((me, event), after)));
            let step = state.steps[me];
            if state.kills > 0 && !matches!(step, Step::Dead | Step::Idle) {
                let mut after = state.clone();
                after.kills -= 1;
                after.is_cut_short |= matches!(step, Step::Wakes(waker) if waker.is_cut_short());
                // Another process may reset the barrier afterwards.
                after.steps[me] = if me == RESETTER {
                    Step::Idle
                } else {
                    after.is_missed[me] = true;
                    Step::Dead
                };
                events.push(((me, "is killed"), after));
            }
            let may_be_replaced =
                step == Step::Dead && (!state.is_missed[me] || self.fault == Fault::ReplacedAtOnce);
            if may_be_replaced {
                let mut after = state.clone();
                after.steps[me] = Step::Idle;
                events.push(((me, "is replaced"), after));
            }
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        if state.fault.is_some() {
            return state.fault;
        }
        if state.at.arrived != state.counted.iter().sum::<u8>() {
            return Some("the count is not that of the processes that have arrived");
        }
        let is_waking = |step: &Step| matches!(step, Step::Wakes(_));
        let missed =
            |step: &Step| matches!(step, Step::Asleep(mine) if *mine != state.at.generation);
        if !state.is_cut_short
            && !state.steps.iter().any(is_waking)
            && state.steps.iter().any(missed)
        {
            return Some("a process sleeps although the barrier has opened");
        }
        let lives = |&me: &usize| state.steps[me] != Step::Dead;
        let stays = |me| !self.returns_alone(me, state);
        (0..=PROCESSES)
            .filter(lives)
            .any(stays)
            .then_some("a process with a timeout does not return")
    }
}

#[test]
fn barriers_open_once_all_have_arrived_and_wait_for_nobody_else() {
    for model in [Barrier::TWO, Barrier::THREE] {
        let states = check(&model).expect("no schedule fails");
        assert!(states > 100_000, "the model has only {states} states");
    }
}

#[test]
fn every_part_of_the_protocol_of_barriers_is_needed() {
    for fault in [
        Fault::NoRecheck,
        Fault::WakesFirst,
        Fault::NotAtomic,
        Fault::StaysCounted,
        Fault::WithdrawsBlindly,
        Fault::ResetOpens,
        Fault::ResetKeepsGeneration,
        Fault::ReplacedAtOnce,
        Fault::Waking(event_count::Fault::NoCount),
        Fault::Waking(event_count::Fault::NoMark),
        Fault::Waking(event_count::Fault::RemovesAll),
    ] {
        let finds = |model| check(&Barrier { fault, ..model }).is_err();
        assert!(
            [Barrier::TWO, Barrier::THREE].into_iter().any(finds),
            "{fault:?}"
        );
    }
}
