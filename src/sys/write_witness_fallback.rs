//! Systems without segments that have a single writer need no witness of forked children.

/// Never exists.
#[derive(Debug)]
pub(crate) enum WriteWitness {}

impl WriteWitness {
    /// Returns `None`.
    pub(crate) fn new() -> Option<Self> {
        None
    }

    /// Is never called.
    pub(crate) fn is_alone(&mut self) -> bool {
        match *self {}
    }
}
