//! A cache that its owner holds, instead of the thread.

use super::block::{Block, WrongPool};
use super::error::AllocError;
use super::magazine::Cache;
use super::pool::SlabPool;
use super::size_class::SizeClass;
use super::thread_cache::Drain;
use crate::memory::MemoryResource;

/// A cache of one pool's blocks for one owner, through `&mut self`.
///
/// In a library that is loaded at run time (a Python extension, say) every access to a
/// thread-local costs a call, more than the allocation. A cache that is held costs none, and can
/// be dropped, and so emptied, when its owner pleases. Dropping it gives its blocks back.
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
        let cache = Box::new(Cache::new());
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
        let Some(class) = SizeClass::of(size) else { return self.pool.alloc(size) };
        if let Some(magazine) = self.cache.magazines.get(class.index())
            && let Some(address) = magazine.pop()
        {
            return Ok(Block::new(address, self.pool.tag, class.number()));
        }
        self.pool.alloc_through(&self.cache, class, size)
    }

    /// Frees a block, wherever it was allocated from the pool.
    ///
    /// # Errors
    ///
    /// [`WrongPool`] with the block if it is another pool's.
    #[inline]
    pub fn dealloc(&mut self, block: Block) -> Result<(), WrongPool> {
        let class = usize::try_from(block.class_under(self.pool.tag)).unwrap_or(usize::MAX);
        if let Some(magazine) = self.cache.magazines.get(class)
            && magazine.push(block.address())
        {
            return Ok(());
        }
        self.pool.dealloc_through(&self.cache, block)
    }

    /// Gives back what the cache keeps, and what others have left for any thread to take.
    pub fn flush(&mut self) {
        self.pool.shared.drain(&self.cache);
    }
}

impl<R: MemoryResource + 'static> Drop for LocalCache<'_, R> {
    fn drop(&mut self) {
        self.flush();
    }
}
