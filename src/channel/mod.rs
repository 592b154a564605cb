//! Channels between processes: messages, and the newest value.
//!
//! | to | use |
//! | --- | --- |
//! | send messages of any length from one process to another | [`Ring`] |
//! | publish values of which only the newest matters, to any number of processes | [`Latest`] |
//!
//! A message or value is there whole or not at all, whichever process is killed. A hostile process of the same user
//! can garble what is sent, but cause no undefined behaviour, and no wait beyond the timeout.

mod latest;
mod ring;

pub use self::latest::{Latest, LatestReader, LatestWriter, Seen};
pub use self::ring::{Batch, Grant, Message, Messages, Ring, RingReader, RingWriter};
