//! An object's handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Stop};
use super::pin::{Pin, PinMut};
use super::{Obstacle, Tier, TierError};
use crate::lockfree::tier_state::FILE;
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;

/// An object of a [`TieredPool`](super::TieredPool).
///
/// It may be shared between threads; who writes has it alone. Dropping it never waits: its memory is free
/// when the device is past the last use and the last copy.
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

    /// Holds the object in `tier` for work on `stream` that reads it; moves it there first if need be.
    ///
    /// Waits for room, for the copy, and for who holds the object elsewhere or writes it, until the pool's
    /// deadline. To overlap copies with other work, ask for them [ahead](Self::prefetch).
    ///
    /// # Errors
    ///
    /// The object is where it was, or in `tier`:
    ///
    /// * [`TierError::Absent`], [`TierError::TooLarge`]: the pool has no such tier, or none so large.
    /// * [`TierError::Busy`]: the deadline has passed; says what was in the way.
    /// * [`TierError::Driver`]: the driver refused memory or a copy.
    pub fn pin<'a>(&'a self, tier: Tier, stream: &'a Stream) -> Result<Pin<'a>, TierError> {
        self.hold(Some(tier), false, stream, self.core.wait)
    }

    /// As [`pin`](Self::pin), and does not wait: the move begins, and a later call finds it complete.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn try_pin<'a>(&'a self, tier: Tier, stream: &'a Stream) -> Result<Pin<'a>, TierError> {
        self.hold(Some(tier), false, stream, Duration::ZERO)
    }

    /// Holds the object in the tier that it is in, for work on `stream` that reads it.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn pin_here<'a>(&'a self, stream: &'a Stream) -> Result<Pin<'a>, TierError> {
        self.hold(None, false, stream, self.core.wait)
    }

    /// Holds the object in `tier` for work on `stream` that reads and writes it.
    ///
    /// Also waits until the device is past all reads by others.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin); and [`TierError::ReadOnly`] for a part of a mapped file in the file.
    pub fn pin_mut<'a>(&'a mut self, tier: Tier, stream: &'a Stream) -> Result<PinMut<'a>, TierError> {
        if tier.index() == FILE && self.core.records[self.index].is_fixed() {
            return Err(TierError::ReadOnly);
        }
        self.hold(Some(tier), true, stream, self.core.wait).map(PinMut::new)
    }

    /// Begins to move the object to `tier`, if it is elsewhere and nobody holds it there. Does not wait.
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
        self.core.start(self.index, tier.index()).map_err(Stop::at_once)
    }

    /// Lets a move that is under way end where it began. The copy goes on, and nobody sees it.
    pub fn cancel_move(&self) {
        self.core.records[self.index].word.cancel();
    }

    /// Says that the object will be used in `tier` after so many [steps](super::TieredPool::step).
    ///
    /// It begins to move some steps ahead, if there is room that can be had, and is not sent away before.
    pub fn expect_use_in(&self, steps: u64, tier: Tier) {
        self.core.expect(self.index, tier.index(), steps);
    }

    fn hold<'a>(
        &'a self,
        tier: Option<Tier>,
        write: bool,
        stream: &'a Stream,
        limit: Duration,
    ) -> Result<Pin<'a>, TierError> {
        // Made before the guard, whose drop must not fail.
        stream.timeline()?;
        let mut is_hit = true;
        let mut attempt = || {
            let held = self.core.hold(self.index, tier.map(Tier::index), write);
            // Who waits for others only is where the object is.
            is_hit &= matches!(held, Ok(_) | Err(Stop::Wait(Obstacle::Held | Obstacle::Pins)));
            held
        };
        let held = match attempt() {
            Err(Stop::Wait(_)) if !limit.is_zero() => self.core.until(limit, &mut attempt),
            outcome => outcome.map_err(Stop::at_once),
        };
        let counters = &self.core.counters;
        let counter = if is_hit { &counters.hits } else { &counters.misses };
        counter.fetch_add(1, Relaxed);
        let (lease, state) = held?;
        Ok(Pin::new(self, lease, state, stream))
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
