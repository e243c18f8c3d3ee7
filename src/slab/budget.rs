//! The bytes a pool may commit, and how many it has.
//!
//! * `reserved`: written by `reserve` (CAS), `cancel`, `release`; read by `reserve`, statistics.
//!   Relaxed: the sum itself is the fact; no other data hang on it.
//! * `committed`: written by `note_commit`, `release`; read by `note_commit`. Relaxed: likewise;
//!   what is reserved and not committed yet may fail, and makes no peak.
//! * `peak`, `peak_taken`, `lost`: written by growth, trim; read by statistics. Relaxed.

use crate::address::to_usize;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::try_update;

/// A sum that no interleaving takes above its limit.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    reserved: AtomicU64,
    committed: AtomicU64,
    peak: AtomicU64,
    peak_taken: AtomicU64,
    lost: AtomicU64,
}

/// The bytes that the caches of all threads together may hold.
///
/// * `granted`: written by threads that attach or leave a cache; read by the same. Relaxed: the sum
///   itself is the fact.
#[derive(Debug)]
pub(crate) struct CacheBudget {
    limit: u64,
    granted: AtomicU64,
}

impl CacheBudget {
    /// A seventh of a pool's limit.
    pub(crate) fn of(limit: usize) -> Self {
        Self { limit: limit as u64 / CACHES, granted: AtomicU64::new(0) }
    }

    /// Grants one more cache up to `most` bytes: half of what is left, so that there is something
    /// for later ones.
    pub(crate) fn grant(&self, most: usize) -> usize {
        let grant = |granted: u64| ((self.limit.saturating_sub(granted)) / 2).min(most as u64);
        let before = try_update(&self.granted, Relaxed, |granted| {
            Ok::<_, OverLimit>(granted + grant(granted))
        });
        before.map_or(0, |granted| to_usize(grant(granted)))
    }

    /// Takes a grant back.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.granted.fetch_sub(bytes as u64, Relaxed);
    }
}

/// All caches together may hold this part of a pool's limit: eight of a 64th are granted whole, and
/// something is left for later ones.
const CACHES: u64 = 7;

/// A reservation would exceed the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit;

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            reserved: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            peak_taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Counts `bytes` as reserved, before they are committed.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), OverLimit> {
        let bytes = bytes as u64;
        try_update(&self.reserved, Relaxed, |reserved| {
            reserved.checked_add(bytes).filter(|&sum| sum <= self.limit).ok_or(OverLimit)
        })?;
        Ok(())
    }

    /// Counts reserved `bytes` as committed, all at once: what fails on the way makes no peak.
    pub(crate) fn note_commit(&self, bytes: usize) {
        let before = self.committed.fetch_add(bytes as u64, Relaxed);
        self.peak.fetch_max(before + bytes as u64, Relaxed);
    }

    /// Cancels a reservation of `bytes` that could not be committed, or is given back at once.
    pub(crate) fn cancel(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes as u64, Relaxed);
    }

    /// Whether `bytes` more would be more than were ever committed.
    pub(crate) fn would_peak(&self, bytes: usize) -> bool {
        self.reserved.load(Relaxed).saturating_add(bytes as u64) > self.peak.load(Relaxed)
    }

    /// Counts `bytes` as decommitted.
    pub(crate) fn release(&self, bytes: usize) {
        self.committed.fetch_sub(bytes as u64, Relaxed);
        self.reserved.fetch_sub(bytes as u64, Relaxed);
    }

    /// Counts `bytes` as lost: their decommit failed, and they stay reserved.
    pub(crate) fn lose(&self, bytes: usize) {
        self.lost.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn limit(&self) -> usize {
        to_usize(self.limit)
    }

    /// Bytes that may be reserved yet.
    pub(crate) fn left(&self) -> usize {
        self.limit().saturating_sub(self.reserved())
    }

    /// Bytes between what is reserved and the most that ever was; `None` if nothing is.
    pub(crate) fn left_to_peak(&self) -> Option<usize> {
        self.peak().checked_sub(self.reserved())
    }

    pub(crate) fn reserved(&self) -> usize {
        to_usize(self.reserved.load(Relaxed))
    }

    pub(crate) fn peak(&self) -> usize {
        to_usize(self.peak.load(Relaxed))
    }

    /// Notes how many bytes of blocks are taken now.
    pub(crate) fn note_taken(&self, bytes: usize) {
        self.peak_taken.fetch_max(bytes as u64, Relaxed);
    }

    pub(crate) fn peak_taken(&self) -> usize {
        to_usize(self.peak_taken.load(Relaxed))
    }

    pub(crate) fn lost(&self) -> usize {
        to_usize(self.lost.load(Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn caches_hold_a_seventh_together_and_eight_are_whole() {
        let budget = CacheBudget::of(64 << 20);
        let grants: Vec<usize> = (0..100).map(|_| budget.grant(1 << 20)).collect();
        assert_eq!(grants[..8], [1 << 20; 8]);
        assert!(grants.iter().sum::<usize>() <= (64 << 20) / 7 && grants[20] < grants[0]);
        grants.into_iter().for_each(|grant| budget.give_back(grant));
        assert_eq!(budget.grant(1 << 20), 1 << 20);
    }

    #[test]
    fn what_was_reserved_and_not_committed_makes_no_peak() {
        let budget = Budget::new(100);
        budget.reserve(30).unwrap();
        budget.note_commit(30);
        budget.reserve(60).unwrap();
        budget.cancel(60);
        assert_eq!((budget.peak(), budget.reserved()), (30, 30));
        assert!(budget.would_peak(1) && budget.would_peak(usize::MAX));
        budget.release(30);
        assert_eq!((budget.peak(), budget.reserved(), budget.would_peak(30)), (30, 0, false));
        assert_eq!(budget.reserve(usize::MAX), Err(OverLimit));
    }
}
