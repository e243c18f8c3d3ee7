//! The memory of a replay.

use serde::Serialize;
use wharf::memory::{Budget, BudgetUse};

use crate::replay::{KindUse, TorchUse};

/// Memory by kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kinds {
    /// Of the device.
    pub device: Kind,
    /// Pinned.
    pub pinned: Kind,
}

/// Memory of pools, tiers and sets together, as a budget counts it. Sizes are in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Together {
    /// The limit for all together, where there is one.
    pub limit: Option<usize>,
    /// The most that all together had committed.
    pub peak: usize,
    /// What each had at the end, and at most.
    pub uses: Vec<BudgetUse>,
}

/// PyTorch's allocators, by their rules.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Torches {
    /// The native one.
    pub native: TorchUse,
    /// The one with expandable segments.
    pub expandable: TorchUse,
}

/// Memory of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kind {
    /// The most that was asked for at once.
    pub peak_live: u64,
    /// The most that was obtained.
    pub peak_reserved: u64,
    /// The share of the blocks in use at the peak that is beyond what was asked for.
    pub waste: f64,
    /// The share of what had been obtained that was not in use at the peak.
    pub idle: f64,
    /// Allocations.
    pub allocations: u64,
    /// The number of allocations for which the pool may have grown.
    pub grown: u64,
}

impl Together {
    /// What a budget counts, with what each had at some moment.
    pub fn of(budget: &Budget, uses: Vec<BudgetUse>) -> Self {
        let limit = Some(budget.limit()).filter(|limit| *limit < usize::MAX);
        Self { limit, peak: budget.peak(), uses }
    }
}

impl Kind {
    pub(super) fn of(peak: KindUse, latest: KindUse) -> Self {
        Self {
            peak_live: peak.live,
            peak_reserved: peak.reserved,
            waste: rest(peak.live, peak.peak_blocks),
            idle: rest(peak.peak_blocks, peak.reserved),
            allocations: latest.allocations,
            grown: latest.grown,
        }
    }
}

/// The share of `whole` that is not `part`.
pub(super) fn rest(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 1.0 - part as f64 / whole as f64 }
}
