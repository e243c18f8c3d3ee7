//! A cache that its owner holds, instead of the thread.

use super::block::{Block, WrongPool};
use super::cache::Cache;
use super::error::AllocError;
use super::pool::SlabPool;
use super::size_class::SizeClass;
use super::thread_cache::Flush;
use crate::address::to_usize;
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;

/// A cache of one pool's blocks for one owner, through `&mut self`.
///
/// In a library that is loaded at run time (a Python extension, say) every access to a
/// thread-local costs a call, more than the allocation. A cache that is held costs none, and can
/// be dropped, and so emptied, when its owner pleases. Dropping it frees the blocks that it holds.
///
/// It may be sent to another thread.
///
/// # Examples
///
/// ```
/// use wharf::memory::UnbackedResource;
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// let pool = SlabPool::new(UnbackedResource::new(1 << 30)?, PoolOptions::default())?;
/// let mut cache = pool.local_cache();
/// let block = cache.alloc(4096)?;
/// cache.dealloc(block)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalCache<'a, R: MemoryResource + 'static> {
    pool: &'a SlabPool<R>,
    cache: Box<Cache>,
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Makes a cache for one owner, bounded like a thread's.
    pub fn local_cache(&self) -> LocalCache<'_, R> {
        let number = self.store.local_caches.fetch_add(1, Relaxed);
        let cache = Box::new(Cache::new(number));
        cache.configure(self.cache_bytes);
        LocalCache { pool: self, cache }
    }
}

impl<R: MemoryResource + 'static> LocalCache<'_, R> {
    /// Allocates a block of at least `size` bytes, aligned to at least 256.
    ///
    /// # Errors
    ///
    /// As [`SlabPool::alloc`].
    #[inline]
    pub fn alloc(&mut self, size: usize) -> Result<Block, AllocError> {
        let Some(class) = SizeClass::of(size) else { return self.alloc_large(size) };
        if let Some(magazine) = self.cache.magazines.get(class.index())
            && let Some(address) = magazine.pop()
        {
            return Ok(Block::new(address, self.pool.tag, class.number()));
        }
        self.alloc_slow(class, size)
    }

    /// Allocates a large block; as in [`alloc_slow`](Self::alloc_slow), the cache is emptied before
    /// that is refused.
    #[cold]
    #[inline(never)]
    fn alloc_large(&mut self, size: usize) -> Result<Block, AllocError> {
        match self.pool.claim_run(size, 1) {
            Err(AllocError::Exhausted(_)) => {
                self.flush();
                self.pool.alloc(size)
            }
            outcome => outcome,
        }
    }

    /// Allocates a block of which the cache has none; the cache is emptied before that is refused.
    #[cold]
    #[inline(never)]
    fn alloc_slow(&mut self, class: SizeClass, size: usize) -> Result<Block, AllocError> {
        if let Some(block) = self.pool.alloc_near(&self.cache, class) {
            return Ok(block);
        }
        match self.pool.alloc_through(&self.cache, class, size) {
            Err(AllocError::Exhausted(_)) => {
                self.flush();
                self.pool.retry_after_flush(|| self.pool.alloc_through(&self.cache, class, size))
            }
            outcome => outcome,
        }
    }

    /// Frees a block, wherever it was allocated from the pool.
    ///
    /// # Errors
    ///
    /// [`WrongPool`] with the block if it is another pool's.
    #[inline]
    pub fn dealloc(&mut self, block: Block) -> Result<(), WrongPool> {
        let class = to_usize(block.class_under(self.pool.tag));
        if let Some(magazine) = self.cache.magazines.get(class)
            && magazine.push(block.address())
        {
            return Ok(());
        }
        self.pool.dealloc_through(&self.cache, block)
    }

    /// Frees what the cache holds, and what other threads have left for any thread to take.
    pub fn flush(&mut self) {
        self.pool.store.flush(&self.cache);
    }
}

impl<R: MemoryResource + 'static> Drop for LocalCache<'_, R> {
    fn drop(&mut self) {
        self.flush();
    }
}
