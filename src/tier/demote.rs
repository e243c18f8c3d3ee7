//! Which objects leave a tier that is full, and which are expected in another.

use super::Tier;
use super::core::{AttemptError, Core};
use super::error::{Blocked, TierError};
use super::planned::Planned;
use crate::address::to_usize;
use crate::lockfree::tier_state::FILE;
use crate::sync::atomic::Ordering::Relaxed;

impl Core {
    /// Sends objects of at least `lack` bytes to lower tiers, in the order of a clock with second
    /// chances. One that is expected soon is passed over as long as there are others.
    pub(super) fn demote(&self, tier: usize, lack: usize) -> Result<(), AttemptError> {
        let (hand, count) = (&self.memory(tier)?.hand, self.used.load(Relaxed));
        let (mut gone, mut batch, mut stopped) = (0, Vec::new(), None);
        for turn in 0..count * ROUNDS {
            if gone >= lack {
                break;
            }
            let index = hand.fetch_add(1, Relaxed) % count;
            let record = &self.records[index];
            let spared = turn < count * (ROUNDS - 1) && self.is_expected(index);
            if spared || record.word.pass(tier).is_err() {
                continue;
            }
            let size = record.size();
            match self.plan_lower(index, tier) {
                Ok(planned) => {
                    batch.extend(planned);
                    gone += size;
                }
                Err(AttemptError::Blocked(Blocked::Held)) => {}
                Err(error) => {
                    stopped = Some(error);
                    break;
                }
            }
        }
        if !batch.is_empty() {
            self.submit(batch)?;
        }
        match stopped {
            _ if gone > 0 => Ok(()),
            Some(error) => Err(error),
            None => Err(AttemptError::Blocked(Blocked::Full(Tier::from_index(tier)))),
        }
    }

    /// Plans a move to the next lower tier that has room, or makes it.
    fn plan_lower(&self, index: usize, tier: usize) -> Result<Option<Planned>, AttemptError> {
        let record = &self.records[index];
        if record.word.load().is_clean() && record.home().is_some() {
            return self.plan(index, FILE);
        }
        let mut error = AttemptError::Blocked(Blocked::Full(Tier::from_index(tier)));
        for lower in tier + 1..=FILE {
            match self.plan(index, lower) {
                Err(AttemptError::Failed(TierError::Absent(_) | TierError::TooLarge { .. })) => {}
                Err(full @ AttemptError::Blocked(Blocked::Full(_))) => error = full,
                outcome => return outcome,
            }
        }
        Err(error)
    }

    /// Notes that an object will be used in some steps.
    pub(super) fn expect(&self, index: usize, tier: usize, steps: u64) {
        let at = self.step.load(Relaxed).saturating_add(steps).saturating_add(1);
        self.records[index]
            .due
            .store(at.min(u64::MAX >> TIER_BITS) << TIER_BITS | tier as u64, Relaxed);
    }

    /// A step has gone by: copies that are complete count, and objects that are expected soon begin
    /// to move.
    pub(super) fn advance(&self) -> Result<(), AttemptError> {
        let now = self.step.fetch_add(1, Relaxed) + 1;
        self.settle()?;
        let mut batch = Vec::new();
        let mut failed = Ok(());
        for index in 0..self.used.load(Relaxed) {
            let Some((at, tier)) = self.due(index) else { continue };
            let word = &self.records[index].word;
            if at < now || !word.load().is_live() {
                self.records[index].due.store(0, Relaxed);
            } else if at <= now + LOOKAHEAD && word.load().tier() != tier && failed.is_ok() {
                match self.plan(index, tier) {
                    Ok(planned) => batch.extend(planned),
                    // Later, then.
                    Err(AttemptError::Blocked(_)) => {}
                    Err(error) => failed = Err(error),
                }
            }
        }
        if batch.is_empty() { failed } else { self.submit(batch).and(failed) }
    }

    /// Whether a use of the object is expected soon.
    fn is_expected(&self, index: usize) -> bool {
        let now = self.step.load(Relaxed);
        self.due(index).is_some_and(|(at, _)| (now..=now + HORIZON).contains(&at))
    }

    /// The step at which the object is expected, and in which tier.
    fn due(&self, index: usize) -> Option<(u64, usize)> {
        let due = self.records[index].due.load(Relaxed);
        let tier = to_usize(due & ((1 << TIER_BITS) - 1));
        (due != 0).then(|| ((due >> TIER_BITS) - 1, tier))
    }
}

/// One round takes second chances, one finds who has none, one more takes who is expected.
const ROUNDS: usize = 3;

/// An object that is expected in so many steps begins to move.
const LOOKAHEAD: u64 = 4;

/// An object that is expected in so many steps is not sent away while there are others.
const HORIZON: u64 = 16;

const TIER_BITS: u32 = 2;
