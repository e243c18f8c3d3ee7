//! Blocks of prompts that an engine still has from earlier requests.

use std::collections::HashSet;
use std::mem;

/// The blocks that were used last: at most `capacity`, of which the older half goes at once.
#[derive(Debug)]
pub(super) struct PrefixCache {
    capacity: usize,
    recent: HashSet<u64>,
    older: HashSet<u64>,
}

impl Default for PrefixCache {
    fn default() -> Self {
        Self { capacity: CAPACITY, recent: HashSet::new(), older: HashSet::new() }
    }
}

impl PrefixCache {
    /// The tokens of a prompt that have to be computed, given the ids of its blocks. The last token
    /// always is one, since its result is the first token of the answer.
    pub(super) fn computed(&mut self, prompt: u32, blocks: &[u64]) -> u32 {
        let known = blocks
            .iter()
            .take_while(|id| self.recent.contains(id) || self.older.contains(id))
            .count();
        blocks.iter().for_each(|id| self.insert(*id));
        let cached = u32::try_from(known).unwrap_or(u32::MAX).saturating_mul(BLOCK);
        prompt - cached.min(prompt.saturating_sub(1))
    }

    fn insert(&mut self, id: u64) {
        if self.recent.len() == self.capacity / 2 {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(id);
    }
}

/// Tokens of a block of Mooncake's traces.
const BLOCK: u32 = 512;
/// The largest number of blocks that are remembered.
const CAPACITY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_there_is_computed() {
        let mut cache = PrefixCache::default();
        assert_eq!(cache.computed(1300, &[1, 2, 3]), 1300);
        assert_eq!(cache.computed(1300, &[1, 2, 4]), 1300 - 1024);
        // All of it is there: the last token is computed all the same.
        assert_eq!(cache.computed(1300, &[1, 2, 3]), 1);
        // A block after one that differs is no part of a prefix.
        assert_eq!(cache.computed(1024, &[9, 2]), 1024);
        assert_eq!((cache.computed(0, &[]), cache.computed(0, &[1])), (0, 0));
    }

    #[test]
    fn the_cache_has_a_limit_and_keeps_what_is_used() {
        let mut cache = PrefixCache { capacity: 100, ..PrefixCache::default() };
        for id in 1..300 {
            cache.computed(512, &[0, id]);
            assert!(cache.recent.len() + cache.older.len() <= 100);
        }
        assert_eq!(cache.computed(1024, &[0, 1]), 512);
    }
}
