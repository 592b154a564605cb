//! [`Kin`] where there is no System V shared memory: nothing is known of forked children.

/// Cannot be made.
#[derive(Debug)]
pub(crate) enum Kin {}

impl Kin {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn is_alone(&self) -> bool {
        match *self {}
    }
}
