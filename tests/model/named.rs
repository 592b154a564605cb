//! `src/named/registry.rs`: processes that create, open and drop the same name, each of which can be killed at any
//! step and is replaced by a new one. A step is a system call.

use super::{Model, check};

/// Which rule is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    All,
    /// The entry appears before the segment is initialised.
    PublishFirst,
    /// An entry is removed by a process that does not have its lock.
    RemoveWithoutLock,
    /// A process that was elected does not look for an entry again.
    LookOnce,
    /// A process that has locked a file does not check whether its name still leads to it.
    TrustLocks,
}

/// The next step of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    LooksUp,
    LocksFound,
    ChecksFound,
    ErasesFound,
    OpensSegment,
    LocksToHold,
    ChecksHold,
    OpensLock,
    TakesLock,
    ChecksLock,
    CreatesSegment,
    Initialises,
    ErasesDraft,
    CreatesDraft,
    Writes,
    LocksDraft,
    Renames,
    /// Ends its election: removes the draft, then the lock file, then the lock.
    RemovesDraft,
    RemovesLock,
    Unlocks,
    Holds,
    /// Drops its hold, after its own lock.
    OpensOwn,
    LocksOwn,
    ChecksOwn,
    ErasesOwn,
    OpensLeftLock,
    TakesLeftLock,
    ChecksLeftLock,
}

use Step::{
    ChecksFound, ChecksHold, ChecksLeftLock, ChecksLock, ChecksOwn, CreatesDraft, CreatesSegment,
    ErasesDraft, ErasesFound, ErasesOwn, Holds, Initialises, LocksDraft, LocksFound, LocksOwn,
    LocksToHold, LooksUp, OpensLeftLock, OpensLock, OpensOwn, OpensSegment, RemovesDraft,
    RemovesLock, Renames, TakesLeftLock, TakesLock, Unlocks, Writes,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lock {
    None,
    Shared,
    Exclusive,
}

type File = u8;
type Segment = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    step: Step,
    is_elected: bool,
    /// The open lock file.
    election: Option<(File, Lock)>,
    /// The open entry or draft.
    entry: Option<(File, Lock)>,
    segment: Option<Segment>,
}

const NEW: Process = Process {
    step: LooksUp,
    is_elected: false,
    election: None,
    entry: None,
    segment: None,
};

/// How many files and segments there are at the same time, at most.
const FILES: usize = 8;
const PROCESSES: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    processes: [Process; PROCESSES],
    /// Where the names `H.lock`, `H.new` and `H.0` lead to.
    lock: Option<File>,
    draft: Option<File>,
    entry: Option<File>,
    /// What each file says.
    names: [Option<Segment>; FILES],
    initialised: [bool; FILES],
    is_wrong: Option<&'static str>,
}

struct Names(Rules);

/// The process and its step, or that it is killed.
type Event = (usize, Option<Step>);

impl State {
    /// Takes a lock without waiting.
    fn try_lock(&self, me: usize, file: File, lock: Lock) -> bool {
        let others = self
            .processes
            .iter()
            .enumerate()
            .filter(|&(at, _)| at != me);
        let mut theirs =
            others.flat_map(|(_, other)| [other.election, other.entry].into_iter().flatten());
        !theirs.any(|(locked, theirs)| {
            locked == file
                && (theirs == Lock::Exclusive || theirs == Lock::Shared && lock == Lock::Exclusive)
        })
    }

    /// Returns a number that no name and no process uses. A file that is written or a segment that is created has it.
    fn new_file(&mut self) -> File {
        let open = self
            .processes
            .iter()
            .flat_map(|process| [process.election, process.entry]);
        let mut used: Vec<File> = open.flatten().map(|(file, _)| file).collect();
        used.extend([self.lock, self.draft, self.entry].into_iter().flatten());
        let new = (0..=File::MAX)
            .find(|file| !used.contains(file))
            .expect("there are enough");
        self.names[usize::from(new)] = None;
        new
    }

    fn new_segment(&mut self) -> Segment {
        self.forget();
        let mut used: Vec<Segment> = self
            .processes
            .iter()
            .filter_map(|process| process.segment)
            .collect();
        used.extend(self.names.iter().flatten());
        let new = (0..=File::MAX)
            .find(|segment| !used.contains(segment))
            .expect("there are enough");
        self.initialised[usize::from(new)] = false;
        new
    }

