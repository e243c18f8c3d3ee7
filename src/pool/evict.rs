//! Eviction: at the limit of a pool's blocks, the one that was released first makes room.

use super::core::Core;
use super::record::BufferRecord;
use crate::lockfree::buffer_state::Phase;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;

impl Core {
    /// Counts one block more, and evicts others for it where needed. Returns whether there may be
    /// one more.
    pub(super) fn admit(&self) -> bool {
        loop {
            if self.limit.try_add() {
                return true;
            }
            if !self.evict() {
                return false;
            }
        }
    }

    /// Evicts the block that was released first of those that the device is past. Returns whether
    /// there was one, or another thread has made room.
    fn evict(&self) -> bool {
        let Some(turn) = self.turn() else {
            thread::yield_now();
            return true;
        };
        let is_kept = |record: &BufferRecord| {
            record.state.load().phase() == Phase::Retired && record.size() > 0
        };
        let kept = self.records.all().filter(|(_, record)| is_kept(record) && self.is_idle(record));
        let Some((index, record)) = kept.min_by_key(|(_, record)| record.stamp.load(Relaxed))
        else {
            return false;
        };
        let lists =
            self.slots.all().map(|(_, slot)| &slot.lists[record.list()]).chain([&self.mixed]);
        let mut lists = lists.into_iter();
        if lists.any(|list| self.take_first(&turn, list, |at| at == index).is_some()) {
            self.give_back(index, record);
        }
        // Otherwise another thread has just taken it: look again.
        true
    }
}
