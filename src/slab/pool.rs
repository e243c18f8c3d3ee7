//! The pool: sizes in, blocks out.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::block::{Block, WrongPool};
use super::error::{AllocError, Exhaustion, PoolError};
use super::geometry::LARGE;
use super::magazine::{Cache, Magazine};
use super::options::PoolOptions;
use super::registry::{REGISTRY, Seat};
use super::size_class::SizeClass;
use super::store::Store;
use super::thread_cache::{self, Drain};
use super::trim::{TrimPolicy, Trimmed};
use crate::memory::MemoryResource;
use crate::sync::thread;

/// A lock-free allocator of blocks from one [`MemoryResource`].
///
/// Allocation and freeing take no lock, make no system call, no driver call and no allocation
/// from the heap, unless the pool has to grow (or, once a thread, a cache has to be made). All
/// its metadata lie outside the managed memory.
///
/// It may be shared between threads. A pool that is dropped while blocks are handed out leaks
/// its resource, so that they do not dangle.
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
#[derive(Debug)]
pub struct SlabPool<R: MemoryResource + 'static> {
    pub(super) shared: Arc<Shared<R>>,
    pub(super) seat: Seat,
    /// The id, where a block handle has it.
    pub(super) tag: NonZeroU64,
    pub(super) cache_bytes: usize,
    start: Instant,
}

