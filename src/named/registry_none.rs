//! For systems on which names are not implemented: opening the directory of names is an error, so none of
//! the other functions is ever called.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use std::path::Path;

use super::Deadline;
use super::record::Record;
use crate::error::{Error, Result};
use crate::id::ShMemId;

pub(super) type Forget = fn(ShMemId, bool);

#[derive(Debug)]
pub(super) struct Directory(Infallible);

#[derive(Debug)]
pub(super) struct Entry(Infallible);

pub(super) struct Found {
    pub(super) record: Record,
    _never: Infallible,
}

#[derive(Debug)]
pub(super) struct Election(Infallible);

impl Directory {
    pub(super) fn open(_chosen: Option<&Path>, _forget: Forget) -> Result<Arc<Self>> {
        Err(Error::Unsupported {
            what: "names of segments need flock(2), which this system does not have",
        })
    }

    pub(super) fn look_up(
        &self,
        _name: (&str, &str),
        _deadline: &mut Deadline,
    ) -> Result<Option<Found>> {
        match self.0 {}
    }

    pub(super) fn all(self: &Arc<Self>, _deadline: &mut Deadline) -> Result<Vec<Found>> {
        match self.0 {}
    }

    pub(super) fn hold(
        self: &Arc<Self>,
        _found: Found,
        _deadline: &mut Deadline,
    ) -> Result<Option<Entry>> {
        match self.0 {}
    }

    pub(super) fn discard(&self, _found: &Found) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn elect(self: &Arc<Self>, _hash: &str, _create: bool) -> Result<Option<Election>> {
        match self.0 {}
    }
}

impl Election {
    pub(super) fn publish(&self, _record: &Record) -> Result<Option<Entry>> {
        match self.0 {}
    }

    pub(super) fn remove(&self, _found: &Found) -> Result<()> {
        match self.0 {}
    }
}

impl Entry {
    pub(super) fn abandon(self) {
        match self.0 {}
    }
}
