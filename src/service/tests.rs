//! Tests of the parts of the service that know no sockets, against their documentation and against models
//! that are too simple to be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod admission;
mod deadlines;
mod locks;
mod protocol;
mod registry;

use crate::id::ShMemId;

fn id(number: u8) -> ShMemId {
    ShMemId::from_int(number.into())
}