/// What a thread's cache needs of a pool after its last use by the thread.
#[derive(Debug)]
pub(super) struct Shared<R> {
    pub(super) store: Store<R>,
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Makes a pool of a resource's span. Nothing is committed yet.
    ///
    /// The metadata take 0.22 % of the span, in ordinary memory.
    ///
    /// # Errors
    ///
    /// * [`PoolError::Granule`]: the granule is out of range or smaller than the granularity.
    /// * [`PoolError::Span`]: the span cannot be cut into granules.
    pub fn new(resource: R, options: PoolOptions) -> Result<Self, PoolError> {
        let geometry = options.geometry(&resource)?;
        let seat = REGISTRY.open(resource.base(), resource.size());
        let limit = options.max_bytes.min(resource.size());
        let store = Store::new(resource, geometry, limit);
        // A memory checker hears of a block when it leaves its slab.
        let cache_bytes = if store.span.heaps.are_told() { 0 } else { options.cache_bytes(limit) };
        Ok(Self {
            shared: Arc::new(Shared { store }),
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
    /// * [`AllocError::Exhausted`]: no free block, and no room for more within the limit.
    /// * [`AllocError::TooLarge`]: larger than the span or the limit.
    /// * [`AllocError::Upstream`]: the resource could not commit.
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
        let geometry = &self.shared.store.geometry;
        if !align.is_power_of_two() || align > geometry.max_align() {
            return Err(AllocError::Unaligned { align, max: geometry.max_align() });
        }
        match SizeClass::aligned(size, align) {
            // A slab is as aligned as it is long, up to the granule.
            Some(class) if align <= geometry.granule() && geometry.slab(class).is_some() => {
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

    /// As [`alloc`](Self::alloc), of what is committed already; `None` if the pool would have to grow.
    pub(crate) fn alloc_committed(&self, size: usize) -> Option<Block> {
        let store = &self.shared.store;
        let class = SizeClass::of(size).filter(|class| store.geometry.slab(*class).is_some());
        let Some(class) = class else {
            let address = store.acquire_large_committed(size)?;
            return Some(Block::new(address as u64, self.tag, LARGE));
        };
        let cache = thread_cache::current(self.seat.slot);
        if let Some(address) = cache.magazines.get(class.index()).and_then(Magazine::pop) {
            return Some(Block::new(address, self.tag, class.number()));
        }
        let reserved = store.acquire_committed(class)?;
        let mut address = 0;
        store.collect(reserved, |at| address = at);
        Some(Block::new(address as u64, self.tag, class.number()))
    }

    /// A number that no other pool of the process has or had.
    pub(crate) fn id(&self) -> u64 {
        self.seat.id
    }

    /// Allocates a run of granules of its own for `size` bytes, also where there is a class for them.
    pub(crate) fn alloc_run(&self, size: usize) -> Result<Block, AllocError> {
        self.alloc_large(size, 1)
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
        let class = usize::try_from(block.class_under(self.tag)).unwrap_or(usize::MAX);
        if let Some(magazine) = cache.magazines.get(class)
            && magazine.push(block.address())
        {
            return Ok(());
        }
        self.dealloc_slow(block)
    }

    /// The size of a block of this pool, in bytes: at least what was asked for.
    pub fn block_size(&self, block: &Block) -> usize {
        let store = &self.shared.store;
        let located = || store.locate(usize::try_from(block.address()).unwrap_or(0));
        block.class().map(SizeClass::block_size).or_else(|| Some(located()?.size)).unwrap_or(0)
    }

    /// Gives empty slabs and unused large runs back to the resource, if they were seen empty
    /// by a trim at least `idle` ago; keeps `keep` bytes of them. Zero and 0 give back all.
    ///
    /// Calls the driver. The calling thread's cache is emptied first.
    pub fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        self.flush_thread_cache();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1);
        let now = millis(self.start.elapsed());
        self.shared.store.trim(TrimPolicy { now, idle: millis(idle), keep })
    }

    /// Gives back what the calling thread keeps in its cache, and what others have left for any
    /// thread to take.
    pub fn flush_thread_cache(&self) {
        self.shared.drain(thread_cache::current(self.seat.slot));
    }

    /// The resource that the pool draws from.
    pub fn upstream(&self) -> &R {
        self.shared.store.span.resource()
    }

    /// Bytes in the magazines of all threads, and on their way between them, at this moment.
    pub(super) fn cached(&self) -> usize {
        let parked = self.shared.store.parked().map(|(class, count)| class.block_size() * count);
        REGISTRY.caches_of(self.seat.id).map(Cache::bytes).sum::<usize>() + parked.sum::<usize>()
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: SizeClass, size: usize) -> Result<Block, AllocError> {
        self.alloc_through(self.cache(), class, size)
    }

    /// Allocates a block of `class` for `size` bytes for which `cache` has none.
    #[inline]
    pub(super) fn alloc_through(
        &self,
        cache: &Cache,
        class: SizeClass,
        size: usize,
    ) -> Result<Block, AllocError> {
        let store = &self.shared.store;
        if store.geometry.slab(class).is_none() {
            return self.alloc_large(size, 1);
        }
        let (address, class) = cache.refill(store, class).map_err(|error| self.explain(error))?;
        Ok(Block::new(address, self.tag, class.number()))
    }

    #[cold]
    #[inline(never)]
    fn alloc_large(&self, size: usize, align: usize) -> Result<Block, AllocError> {
        let store = &self.shared.store;
        let give = || thread_cache::current(self.seat.slot).recall(store);
        let address = store.acquire_large(size, align, give).map_err(|error| self.explain(error))?;
        Ok(Block::new(address as u64, self.tag, LARGE))
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
        let store = &self.shared.store;
        match block.class() {
            Some(class) => cache.spill(store, class, block.address()),
            None => store.give_large(usize::try_from(block.address()).unwrap_or(0)),
        }
        Ok(())
    }

    /// The calling thread's cache, made at its first use.
    fn cache(&self) -> &'static Cache {
        thread_cache::attach(self.seat, self.cache_bytes, || {
            let pool: Weak<Shared<R>> = Arc::downgrade(&self.shared);
            pool
        })
    }

    /// Whether blocks are handed out, in a pool that nobody uses any more.
    fn has_live_blocks(&self) -> bool {
        // A thread that ends may be giving its blocks back right now: for some instructions
        // they are neither in its cache nor free.
        (0..DROP_LOOKS).all(|_| {
            thread::yield_now();
            let cached = self.cached();
            self.shared.store.taken() > cached
        })
    }

    /// Tells blocks in caches from blocks handed out.
    fn explain(&self, error: AllocError) -> AllocError {
        let AllocError::Exhausted(state) = error else { return error };
        let cached = self.cached();
        AllocError::Exhausted(Exhaustion { cached, live: state.live.saturating_sub(cached), ..state })
    }
}

impl<R: MemoryResource> Drain for Shared<R> {
    fn drain(&self, cache: &Cache) {
        cache.drain(&self.store);
        self.store.unpack();
    }
}

impl<R: MemoryResource + 'static> Drop for SlabPool<R> {
    fn drop(&mut self) {
        thread_cache::detach(self.seat);
        if self.has_live_blocks() {
            #[expect(clippy::mem_forget, reason = "blocks are in use: leak rather than dangle")]
            std::mem::forget(Arc::clone(&self.shared));
        } else {
            self.shared.store.decommit_all();
        }
        REGISTRY.close(self.seat);
    }
}

/// Below the id in a block's second word is its class.
const TAG_SHIFT: u32 = 8;

/// How often a dropped pool looks whether its blocks have come back.
const DROP_LOOKS: usize = 50;
