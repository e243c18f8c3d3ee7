//! An object's handle.

use std::fmt;
use std::sync::Arc;

use super::core::{AttemptError, Core};
use super::{Tier, TierError};

/// An object of a [`TieredPool`](super::TieredPool).
///
/// It may be shared between threads; who writes has it alone. Dropping it never waits: its memory
/// is free when the device is past the last use and the last copy.
pub struct TieredObject {
    pub(super) core: Arc<Core>,
    pub(super) index: usize,
}

impl TieredObject {
    pub(super) fn new(core: Arc<Core>, index: usize) -> Self {
        Self { core, index }
    }

    /// The size, in bytes.
    pub fn size(&self) -> usize {
        self.core.records[self.index].size()
    }

    /// The tier that the object is in at this moment.
    pub fn tier(&self) -> Tier {
        Tier::from_index(self.core.records[self.index].word.load().tier())
    }

    /// Begins to move the object to `tier`, if it is elsewhere and is not held there. Does not
    /// wait.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn prefetch(&self, tier: Tier) -> Result<(), TierError> {
        self.core.settle()?;
        let state = self.core.records[self.index].word.load();
        if state.tier() == tier.index() || (state.is_moving() && state.to() == tier.index()) {
            return Ok(());
        }
        self.core.start(self.index, tier.index()).map_err(AttemptError::at_once)
    }

    /// Lets a move that is under way end where it began. The copy goes on, and has no effect.
    pub fn cancel_move(&self) {
        self.core.records[self.index].word.cancel();
    }

    /// Says that the object will be used in `tier` after so many [steps](super::TieredPool::step).
    ///
    /// It begins to move some steps ahead, if there is room that can be had, and is not sent away
    /// before.
    pub fn expect_use_in(&self, steps: u64, tier: Tier) {
        self.core.expect(self.index, tier.index(), steps);
    }
}

impl fmt::Debug for TieredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TieredObject");
        out.field("size", &self.size()).field("tier", &self.tier()).finish_non_exhaustive()
    }
}

impl Drop for TieredObject {
    fn drop(&mut self) {
        let outcome = self.core.records[self.index].word.drop_object();
        self.core.free_if(outcome, self.index);
    }
}
