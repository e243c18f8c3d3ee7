//! What a pool holds, from counts that its slow paths keep: the hot path counts nothing.

use super::counts::ClassCounts;
use super::geometry::LARGE;
use super::number::SliceCount;
use super::pool::SlabPool;
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
    /// The most bytes of blocks, handed out or cached, counted whenever the pool had grown and in
    /// each call of [`SlabPool::stats`].
    pub peak_taken: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in caches of threads, and on their way between them.
    pub cached: usize,
    /// What a [`Pool`](crate::pool::Pool)'s streams have retired: free for one stream, and for all
    /// when the device is past its last use. 0 for a [`SlabPool`] that is used directly.
    pub retired: usize,
    /// Pieces of which all is free: what a trim releases.
    pub empty: usize,
    /// Free, in pieces that are partly in use.
    pub unused: usize,
    /// What the resource failed to decommit.
    pub lost: usize,
    /// Pieces whose memory is gone while the pool sleeps; they are no part of `reserved`.
    pub asleep: usize,
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
    /// All slabs and runs of large blocks, lowest address first. Takes the lock of the map.
    pub fn slabs(&self) -> Vec<SlabInfo> {
        let store = &self.store;
        let info = |run: OpenRun| SlabInfo {
            address: store.geometry.address(run.head),
            size: store.geometry.bytes(run.len),
            block_size: run.block_size,
            blocks: run.state.capacity() as usize,
            free: run.state.free() as usize,
        };
        // A forked child has none.
        store.open_runs().unwrap_or_default().into_iter().map(info).collect()
    }

    /// Counts what the pool holds, in time that does not depend on its size. Takes the lock of the
    /// map for a moment. Blocks in a [`LocalCache`](super::LocalCache) count as live.
    pub fn stats(&self) -> PoolStats {
        let store = &self.store;
        let budget = &store.budget;
        store.note_peak();
        let bytes = |slices| store.geometry.bytes(SliceCount::from_word(slices));
        // A forked child has neither.
        let map = store.folded().ok();
        let (free, empty, retired) =
            map.map_or((0, 0, 0), |map| (map.free(), map.free_in_pieces(), map.retired()));
        let taken = store.taken();
        let mut stats = PoolStats {
            limit: budget.limit(),
            reserved: budget.reserved().saturating_sub(store.sleep.bytes()),
            peak_reserved: budget.peak(),
            peak_taken: budget.peak_taken(),
            live: taken,
            cached: self.cached(),
            retired: bytes(retired),
            empty: bytes(empty),
            unused: bytes(free - empty),
            lost: budget.lost(),
            asleep: store.sleep.bytes(),
            large: class_stats(store.counts.of(LARGE)),
            classes: std::array::from_fn(|class| {
                class_stats(store.counts.of(u8::try_from(class).unwrap_or(LARGE)))
            }),
        };
        let cached = self.caches().flat_map(|cache| cache.counts());
        for (class, count) in cached.chain(store.in_transfer_cache()) {
            let class = &mut stats.classes[class.index()];
            class.cached += count;
            class.live = class.live.saturating_sub(count);
        }
        stats.live = stats.live.saturating_sub(stats.cached);
        stats
    }
}

fn class_stats(counts: &ClassCounts) -> ClassStats {
    let (slabs, blocks, live) = counts.read();
    ClassStats { slabs, blocks, live, cached: 0 }
}
