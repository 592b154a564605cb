//! What belongs to one process, and not to the children that it forks.

mod owner;

pub(crate) use self::owner::Owner;
