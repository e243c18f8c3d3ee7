//! Where buffers come from: for the debugging of leaks, at a price.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// The call sites of live buffers, by record. Takes a lock at every allocation.
#[derive(Debug, Default)]
pub(super) struct Track(Mutex<Vec<Option<Origin>>>);

/// Where and when a buffer was allocated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) site: &'static Location<'static>,
    at: Instant,
}

impl Origin {
    pub(super) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

impl Track {
    /// Notes where the buffer of a record comes from.
    pub(super) fn note(&self, index: u32, site: &'static Location<'static>) {
        let mut origins = self.0.lock();
        let index = index as usize;
        if origins.len() <= index {
            origins.resize(index + 1, None);
        }
        origins[index] = Some(Origin { site, at: Instant::now() });
    }

    /// Where the buffer of a record was last allocated.
    pub(super) fn origin(&self, index: u32) -> Option<Origin> {
        let origins = self.0.lock();
        origins.get(index as usize).copied().flatten()
    }
}
