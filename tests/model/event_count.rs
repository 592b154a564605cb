//! The event count that barriers and condition variables sleep on (`src/sync/event_count.rs`), as a part of their
//! models. `turn.rs` has a model of its own.

pub(super) const SLEEPS: u8 = 1;
const WAKING: u8 = 2;
const COUNT: u8 = 4;

/// What a waker leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Waking does not change the count.
    NoCount,
    /// Waking leaves no mark for the case that the waker is killed.
    NoMark,
    /// The mark is removed even if another waiter has announced itself.
    RemovesAll,
}

/// What a waker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waker {
    Finds,
    Marks(u8),
    /// Has found that others change the word as well.
    Counts,
    Wakes(Option<u8>),
    Unmarks(u8),
}

/// What one step of a waker did.
pub(super) struct Woken {
    pub(super) event: &'static str,
    /// What it does next, or `None` if it has finished.
    pub(super) next: Option<Waker>,
    pub(super) word: u8,
    /// All sleepers are woken.
    pub(super) wakes: bool,
}

impl Waker {
    pub(super) fn step(self, word: u8, fault: Option<Fault>) -> Woken {
        let (event, next, word) = match self {
            Self::Finds if word & (SLEEPS | WAKING) == 0 => ("finds nobody", None, word),
            Self::Finds => ("finds waiters", Some(Self::Marks(word)), word),
            Self::Marks(found) if found == word => {
                let count = if fault == Some(Fault::NoCount) {
                    0
                } else {
                    COUNT
                };
                let mark = if fault == Some(Fault::NoMark) {
                    0
                } else {
                    WAKING
                };
                let waking = found.wrapping_add(count) & !(SLEEPS | WAKING) | mark;
                ("marks", Some(Self::Wakes(Some(waking))), waking)
            }
            Self::Marks(_) => ("finds others", Some(Self::Counts), word),
            Self::Counts => ("counts", Some(Self::Wakes(None)), word.wrapping_add(COUNT)),
            Self::Wakes(waking) => ("wakes", waking.map(Self::Unmarks), word),
            Self::Unmarks(_) if fault == Some(Fault::RemovesAll) => {
                ("unmarks", None, word & !(SLEEPS | WAKING))
            }
            Self::Unmarks(waking) if waking == word => ("unmarks", None, word & !WAKING),
            Self::Unmarks(_) => ("leaves the mark", None, word),
        };
        Woken {
            event,
            next,
            word,
            wakes: matches!(self, Self::Wakes(_)),
        }
    }

    /// Returns `true` if some may not have been woken when this waker is killed.
    pub(super) fn is_cut_short(self) -> bool {
        !matches!(self, Self::Unmarks(_))
    }
}
