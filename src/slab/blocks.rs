//! The seam between slabs and the layers that give their blocks owners: a pool without the type of
//! its resource.

use std::fmt::Debug;
use std::time::Duration;

use super::block::Block;
use super::error::AllocError;
use super::geometry::LARGE;
use super::pool::SlabPool;
use super::size_class::SizeClass;
use super::stats::{PoolStats, SlabInfo};
use super::thread_cache;
use super::trim::Trimmed;
use crate::address::to_usize;
use crate::memory::{MemoryResource, joined_device_address};

/// A [`SlabPool`] of any resource.
///
/// A caller finds the class of a size once and passes it on; `None` asks for a large block.
pub(crate) trait Blocks: Debug + Send + Sync {
    /// A number that no other pool of the process has or had.
    fn id(&self) -> u64;

    /// The resource that the pool draws from.
    fn resource(&self) -> &dyn MemoryResource;

    /// Allocates a block of `class`, or a run for `size` bytes, of what is committed already.
    /// Returns `None` if the pool would have to grow.
    fn alloc_committed(&self, class: Option<SizeClass>, size: usize) -> Option<Block>;

    /// Allocates a block of `class`, or a run for `size` bytes; where there is no room for that, a
    /// run for `least`.
    ///
    /// For callers that have other memory to free: the calling thread's cache is not flushed where
    /// there is no room, and an [`Exhaustion`](super::Exhaustion) says nothing of physical memory.
    fn alloc(
        &self,
        class: Option<SizeClass>,
        size: usize,
        least: usize,
    ) -> Result<Block, AllocError>;

    /// Allocates a run of granules for `size` bytes, also where there is a class for them.
    fn alloc_run(&self, size: usize) -> Result<Block, AllocError>;

    /// Frees a block of this pool.
    fn dealloc(&self, block: Block);

    /// The size of a block of this pool, in bytes.
    fn block_size(&self, block: &Block) -> usize;

    /// As [`SlabPool::flush_thread_cache`].
    fn flush_thread_cache(&self);

    /// As [`SlabPool::trim`].
    fn trim(&self, idle: Duration, keep: usize) -> Trimmed;

    /// As [`SlabPool::stats`].
    fn stats(&self) -> PoolStats;

    /// As [`SlabPool::slabs`].
    fn slabs(&self) -> Vec<SlabInfo>;

    /// Where the device sees a range of addresses, in one piece or in pieces that follow each
    /// other.
    fn device_address(&self, address: u64, len: usize) -> Option<u64> {
        joined_device_address(self.resource(), self.offset(address), len)
    }

    /// How many of `len` bytes from an address on one copy may take.
    fn piece_len(&self, address: u64, len: usize) -> usize {
        self.resource().piece_len(self.offset(address), len)
    }

    /// Where an address of the span lies in it.
    fn offset(&self, address: u64) -> usize {
        to_usize(address - self.resource().base())
    }
}

impl<R: MemoryResource + Debug + 'static> Blocks for SlabPool<R> {
    fn id(&self) -> u64 {
        self.seat.id
    }

    fn resource(&self) -> &dyn MemoryResource {
        self.upstream()
    }

    fn alloc_committed(&self, class: Option<SizeClass>, size: usize) -> Option<Block> {
        let store = &self.store;
        // A class whose slabs would be longer than the span has none.
        let Some(class) = class.filter(|class| store.geometry.slab(*class).is_some()) else {
            let address = store.acquire_large_committed(size)?;
            return Some(Block::new(address, self.tag, LARGE));
        };
        if let Some(address) = thread_cache::current(self.seat.slot).pop(class) {
            return Some(Block::new(address, self.tag, class.number()));
        }
        let address = store.collect_one(store.acquire_committed(class)?);
        Some(Block::new(address, self.tag, class.number()))
    }

    fn alloc(
        &self,
        class: Option<SizeClass>,
        size: usize,
        least: usize,
    ) -> Result<Block, AllocError> {
        let outcome = match class {
            Some(class) => match self.cache().pop(class) {
                Some(address) => return Ok(Block::new(address, self.tag, class.number())),
                None => self.alloc_through(self.cache(), class, size),
            },
            None => self.claim_run(size, 1),
        };
        let granules = |size| self.store.geometry.granules_for(size);
        match outcome {
            // A shorter run may fit into what is left of the limit or the span.
            Err(AllocError::Exhausted(_) | AllocError::TooLarge { .. })
                if granules(least) < granules(size) =>
            {
                self.claim_run(least, 1)
            }
            outcome => outcome,
        }
    }

    fn alloc_run(&self, size: usize) -> Result<Block, AllocError> {
        self.alloc_large(size, 1)
    }

    fn dealloc(&self, block: Block) {
        let freed = Self::dealloc(self, block);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }

    fn block_size(&self, block: &Block) -> usize {
        Self::block_size(self, block)
    }

    fn flush_thread_cache(&self) {
        Self::flush_thread_cache(self);
    }

    fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        Self::trim(self, idle, keep)
    }

    fn stats(&self) -> PoolStats {
        Self::stats(self)
    }

    fn slabs(&self) -> Vec<SlabInfo> {
        Self::slabs(self)
    }
}
