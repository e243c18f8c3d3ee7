//! The pool: sizes in, blocks out.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::block::{Block, WrongPool};
use super::budget::CacheBudget;
use super::cache::Cache;
use super::error::{AllocError, Exhaustion, PoolError};
use super::geometry::{LARGE, SlabShape};
use super::options::PoolOptions;
use super::registry::{Seat, registry};
use super::size_class::SizeClass;
use super::span::PoolSpan;
use super::store::Store;
use super::thread_cache::{self, Flush};
use super::trim::{TrimPolicy, Trimmed};
use crate::address::to_usize;
use crate::memory::MemoryResource;
use crate::sync::thread;

/// A lock-free allocator of blocks from one [`MemoryResource`].
///
/// Allocation and freeing take no lock, make no system call, no driver call and no allocation
/// from the heap, unless the pool has to grow (or, once a thread, a cache has to be made). All
/// its metadata lie outside the managed memory.
///
/// It may be shared between threads. A pool that is dropped while blocks are allocated decommits
/// the granules without one and leaks the rest of its resource, so that no block dangles; the
/// resource [is told](MemoryResource::note_leak).
///
/// # Examples
///
/// ```
/// use wharf::memory::UnbackedResource;
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// let pool = SlabPool::new(UnbackedResource::new(1 << 30)?, PoolOptions::default())?;
/// let small = pool.alloc(1000)?;
/// let large = pool.alloc(100 << 20)?;
/// assert_ne!(small.address(), large.address());
/// pool.dealloc(small)?;
/// pool.dealloc(large)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// No atomics here: what a `&SlabPool` has may be kept in registers over a call.
#[derive(Debug)]
pub struct SlabPool<R: MemoryResource + 'static> {
    /// Shared with the threads that have a cache, which free what they hold when they end.
    pub(super) store: Arc<Store<R>>,
    pub(super) seat: Seat,
    /// The id, where a block handle has it.
    pub(super) tag: NonZeroU64,
    pub(super) cache_bytes: usize,
    start: Instant,
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Makes a pool of a resource's span. Nothing is committed yet; but where the span is one
    /// allocation, as on devices without virtual memory management, it is made now, of the limit's
    /// size.
    ///
    /// The metadata are in ordinary memory: 0.5 % of what is used of the span.
    ///
    /// # Errors
    ///
    /// * [`PoolError::Granule`]: the granule is out of range or smaller than the granularity.
    /// * [`PoolError::Limit`]: the limit is less than a granule.
    /// * [`PoolError::Span`]: the span cannot be cut into granules.
    /// * [`PoolError::Tables`]: there is not so much memory of the host as the metadata could need.
    /// * [`PoolError::Upstream`]: the span is one allocation, which could not be made.
    pub fn new(mut resource: R, options: PoolOptions) -> Result<Self, PoolError> {
        // As it was asked for: the geometry settles the span at whole granules.
        let limit = options.max_bytes.min(resource.size());
        let geometry = options.geometry(&mut resource)?;
        let (base, size) = (resource.base(), resource.size());
        let span = PoolSpan::new(resource);
        let told = span.heaps.are_told();
        let (kind, wired) = (span.resource().kind(), span.resource().registrations().is_some());
        let policy = options.piece_policy(geometry.granule(), kind, size, told, wired);
        let store = Store::new(span, geometry, limit, policy).ok_or(PoolError::Tables { size })?;
        let seat = registry().open(base, size);
        // A memory checker hears of a block when it leaves its slab.
        let cache_bytes = if told { 0 } else { options.cache_bytes(limit) };
        Ok(Self {
            store: Arc::new(store.fold_late(cache_bytes > 0)),
            seat,
            // Ids count from 1, and a process does not make 2^56 pools.
            tag: NonZeroU64::new(seat.id << TAG_SHIFT).unwrap_or(NonZeroU64::MIN),
            cache_bytes,
            start: Instant::now(),
        })
    }

    /// Allocates a block of at least `size` bytes, aligned to at least 256. 0 counts as 1.
    ///
    /// # Errors
    ///
    /// * [`AllocError::Exhausted`]: no free block, also after the calling thread's cache was
    ///   emptied, and no room for more within the limit, or the resource has no memory for it. So
    ///   is a size between the limit and the span's length, for which no room comes.
    /// * [`AllocError::TooLarge`]: larger than the span.
    /// * [`AllocError::Upstream`]: the resource could not commit, for another reason.
    #[inline]
    pub fn alloc(&self, size: usize) -> Result<Block, AllocError> {
        let Some(class) = SizeClass::of(size) else { return self.alloc_large(size, 1) };
        let cache = thread_cache::current(self.seat.slot);
        if let Some(magazine) = cache.magazines.get(class.index())
            && let Some(address) = magazine.pop()
        {
            return Ok(Block::new(address, self.tag, class.number()));
        }
        self.alloc_slow(class, size)
    }

    /// Allocates a block of at least `size` bytes at a multiple of `align`, a power of two.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc), and [`AllocError::Unaligned`] if the span has no such address
    /// or `align` is no power of two.
    pub fn alloc_aligned(&self, size: usize, align: usize) -> Result<Block, AllocError> {
        let geometry = &self.store.geometry;
        if !align.is_power_of_two() || align > geometry.max_align() {
            return Err(AllocError::Unaligned { align, max: geometry.max_align() });
        }
        match SizeClass::aligned(size, align) {
            // Slabs start at slices.
            Some(class) if align <= geometry.slice() && geometry.slab(class).is_some() => {
                let block = self.alloc(class.block_size())?;
                if block.address().is_multiple_of(align as u64) {
                    return Ok(block);
                }
                // A block of a larger class stood in, and starts elsewhere.
                let given = self.dealloc(block);
                debug_assert!(given.is_ok(), "{given:?}");
                self.alloc_large(size, align)
            }
            _ => self.alloc_large(size, align),
        }
    }

    /// Frees a block.
    ///
    /// Neither the host nor the device may use it any more.
    ///
    /// # Errors
    ///
    /// [`WrongPool`] with the block, which stays allocated, if it is another pool's.
    #[inline]
    pub fn dealloc(&self, block: Block) -> Result<(), WrongPool> {
        let cache = thread_cache::current(self.seat.slot);
        let class = to_usize(block.class_under(self.tag));
        if let Some(magazine) = cache.magazines.get(class)
            && magazine.push(block.address())
        {
            return Ok(());
        }
        self.dealloc_slow(block)
    }

    /// The size of a block of this pool, in bytes: at least what was asked for.
    pub fn block_size(&self, block: &Block) -> usize {
        let located = || self.store.locate(block.address());
        block.class().map(SizeClass::block_size).or_else(|| Some(located()?.size)).unwrap_or(0)
    }

    /// Decommits pieces of which all is free and that a trim saw free at least `idle` ago, except
    /// for `keep` bytes of them. `Duration::ZERO` and 0 decommit all.
    ///
    /// Calls the driver. The calling thread's cache is flushed first.
    pub fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        self.flush_thread_cache();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1);
        let now = millis(self.start.elapsed());
        self.store.trim(TrimPolicy { now, idle: millis(idle), keep })
    }

    /// Frees what the calling thread has cached, and what other threads have left for any thread
    /// to take.
    pub fn flush_thread_cache(&self) {
        self.store.flush(thread_cache::current(self.seat.slot));
    }

    /// The resource that the pool draws from.
    pub fn upstream(&self) -> &R {
        self.store.span.resource()
    }

    /// Bytes in the magazines of all threads, and on their way between them, at this moment.
    pub(super) fn cached(&self) -> usize {
        let transferred =
            self.store.in_transfer_cache().map(|(class, count)| class.block_size() * count);
        self.caches().map(Cache::bytes).sum::<usize>() + transferred.sum::<usize>()
    }

    /// The caches of all threads; none where threads have none.
    pub(super) fn caches(&self) -> impl Iterator<Item = &'static Cache> + use<R> {
        let id = (self.cache_bytes > 0).then_some(self.seat.id);
        id.into_iter().flat_map(|id| registry().caches_of(id))
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: SizeClass, size: usize) -> Result<Block, AllocError> {
        let cache = self.cache();
        if let Some(block) = self.alloc_near(cache, class) {
            return Ok(block);
        }
        self.retry_after_flush(|| self.alloc_through(cache, class, size))
    }

    /// Allocates a block that `cache` can have without a search.
    #[inline]
    pub(super) fn alloc_near(&self, cache: &Cache, class: SizeClass) -> Option<Block> {
        let (address, class) = cache.refill_near(&self.store, class)?;
        Some(Block::new(address, self.tag, class.number()))
    }

    /// Tries once more, after a flush, if there was no room and something is cached.
    pub(super) fn retry_after_flush(
        &self,
        attempt: impl Fn() -> Result<Block, AllocError>,
    ) -> Result<Block, AllocError> {
        let mut outcome = attempt();
        if matches!(outcome, Err(AllocError::Exhausted(_))) && self.has_cached() {
            self.flush_thread_cache();
            outcome = attempt();
        }
        outcome.map_err(|error| match error {
            AllocError::Exhausted(state) if state.cause.is_some() => {
                AllocError::Exhausted(Exhaustion {
                    physical: self.upstream().physical_memory(),
                    ..state
                })
            }
            other => other,
        })
    }

    /// Whether the calling thread's cache has blocks, or the transfer cache.
    fn has_cached(&self) -> bool {
        thread_cache::current(self.seat.slot).bytes() > 0
            || self.store.in_transfer_cache().any(|(_, count)| count > 0)
    }

    /// Allocates a block of `class` for `size` bytes for which `cache` has none, from the store.
    #[inline(never)]
    pub(super) fn alloc_through(
        &self,
        cache: &Cache,
        class: SizeClass,
        size: usize,
    ) -> Result<Block, AllocError> {
        let store = &self.store;
        let Some(shape) = store.geometry.slab(class) else { return self.claim_run(size, 1) };
        match cache.refill(store, class) {
            Ok((address, class)) => Ok(Block::new(address, self.tag, class.number())),
            // Where there is no room for a slab there may be room for the block alone.
            Err(AllocError::Exhausted(_)) if self.is_shorter_alone(size, shape) => {
                self.claim_run(size, 1)
            }
            Err(error) => Err(self.with_cached(error)),
        }
    }

    /// Whether a run of its own for a block is shorter than a slab of its class.
    pub(super) fn is_shorter_alone(&self, size: usize, shape: SlabShape) -> bool {
        let geometry = &self.store.geometry;
        geometry.slices_for(size) < shape.slices
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_large(&self, size: usize, align: usize) -> Result<Block, AllocError> {
        self.retry_after_flush(|| self.claim_run(size, align))
    }

    /// Allocates a run of its own.
    pub(super) fn claim_run(&self, size: usize, align: usize) -> Result<Block, AllocError> {
        let store = &self.store;
        let recall = || thread_cache::current(self.seat.slot).flush_before_growth(store);
        let taken = store.acquire_large(size, align, None, recall);
        let (address, _) = taken.map_err(|error| self.with_cached(error))?;
        Ok(Block::new(address, self.tag, LARGE))
    }

    #[cold]
    #[inline(never)]
    fn dealloc_slow(&self, block: Block) -> Result<(), WrongPool> {
        self.dealloc_through(self.cache(), block)
    }

    /// Frees a block for which `cache` has no room.
    #[inline]
    pub(super) fn dealloc_through(&self, cache: &Cache, block: Block) -> Result<(), WrongPool> {
        if !block.is_of(self.tag) {
            return Err(WrongPool(block));
        }
        match block.class() {
            Some(class) => cache.spill(&self.store, class, block.address()),
            None => self.store.free_large(block.address()),
        }
        Ok(())
    }

    /// The calling thread's cache, made at its first use.
    pub(super) fn cache(&self) -> &'static Cache {
        thread_cache::attach(self.seat, self.cache_bytes, || {
            let store: Weak<Store<R>> = Arc::downgrade(&self.store);
            store
        })
    }

    /// Whether blocks are handed out, in a pool that is being dropped.
    fn has_live_blocks(&self) -> bool {
        // A thread that ends may be flushing its cache right now: for some instructions a block is
        // neither cached nor free.
        (0..DROP_LOOKS).all(|_| {
            thread::yield_now();
            let cached = self.cached();
            self.store.taken() > cached
        })
    }

    /// Adds to an error what is cached, which the store counts as live.
    fn with_cached(&self, error: AllocError) -> AllocError {
        let AllocError::Exhausted(state) = error else { return error };
        let cached = self.cached();
        AllocError::Exhausted(Exhaustion {
            cached,
            live: state.live.saturating_sub(cached),
            ..state
        })
    }
}

impl<R: MemoryResource> Flush for Store<R> {
    fn flush(&self, cache: &Cache) {
        cache.flush(self);
        self.flush_transfer_cache();
    }

    fn budget(&self) -> &CacheBudget {
        &self.caches
    }
}

impl<R: MemoryResource + 'static> Drop for SlabPool<R> {
    fn drop(&mut self) {
        thread_cache::detach(self.seat);
        let retired = self.store.folded().map_or(0, |map| map.retired());
        if retired > 0 || self.has_live_blocks() {
            let store = &self.store;
            store.trim(TrimPolicy { now: 0, idle: 0, keep: 0 });
            store.span.resource().note_leak(store.budget.reserved());
            #[expect(clippy::mem_forget, reason = "blocks are in use: leak rather than dangle")]
            std::mem::forget(Arc::clone(&self.store));
        } else {
            self.store.decommit_all();
        }
        registry().close(self.seat);
    }
}

/// Below the id in a block's second word is its class.
const TAG_SHIFT: u32 = 8;

/// How often a dropped pool looks whether its blocks have come back.
const DROP_LOOKS: usize = 50;
