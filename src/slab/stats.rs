//! What a pool holds, counted from its state words: the hot path counts nothing.

use super::geometry::LARGE;
use super::pool::SlabPool;
use super::registry::REGISTRY;
use super::size_class::SizeClass;
use crate::lockfree::slab_state::SlabState;
use crate::memory::MemoryResource;

/// The state of a pool at one moment. All sizes are in bytes.
///
/// While other threads allocate, each number is right for some moment of the call, and the sums
/// may disagree by what happened meanwhile. While none does, all are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// What the pool may commit.
    pub limit: usize,
    /// What it has committed.
    pub reserved: usize,
    /// The most it ever had committed.
    pub peak_reserved: usize,
    /// The most blocks, handed out or cached, seen when the pool had grown by a sixteenth or was asked.
    pub peak_taken: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in caches of threads, and on their way between them.
    pub cached: usize,
    /// Slabs and large runs without a taken block. A trim releases those that fill granules, with what is
    /// unused beside them.
    pub empty: usize,
    /// Committed, and no slab's now: free parts of granules that slabs share.
    pub unused: usize,
    /// What the resource failed to take back.
    pub lost: usize,
    /// Large blocks: how many are handed out, and how many runs there are for them.
    pub large: ClassStats,
    /// The classes, by number.
    pub classes: [ClassStats; SizeClass::COUNT],
}

/// The blocks of one class; counts, not bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Slabs of the class.
    pub slabs: usize,
    /// Blocks in them.
    pub blocks: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in caches of threads, and on their way between them.
    pub cached: usize,
}

/// A slab, or the run of one large block, at one moment. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlabInfo {
    /// The address of its first byte.
    pub address: u64,
    /// Its length.
    pub size: usize,
    /// The size of its blocks.
    pub block_size: usize,
    /// How many blocks it has.
    pub blocks: usize,
    /// How many of them are free.
    pub free: usize,
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// All slabs and runs of large blocks. Stops no other thread.
    pub fn slabs(&self) -> Vec<SlabInfo> {
        let store = &self.shared.store;
        let info = |(head, state, block_size): (usize, SlabState, usize)| SlabInfo {
            address: store.geometry.address(head) as u64,
            size: store.geometry.offset(store.len(head)),
            block_size,
            blocks: state.capacity() as usize,
            free: state.free() as usize,
        };
        store.open_runs().map(info).collect()
    }

    /// Counts what the pool holds. Stops no other thread; takes time proportional to the span
    /// used so far. Blocks in a [`LocalCache`](super::LocalCache) count as live.
    pub fn stats(&self) -> PoolStats {
        let store = &self.shared.store;
        let budget = &store.budget;
        store.note_peak();
        let mut stats = PoolStats {
            limit: budget.limit(),
            reserved: budget.reserved(),
            peak_reserved: budget.peak(),
            peak_taken: budget.peak_taken(),
            live: 0,
            cached: self.cached(),
            empty: 0,
            unused: store.geometry.offset(store.slices.count()),
            lost: budget.lost(),
            large: ClassStats::default(),
            classes: [ClassStats::default(); SizeClass::COUNT],
        };
        for (head, state, size) in store.open_runs() {
            let class = match state.class() {
                LARGE => &mut stats.large,
                class => &mut stats.classes[usize::from(class) % SizeClass::COUNT],
            };
            let (capacity, taken) = (state.capacity() as usize, (state.capacity() - state.free()) as usize);
            class.slabs += 1;
            class.blocks += capacity;
            class.live += taken;
            stats.live += taken * size;
            if taken == 0 {
                stats.empty += store.geometry.offset(store.len(head));
            }
        }
        let cached = REGISTRY.caches_of(self.seat.id).flat_map(|cache| cache.counts());
        for (class, count) in cached.chain(store.parked()) {
            let class = &mut stats.classes[class.index()];
            class.cached += count;
            class.live = class.live.saturating_sub(count);
        }
        stats.live = stats.live.saturating_sub(stats.cached);
        stats
    }
}
