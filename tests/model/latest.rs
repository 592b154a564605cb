//! `channel::latest::protocol`: a writer that publishes values in two slots and is killed and replaced at any time,
//! and readers that copy the newest one. The low word of a number has two bits, so that it overflows soon.
//!
//! Each load and store is a step of its own, and all processes see the steps in one order. The unit tests of the
//! protocol, which run under loom, are about weaker orders.

use super::{Model, check};

/// A low word has values below this one.
const LOWS: u8 = 4;

/// A step that is left out, or done otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The writer does not mark the slot first.
    Mark,
    /// The writer overwrites the published value.
    SecondSlot,
    /// The reader does not look at the slot again.
    Check,
    /// The reader looks only at the low word again.
    HighWord,
    /// The reader looks at the high word after the low one at first.
    HighWordFirst,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Slot {
    state: u8,
    high: u8,
    /// The number of the value that each word belongs to.
    words: [u8; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Reader {
    step: u8,
    low: u8,
    high: u8,
    words: [u8; 2],
    /// The number of the newest value when the reader has begun.
    floor: u8,
}

impl Reader {
    fn sequence(self) -> u8 {
        self.high * LOWS + self.low
    }

    fn slot(self) -> usize {
        usize::from(self.low % 2)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    newest: u8,
    slots: [Slot; 2],
    /// The number of the value that was published last.
    published: u8,
    /// The next step of the writer, and the number that it writes.
    writer: (u8, u8),
    readers: Vec<Reader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    WriterSteps,
    WriterIsReplaced,
    ReaderSteps(usize),
}

struct Latest {
    without: Without,
    readers: usize,
    /// How many values are published.
    values: u8,
}

impl Latest {
    fn write(&self, state: &State) -> Option<State> {
        let mut after = state.clone();
        let (step, sequence) = state.writer;
        let (low, high) = (sequence % LOWS, sequence / LOWS);
        let index = match self.without {
            Without::SecondSlot => 0,
            _ => usize::from(low % 2),
        };
        let slot = &mut after.slots[index];
        match step {
            0 => {
                let index = usize::from(state.newest % 2);
                let last = state.slots[index].high * LOWS + state.newest;
                after.writer.1 = last + 1;
                if state.published == self.values {
                    return None;
                }
            }
            1 if self.without == Without::Mark => {}
            1 => slot.state = LOWS - 1 - low,
            2 => slot.high = high,
            3 => slot.words[0] = sequence,
            4 => slot.words[1] = sequence,
            5 => slot.state = low,
            _ => {
                after.newest = low;
                after.published = sequence;
                after.writer = (0, 0);
                return Some(after);
            }
        }
        after.writer.0 += 1;
        Some(after)
    }

    fn read(&self, state: &State, reader: Reader) -> Reader {
        let mut after = reader;
        let slot = &state.slots[reader.slot()];
        // Which of the first two looks is the one at the high word.
        let high_word = if self.without == Without::HighWordFirst {
            2
        } else {
            1
        };
        let goes_on = match (reader.step, self.without) {
            (0, _) => {
                (after.low, after.floor) = (state.newest, state.published);
                true
            }
            (step @ (1 | 2), _) if step == high_word => {
                after.high = slot.high;
                true
            }
            (5, Without::Check) | (6, Without::Check | Without::HighWord) => true,
            (1 | 2 | 5, _) => slot.state == reader.low,
            (3, _) => {
                after.words[0] = slot.words[0];
                true
            }
            (4, _) => {
                after.words[1] = slot.words[1];
                true
            }
            (6, _) => slot.high == reader.high,
            _ => false,
        };
        if goes_on {
            after.step += 1;
            after
        } else {
            Reader::default()
        }
    }
}

impl Model for Latest {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            newest: 0,
            // Slot 1 looks like that of number 0 too, and is never asked for it.
            slots: Default::default(),
            published: 0,
            writer: (0, 0),
            readers: vec![Reader::default(); self.readers],
        }
    }

    fn next(&self, state: &State) -> Vec<(Event, State)> {
        let mut events = Vec::new();
        if let Some(after) = self.write(state) {
            events.push((Event::WriterSteps, after));
        }
        let mut after = state.clone();
        after.writer = (0, 0);
        events.push((Event::WriterIsReplaced, after));
        for (index, &reader) in state.readers.iter().enumerate() {
            let mut after = state.clone();
            after.readers[index] = self.read(state, reader);
            events.push((Event::ReaderSteps(index), after));
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        let State {
            newest, published, ..
        } = *state;
        let (step, sequence) = state.writer;
        if step > 0 && sequence != published + 1 {
            return Some("the numbers do not go on");
        }
        let index = match self.without {
            Without::SecondSlot => 0,
            _ => usize::from(newest % 2),
        };
        let whole = Slot {
            state: newest,
            high: published / LOWS,
            words: [published; 2],
        };
        if state.slots[index] != whole {
            return Some("the published value is lost");
        }
        // These have copied a value, and found it to be whole.
        let mut done = state.readers.iter().filter(|reader| reader.step == 7);
        done.find_map(|reader| {
            if reader.words != [reader.sequence(); 2] {
                Some("a value is torn")
            } else if reader.sequence() < reader.floor {
                Some("an old value is read")
            } else {
                None
            }
        })
    }
}

fn checked(
    without: Without,
    readers: usize,
    values: u8,
) -> Result<usize, (&'static str, Vec<Event>)> {
    check(&Latest {
        without,
        readers,
        values,
    })
}

#[test]
fn values_are_whole_and_in_order_whenever_the_writer_is_killed() {
    // The low word overflows twice.
    let states = checked(Without::Nothing, 1, 3 * LOWS).expect("no schedule fails");
    assert!(states > 10_000, "the model has only {states} states");
    let states = checked(Without::Nothing, 2, 4).expect("no schedule fails");
    assert!(states > 10_000, "the model has only {states} states");
}

#[test]
fn a_value_in_a_single_slot_is_lost_with_its_writer() {
    let (fault, _) = checked(Without::SecondSlot, 0, 3).expect_err("it is overwritten");
    assert_eq!(fault, "the published value is lost");
}

#[test]
fn every_look_of_a_reader_is_needed() {
    for without in [
        Without::Mark,
        Without::Check,
        Without::HighWord,
        Without::HighWordFirst,
    ] {
        let found = checked(without, 1, 3 * LOWS);
        let (fault, schedule) = found.expect_err("a value is torn");
        assert_eq!(fault, "a value is torn", "{without:?}: {schedule:?}");
    }
}
