//! What a pool needs of the slabs below it, whatever their memory.

use std::fmt::Debug;
use std::time::Duration;

use crate::memory::{MemoryKind, MemoryResource};
use crate::slab::{AllocError, Block, PoolStats, SizeClass, SlabInfo, SlabPool, Trimmed};

/// A block as a record keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    pub(super) address: u64,
    pub(super) size: usize,
    /// `None` for a large block.
    pub(super) class: Option<SizeClass>,
}

/// A slab pool without its type.
pub(super) trait Upstream: Debug + Send + Sync {
    fn id(&self) -> u64;
    fn kind(&self) -> MemoryKind;
    fn ordinal(&self) -> Option<i32>;
    fn device_address(&self, address: u64, len: usize) -> Option<u64>;

    /// A block of at least `size` bytes, if one is committed.
    fn alloc_committed(&self, size: usize) -> Option<Raw>;
    fn alloc(&self, size: usize) -> Result<Raw, AllocError>;
    /// Gives a block back. That it was ours and is not free already is checked by the slabs.
    fn dealloc(&self, address: u64);

    fn flush_thread_cache(&self);
    fn trim(&self, idle: Duration, keep: usize) -> Trimmed;
    fn stats(&self) -> PoolStats;
    fn slabs(&self) -> Vec<SlabInfo>;
    /// Start and length of the span.
    fn span(&self) -> (u64, usize);
}

impl<R: MemoryResource + Debug + 'static> Upstream for SlabPool<R> {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn kind(&self) -> MemoryKind {
        self.upstream().kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.upstream().ordinal()
    }

    fn device_address(&self, address: u64, len: usize) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.upstream().base())?).ok()?;
        MemoryResource::device_address(self.upstream(), offset, len)
    }

    fn alloc_committed(&self, size: usize) -> Option<Raw> {
        Self::alloc_committed(self, size).and_then(|block| raw(self, block))
    }

    fn alloc(&self, size: usize) -> Result<Raw, AllocError> {
        let block = Self::alloc(self, size)?;
        raw(self, block).ok_or(AllocError::TooLarge { size, max: 0 })
    }

    fn dealloc(&self, address: u64) {
        let freed = self.dealloc_raw(address);
        debug_assert!(freed.is_ok(), "{freed:?}");
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

    fn span(&self) -> (u64, usize) {
        (self.upstream().base(), self.upstream().size())
    }
}

/// A block of the pool's as a bare one.
fn raw<R: MemoryResource + 'static>(pool: &SlabPool<R>, block: Block) -> Option<Raw> {
    let (size, class) = (pool.block_size(&block), block.class());
    // Of this pool, so it is taken.
    let address = pool.into_raw(block).ok()?;
    Some(Raw { address, size, class })
}
