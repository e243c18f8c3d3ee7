//! The last launch from each ring slot, for errors.

use std::time::Duration;

use super::ticks::Ticks;
use crate::address::to_usize;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Stream and time of the last launch from each ring slot of a set.
///
/// Relaxed throughout: nothing but the text of an error depends on it.
#[derive(Debug)]
pub(super) struct Launches {
    list: Box<[Launch]>,
    ticks: Ticks,
}

#[derive(Debug)]
struct Launch {
    /// The driver's handle of its stream, as a number.
    stream: AtomicU64,
    /// When it was, by the set's [`Ticks`].
    since: AtomicU64,
}

impl Launches {
    /// For `depth` ring slots.
    pub(super) fn new(depth: usize) -> Self {
        let launch = |_| Launch { stream: AtomicU64::new(0), since: AtomicU64::new(0) };
        Self { list: (0..depth).map(launch).collect(), ticks: Ticks::start() }
    }

    /// Takes note of a launch that happens now.
    #[inline]
    pub(super) fn note(&self, ring_slot: usize, stream: &Stream) {
        let launch = &self.list[ring_slot];
        launch.stream.store(stream.as_raw().addr() as u64, Relaxed);
        launch.since.store(self.ticks.now(), Relaxed);
    }

    /// The one of `ring_slots` that was launched first.
    pub(super) fn oldest(&self, ring_slots: impl Iterator<Item = usize>) -> Option<usize> {
        ring_slots.min_by_key(|index| self.list[*index].since.load(Relaxed))
    }

    /// The driver's handle of the stream of a launch, as a number.
    pub(super) fn stream(&self, ring_slot: usize) -> usize {
        to_usize(self.list[ring_slot].stream.load(Relaxed))
    }

    /// How long ago a launch was.
    pub(super) fn age(&self, ring_slot: usize) -> Duration {
        self.ticks.age(self.list[ring_slot].since.load(Relaxed))
    }
}
