//! The bytes a pool may commit, and how many it has.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `reserved` | `reserve` (CAS), `release` | `reserve`, statistics | Relaxed: the sum itself is the fact; no other data hang on it |
//! | `peak`, `peak_taken`, `noted`, `lost` | growth, trim | statistics | Relaxed |

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::try_update;

/// A sum that no interleaving takes above its limit.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    reserved: AtomicU64,
    peak: AtomicU64,
    peak_taken: AtomicU64,
    noted: AtomicU64,
    lost: AtomicU64,
}

/// The limit leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit;

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            reserved: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            peak_taken: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Counts `bytes` as reserved, before they are committed.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), OverLimit> {
        let bytes = bytes as u64;
        let old = try_update(&self.reserved, Relaxed, |reserved| {
            reserved.checked_add(bytes).filter(|&sum| sum <= self.limit).ok_or(OverLimit)
        })?;
        self.peak.fetch_max(old + bytes, Relaxed);
        Ok(())
    }

    /// Whether `bytes` more would be more than were ever reserved.
    pub(crate) fn would_peak(&self, bytes: usize) -> bool {
        self.reserved.load(Relaxed) + bytes as u64 > self.peak.load(Relaxed)
    }

    /// Counts `bytes` as given back, after they are decommitted.
    pub(crate) fn release(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes as u64, Relaxed);
    }

    /// Counts `bytes` as reserved for ever: they could not be decommitted.
    pub(crate) fn lose(&self, bytes: usize) {
        self.lost.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn limit(&self) -> usize {
        bytes(self.limit)
    }

    pub(crate) fn reserved(&self) -> usize {
        bytes(self.reserved.load(Relaxed))
    }

    pub(crate) fn peak(&self) -> usize {
        bytes(self.peak.load(Relaxed))
    }

    /// Whether a sixteenth more is reserved than when this was last true: counting all slabs takes time that goes
    /// with their number, so a pool that grows does it now and then.
    pub(crate) fn is_note_due(&self) -> bool {
        let (now, noted) = (self.reserved.load(Relaxed), self.noted.load(Relaxed));
        let due = now > noted + noted / 16;
        if due {
            self.noted.store(now, Relaxed);
        }
        due
    }

    /// Notes how many bytes of blocks are taken now.
    pub(crate) fn note_taken(&self, bytes: usize) {
        self.peak_taken.fetch_max(bytes as u64, Relaxed);
    }

    pub(crate) fn peak_taken(&self) -> usize {
        bytes(self.peak_taken.load(Relaxed))
    }

    pub(crate) fn lost(&self) -> usize {
        bytes(self.lost.load(Relaxed))
    }
}

/// A sum of lengths of things in the address space, back from the word that counts them.
fn bytes(sum: u64) -> usize {
    usize::try_from(sum).unwrap_or(usize::MAX)
}
