//! What a pool holds, counted from its state words: the hot path counts nothing.

use super::geometry::LARGE;
use super::number::SliceCount;
use super::pool::SlabPool;
use super::registry::registry;
use super::size_class::SizeClass;
use super::store::OpenRun;
use crate::memory::MemoryResource;

/// The state of a pool at one moment. All sizes are in bytes.
///
/// While other threads allocate, each number is right for some moment of the call, and the sums
/// may disagree by what happened meanwhile. While none does, all are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// The most that the pool may commit.
    pub limit: usize,
    /// What it has committed.
    pub reserved: usize,
    /// The most it ever had committed.
    pub peak_reserved: usize,
    /// The most bytes of blocks, handed out or cached, counted whenever the pool had grown by a
    /// sixteenth and in each call of [`SlabPool::stats`].
    pub peak_taken: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in caches of threads, and on their way between them.
    pub cached: usize,
    /// Slabs and large runs without a taken block. A trim releases those that fill granules, with
    /// what is unused beside them.
    pub empty: usize,
    /// Committed but in no slab: free parts of granules that slabs share.
    pub unused: usize,
    /// What the resource failed to decommit.
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
        let store = &self.store;
        let info = |run: OpenRun| SlabInfo {
            address: store.geometry.address(run.head),
            size: store.geometry.bytes(store.len(run.head)),
            block_size: run.block_size,
            blocks: run.state.capacity() as usize,
            free: run.state.free() as usize,
        };
        store.open_runs().map(info).collect()
    }

    /// Counts what the pool holds. Stops no other thread; takes time proportional to the span
    /// used so far. Blocks in a [`LocalCache`](super::LocalCache) count as live.
    pub fn stats(&self) -> PoolStats {
        let store = &self.store;
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
            unused: store.geometry.bytes(SliceCount::new(store.slices.count())),
            lost: budget.lost(),
            large: ClassStats::default(),
            classes: [ClassStats::default(); SizeClass::COUNT],
        };
        for OpenRun { head, state, block_size } in store.open_runs() {
            let class = match state.class() {
                LARGE => &mut stats.large,
                class => &mut stats.classes[usize::from(class) % SizeClass::COUNT],
            };
            let (capacity, taken) =
                (state.capacity() as usize, (state.capacity() - state.free()) as usize);
            class.slabs += 1;
            class.blocks += capacity;
            class.live += taken;
            stats.live += taken * block_size;
            if taken == 0 {
                stats.empty += store.geometry.bytes(store.len(head));
            }
        }
        let cached = registry().caches_of(self.seat.id).flat_map(|cache| cache.counts());
        for (class, count) in cached.chain(store.in_transfer_cache()) {
            let class = &mut stats.classes[class.index()];
            class.cached += count;
            class.live = class.live.saturating_sub(count);
        }
        stats.live = stats.live.saturating_sub(stats.cached);
        stats
    }
}
