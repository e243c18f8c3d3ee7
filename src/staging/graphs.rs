//! The account of a set's graphs.

use super::cache::Account;
use crate::driver::Context;
use crate::error::Error;
use crate::stream::Stream;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Graphs that a set keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphsKept {
    /// How many.
    pub count: usize,
    /// Their cost in the account, in bytes.
    pub bytes: usize,
}

/// Graphs that were made, by when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphsMade {
    /// By steps that needed one and had none.
    pub by_steps: u64,
    /// Before a step needed them.
    pub ahead: u64,
}

/// The account of a set's graphs.
#[derive(Debug)]
pub(super) struct Graphs {
    pub(super) account: Account,
    made: AtomicU64,
    /// How many of them before a step needed them.
    made_ahead: AtomicU64,
    /// Graphs that were made ahead go to the device through it.
    uploads: OnceLock<Stream>,
}

impl Graphs {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            made: AtomicU64::new(0),
            made_ahead: AtomicU64::new(0),
            uploads: OnceLock::new(),
        }
    }

    /// The graphs that are kept at this moment.
    pub(super) fn kept(&self) -> GraphsKept {
        let (count, bytes) = self.account.used();
        GraphsKept { count, bytes }
    }

    /// The graphs that were made so far.
    pub(super) fn made(&self) -> GraphsMade {
        let (made, ahead) = (self.made.load(Relaxed), self.made_ahead.load(Relaxed));
        GraphsMade { by_steps: made.saturating_sub(ahead), ahead }
    }

    /// Lets go of the stream for uploads: no graph is made any more.
    pub(super) fn end(&mut self) {
        drop(self.uploads.take());
    }

    /// Counts a graph that was made.
    pub(super) fn count_made(&self) {
        self.made.fetch_add(1, Relaxed);
    }

    /// Counts one of them as made ahead. Returns the stream that it goes to the device through.
    pub(super) fn count_made_ahead(&self, context: &Context) -> Result<&Stream, Error> {
        self.made_ahead.fetch_add(1, Relaxed);
        if let Some(stream) = self.uploads.get() {
            return Ok(stream);
        }
        let made = Stream::new(context)?;
        Ok(self.uploads.get_or_init(|| made))
    }
}