    /// Forgets what files and segments have contained that are gone, so that there are fewer states.
    fn forget(&mut self) {
        for file in 0..FILES {
            let is = |open: Option<(File, Lock)>| {
                open.is_some_and(|(open, _)| usize::from(open) == file)
            };
            let is_open = self
                .processes
                .iter()
                .any(|process| is(process.election) || is(process.entry));
            let named = [self.lock, self.draft, self.entry];
            if !is_open && !named.contains(&u8::try_from(file).ok()) {
                self.names[file] = None;
            }
        }
        for segment in 0..FILES {
            let number = u8::try_from(segment).ok();
            let is_used = self
                .processes
                .iter()
                .any(|process| process.segment == number);
            self.initialised[segment] &= is_used || self.names.contains(&number);
        }
    }

    fn exists(&self, segment: Segment) -> bool {
        self.processes
            .iter()
            .any(|process| process.segment == Some(segment))
    }
}

impl Names {
    /// Executes the next step of a process.
    #[allow(clippy::too_many_lines, reason = "one arm for each step")]
    fn step(&self, before: &State, me: usize) -> State {
        let mut after = before.clone();
        let mut my = before.processes[me];
        let file = my.entry.map(|(file, _)| file);
        let elected_file = my.election.map(|(file, _)| file);
        let trusts = self.0 == Rules::TrustLocks;
        // Leaves the look-up without an entry.
        let not_found = |my: &mut Process| {
            my.entry = None;
            my.step = if my.is_elected {
                CreatesSegment
            } else {
                OpensLock
            };
        };
        let done = |my: &mut Process| my.step = if my.is_elected { RemovesDraft } else { Holds };
        match my.step {
            LooksUp => match before.entry {
                // A damaged entry is none.
                Some(entry) if before.names[usize::from(entry)].is_some() => {
                    (my.entry, my.step) = (Some((entry, Lock::None)), LocksFound);
                }
                _ => not_found(&mut my),
            },
            LocksFound => {
                let file = file.expect("it is open");
                my.step = OpensSegment;
                if before.try_lock(me, file, Lock::Exclusive) {
                    let lock = match self.0 {
                        Rules::RemoveWithoutLock => Lock::None,
                        _ => Lock::Exclusive,
                    };
                    (my.entry, my.step) = (Some((file, lock)), ChecksFound);
                }
            }
            ChecksFound if trusts || before.entry == file => my.step = ErasesFound,
            ChecksFound => (my.entry, my.step) = (None, LooksUp),
            ErasesFound => {
                after.entry = None;
                not_found(&mut my);
            }
            OpensSegment => {
                let named = before.names[usize::from(file.expect("it is open"))];
                if let Some(segment) = named.filter(|&segment| before.exists(segment)) {
                    (my.segment, my.step) = (Some(segment), LocksToHold);
                } else {
                    // The last holder is ending: the next look-up removes the entry.
                    (my.entry, my.step) = (None, LooksUp);
                }
            }
            LocksToHold => {
                let file = file.expect("it is open");
                if before.try_lock(me, file, Lock::Shared) {
                    (my.entry, my.step) = (Some((file, Lock::Shared)), ChecksHold);
                }
            }
            ChecksHold if trusts || before.entry == file => done(&mut my),
            ChecksHold => (my.entry, my.segment, my.step) = (None, None, LooksUp),
            OpensLock => {
                let lock = before.lock.unwrap_or_else(|| after.new_file());
                after.lock = Some(lock);
                (my.election, my.step) = (Some((lock, Lock::None)), TakesLock);
            }
            TakesLock => {
                let file = elected_file.expect("it is open");
                (my.election, my.step) = (None, LooksUp);
                if before.try_lock(me, file, Lock::Exclusive) {
                    (my.election, my.step) = (Some((file, Lock::Exclusive)), ChecksLock);
                }
            }
            ChecksLock if trusts || before.lock == elected_file => {
                my.is_elected = true;
                my.step = if self.0 == Rules::LookOnce {
                    CreatesSegment
                } else {
                    LooksUp
                };
            }
            ChecksLock => (my.election, my.step) = (None, OpensLock),
            CreatesSegment => {
                my.segment = Some(after.new_segment());
                my.step = if self.0 == Rules::PublishFirst {
                    ErasesDraft
                } else {
                    Initialises
                };
            }
            Initialises => {
                after.initialised[usize::from(my.segment.expect("it was created"))] = true;
                my.step = if self.0 == Rules::PublishFirst {
                    RemovesDraft
                } else {
                    ErasesDraft
                };
            }
            ErasesDraft => (after.draft, my.step) = (None, CreatesDraft),
            CreatesDraft => {
                if before.draft.is_some() {
                    after.is_wrong = Some("two processes write a draft");
                }
                let file = after.new_file();
                (my.entry, my.step) = (Some((file, Lock::None)), Writes);
                after.draft = Some(file);
            }
            Writes => {
                after.names[usize::from(file.expect("it is open"))] = my.segment;
                my.step = LocksDraft;
            }
            LocksDraft => (my.entry, my.step) = (file.map(|file| (file, Lock::Shared)), Renames),
            Renames => {
                if before.entry.is_some() || before.draft != file {
                    after.is_wrong = Some("an entry is replaced");
                }
                (after.entry, after.draft) = (file, None);
                my.step = if self.0 == Rules::PublishFirst {
                    Initialises
                } else {
                    RemovesDraft
                };
            }
            RemovesDraft => (after.draft, my.step) = (None, RemovesLock),
            RemovesLock => (after.lock, my.step) = (None, Unlocks),
            Unlocks => {
                (my.election, my.is_elected) = (None, false);
                my.step = Holds;
                if my.entry.is_none() {
                    my = NEW;
                }
            }
            Holds => (my.entry, my.step) = (file.map(|file| (file, Lock::None)), OpensOwn),
            OpensOwn if before.entry == file => my.step = LocksOwn,
            LocksOwn if before.try_lock(me, file.expect("it is open"), Lock::Exclusive) => {
                (my.entry, my.step) = (file.map(|file| (file, Lock::Exclusive)), ChecksOwn);
            }
            ChecksOwn if trusts || before.entry == file => my.step = ErasesOwn,
            ErasesOwn => (after.entry, my.entry, my.step) = (None, None, OpensLeftLock),
            OpensLeftLock => match before.lock {
                Some(lock) => (my.election, my.step) = (Some((lock, Lock::None)), TakesLeftLock),
                None => my = NEW,
            },
            TakesLeftLock => {
                let file = elected_file.expect("it is open");
                my.step = ChecksLeftLock;
                my.election = Some((file, Lock::Exclusive));
                if !before.try_lock(me, file, Lock::Exclusive) {
                    my = NEW;
                }
            }
            ChecksLeftLock if trusts || before.lock == elected_file => my.step = RemovesDraft,
            OpensOwn | LocksOwn | ChecksOwn | ChecksLeftLock => my = NEW,
        }
        after.processes[me] = my;
        after.forget();
        after
    }

