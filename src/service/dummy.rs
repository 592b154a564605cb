//! [`DummyShMemService`]: stands in for the service where none is needed.

use std::path::Path;

use crate::error::Result;

/// Replaces `ShMemService` on systems where no service is needed, because the default provider opens segments
/// by their ids alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct DummyShMemService;

impl DummyShMemService {
    /// Does nothing.
    ///
    /// # Errors
    ///
    /// None.
    pub fn start() -> Result<Self> {
        Ok(Self)
    }

    /// Does nothing.
    ///
    /// # Errors
    ///
    /// None.
    pub fn start_at(path: impl AsRef<Path>) -> Result<Self> {
        let _ = path;
        Ok(Self)
    }

    /// Does nothing.
    pub fn stop(self) {}
}
