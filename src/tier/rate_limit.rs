//! So many bytes a second: one word says when the next copy may begin.
//!
//! The virtual schedule of the [generic cell rate algorithm](https://www.itu.int/rec/T-REC-I.371):
//! each copy moves the time at which the next may begin by what it costs, and begins if that time
//! has come. Nothing is saved up.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `next` | `admit` | `admit` | Relaxed: the time itself is the fact |

use std::time::Instant;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::try_update;

/// How fast copies may follow each other.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: u64,
    start: Instant,
    /// When the next copy may begin, in nanoseconds from the start.
    next: AtomicU64,
}

impl RateLimit {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            start: Instant::now(),
            next: AtomicU64::new(0),
        }
    }

    /// Whether a copy of `bytes` may begin now; it counts if so.
    pub(super) fn admit(&self, bytes: usize) -> bool {
        if self.bytes_per_second == u64::MAX {
            return true;
        }
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.admit_at(now, bytes)
    }

    fn admit_at(&self, now: u64, bytes: usize) -> bool {
        let cost = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let moved = try_update(&self.next, Relaxed, |next| {
            if next > now { Err(()) } else { Ok(now.saturating_add(cost)) }
        });
        moved.is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_waits_for_what_the_last_one_cost() {
        let rate = RateLimit::new(1000);
        assert!(rate.admit_at(0, 500));
        assert!(!rate.admit_at(499_999_999, 1));
        assert!(rate.admit_at(500_000_000, 2000));
        assert!(!rate.admit_at(2_499_999_999, 1));
        // Unused time is not saved up.
        assert!(rate.admit_at(9_000_000_000, 1000));
        assert!(!rate.admit_at(9_000_000_000, 1));
    }
}