    /// Kills all processes, and lets a new one create the name and drop it. Returns what stops it, or is left.
    fn next_one(&self, state: &State) -> Option<&'static str> {
        let mut state = state.clone();
        state.processes = [NEW; PROCESSES];
        state.forget();
        for _ in 0..100 {
            state = self.step(&state, 0);
            if state.processes[0] == NEW && state.entry.is_none() {
                let left = state.lock.is_some() || state.draft.is_some();
                return left.then_some("files are left");
            }
        }
        Some("the next process does not get the name")
    }
}

impl Model for Names {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            processes: [NEW; PROCESSES],
            lock: None,
            draft: None,
            entry: None,
            names: [None; FILES],
            initialised: [false; FILES],
            is_wrong: None,
        }
    }

    fn next(&self, state: &State) -> Vec<(Event, State)> {
        let mut events = Vec::new();
        for me in 0..PROCESSES {
            let step = state.processes[me].step;
            events.push(((me, Some(step)), self.step(state, me)));
            let mut killed = state.clone();
            killed.processes[me] = NEW;
            killed.forget();
            events.push(((me, None), killed));
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        let holders = state
            .processes
            .iter()
            .filter(|process| process.step == Holds);
        let held: Vec<Segment> = holders.filter_map(|process| process.segment).collect();
        if held
            .iter()
            .any(|&segment| !state.initialised[usize::from(segment)])
        {
            return Some("a segment is not initialised");
        }
        if held.iter().any(|&segment| segment != held[0]) {
            return Some("there are two segments");
        }
        state.is_wrong.or_else(|| self.next_one(state))
    }
}

#[test]
fn processes_killed_at_any_step_leave_a_name_that_can_be_created() {
    let states = check(&Names(Rules::All)).expect("no schedule fails");
    println!("{states} states of names");
    assert!(states > 10_000, "the model has only {states} states");
}

#[test]
fn each_rule_is_needed() {
    for (rules, expected) in [
        (Rules::PublishFirst, "a segment is not initialised"),
        (Rules::RemoveWithoutLock, "there are two segments"),
        (Rules::LookOnce, "an entry is replaced"),
        (Rules::TrustLocks, "there are two segments"),
    ] {
        let (fault, schedule) = check(&Names(rules)).expect_err("a rule is missing");
        assert_eq!(fault, expected, "{schedule:?}");
    }
}
