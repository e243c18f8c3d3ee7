#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reads the processor's counter"))]
//! A clock that costs a few instructions to read, for times that only errors show.

use std::time::{Duration, Instant};

/// Counts from its start at an unknown, even rate. An age is computed from the share of the count
/// and the time since the start.
#[derive(Debug)]
pub(super) struct Ticks {
    start: Instant,
    first: u64,
}

impl Ticks {
    pub(super) fn start() -> Self {
        let start = Instant::now();
        Self { start, first: count(start) }
    }

    /// The count at this moment.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        count(self.start)
    }

    /// How long ago the count was `then`. Exact as far as the counter is even; never more than the
    /// age of the clock.
    pub(super) fn age(&self, then: u64) -> Duration {
        let all = self.now().saturating_sub(self.first).max(1);
        let since = self.now().saturating_sub(then.max(self.first)).min(all);
        #[expect(clippy::cast_precision_loss, reason = "an age in 53 bits is exact enough")]
        let share = since as f64 / all as f64;
        self.start.elapsed().mul_f64(share)
    }
}

/// The processor's counter, where user programs may read it. Processors of this century count
/// evenly.
#[cfg(target_arch = "x86_64")]
#[inline]
fn count(_start: Instant) -> u64 {
    // SAFETY: every x86-64 has it, and Linux lets programs use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn count(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_the_clock() {
        let clock = Ticks::start();
        let (then, start) = (clock.now(), Instant::now());
        while start.elapsed() < Duration::from_millis(20) {
            crate::sync::hint::spin_loop();
        }
        let (age, most) = (clock.age(then), clock.start.elapsed());
        assert!(age >= Duration::from_millis(19) && age <= most, "{age:?} of {most:?}");
        assert_eq!(clock.age(u64::MAX), Duration::ZERO);
        assert!(clock.age(0) <= clock.start.elapsed());
    }
}
