//! What a pool of tiers has done.

use super::Tier;
use crate::lockfree::tier_state::TIERS;
use crate::sync::atomic::AtomicU64;

/// What a pool of tiers holds and has done. Sizes are in bytes.
///
/// A snapshot: the numbers are read one by one while other threads go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Holds of objects that were in their tier.
    pub hits: u64,
    /// Holds of objects that were not.
    pub misses: u64,
    /// Moves that needed no copy, since the file had the bytes.
    pub clean: u64,
    /// Copies that the driver refused.
    pub failed: u64,
    /// Copies whose object was held, written, cancelled or dropped when they were complete.
    pub in_vain: u64,
    /// Pieces of advice and prefetches that the driver refused.
    pub refused_hints: u64,
    /// Copies under way.
    pub in_flight: usize,
    /// Each tier, the fastest first; zeros for one that the pool has not.
    pub tiers: [TierUse; TIERS],
}

/// The use of one tier, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierUse {
    /// What it may hold.
    pub limit: usize,
    /// Blocks that objects have.
    pub used: usize,
    /// What was moved to it.
    pub moved: u64,
}

impl TierStats {
    /// One tier.
    pub fn tier(&self, tier: Tier) -> TierUse {
        self.tiers[tier.index()]
    }
}

/// The numbers behind [`TierStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Those that did not succeed at once; the others are counted without a locked instruction, see
    /// `Core::hits`.
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) clean: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) in_vain: AtomicU64,
    pub(super) refused_hints: AtomicU64,
    pub(super) moved: [AtomicU64; TIERS],
}
