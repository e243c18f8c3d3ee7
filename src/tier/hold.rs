//! Holding an object in a tier: waits for room, for the copy, and for other holds.

use std::time::Duration;

use super::core::AttemptError;
use super::object::TieredObject;
use super::pin::{Pin, PinMut};
use super::{Blocked, Tier, TierError};
use crate::lockfree::tier_state::FILE;
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;

impl TieredObject {
    /// Holds the object in `tier` for work on `stream` that reads it; moves it there first if need
    /// be.
    ///
    /// Waits for room, for the copy, and for who holds the object elsewhere or writes it, until the
    /// pool's deadline. To overlap copies with other work, ask for them [ahead](Self::prefetch).
    ///
    /// # Errors
    ///
    /// The object is where it was, or in `tier`:
    ///
    /// * [`TierError::Absent`], [`TierError::TooLarge`]: the pool has no such tier, or none so
    ///   large.
    /// * [`TierError::Busy`]: the deadline has passed; says what was in the way.
    /// * [`TierError::Driver`]: the driver refused memory or a copy.
    pub fn pin<'a>(&'a self, tier: Tier, stream: &'a Stream) -> Result<Pin<'a>, TierError> {
        match self.hit(tier, stream) {
            Some(pin) => Ok(pin),
            None => self.hold(Some(tier), false, stream, self.core.wait),
        }
    }

    /// As [`pin`](Self::pin), and does not wait: the move begins, and a later call finds it
    /// complete.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    pub fn try_pin<'a>(&'a self, tier: Tier, stream: &'a Stream) -> Result<Pin<'a>, TierError> {
        match self.hit(tier, stream) {
            Some(pin) => Ok(pin),
            None => self.hold(Some(tier), false, stream, Duration::ZERO),
        }
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
    /// Also waits until the device is past all reads by others: what they submitted before their
    /// guards ended, and a copy to another tier that is under way, which is then in vain.
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin); and [`TierError::ReadOnly`] for a part of a mapped file in the file.
    pub fn pin_mut<'a>(
        &'a mut self,
        tier: Tier,
        stream: &'a Stream,
    ) -> Result<PinMut<'a>, TierError> {
        if tier.index() == FILE && self.core.records[self.index].is_fixed() {
            return Err(TierError::ReadOnly);
        }
        self.hold(Some(tier), true, stream, self.core.wait).map(PinMut::new)
    }

    /// Holds the object for a reader where that is no more than a hit: it is in the tier, and
    /// nothing is in the way.
    // Always: a call would cost as much as the copies of the guard that it returns.
    #[inline(always)]
    fn hit<'a>(&'a self, tier: Tier, stream: &'a Stream) -> Option<Pin<'a>> {
        // Made before the guard, whose drop must not fail.
        stream.ready_timeline()?;
        // Managed memory may have to be asked to come.
        if tier == Tier::Managed {
            return None;
        }
        let (lease, state) = self.core.try_hold(self.index, tier.index(), stream)?;
        self.core.count_hit(lease);
        Some(Pin::reading(self, lease, state, stream))
    }

    #[cold]
    fn hold<'a>(
        &'a self,
        tier: Option<Tier>,
        write: bool,
        stream: &'a Stream,
        limit: Duration,
    ) -> Result<Pin<'a>, TierError> {
        // Made before the guard, whose drop must not fail.
        stream.timeline()?;
        if let Some(tier) = tier {
            self.core.check_reach(tier.index(), stream)?;
        }
        let (mut is_hit, mut claimed) = (true, None);
        let mut attempt = || {
            let held = claimed
                .map_or_else(|| self.core.hold(self.index, tier.map(Tier::index), write), Ok);
            // An attempt that is blocked by other holders only is where the object is.
            is_hit &=
                matches!(held, Ok(_) | Err(AttemptError::Blocked(Blocked::Held | Blocked::Pins)));
            let held = *claimed.insert(held?);
            if write {
                self.core.end_copy(self.index)?;
            }
            Ok(held)
        };
        let held = self.core.until(limit, &mut attempt);
        let counters = &self.core.counters;
        let counter = if is_hit { &counters.hits } else { &counters.misses };
        counter.fetch_add(1, Relaxed);
        let pinned = held.and_then(|(lease, state)| {
            // The tier that was asked for was looked at first.
            if tier.is_none() {
                self.core.check_reach(state.tier(), stream)?;
            }
            Ok(Pin::new(self, lease, state, write, stream))
        });
        if let (Err(_), Some((lease, _))) = (&pinned, claimed) {
            self.core.abandon(self.index, lease);
        }
        pinned
    }
}
