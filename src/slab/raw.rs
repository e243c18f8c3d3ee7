//! Blocks as bare addresses, for callers that cannot keep a handle.
//!
//! A block handed out as an address has its bit in a second bitmap, so every address given back
//! is checked in constant time, in release builds too: a second free finds the bit gone, and a
//! block in some thread's cache never had it.

use super::block::{Block, WrongPool};
use super::error::{AllocError, DeallocError};
use super::pool::SlabPool;
use super::registry::registry;
use super::size_class::SizeClass;
use crate::memory::MemoryResource;

/// The block that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// The address of its first byte.
    pub address: u64,
    /// Its size, in bytes.
    pub size: usize,
    /// Its class; `None` for a large block.
    pub class: Option<SizeClass>,
    /// Whether it is handed out, or in some thread's cache.
    pub taken: bool,
    /// Whether it is handed out as an address, so that `dealloc_raw` would free it.
    pub raw: bool,
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Allocates a block of at least `size` bytes; its address, to be given to
    /// [`dealloc_raw`](Self::dealloc_raw).
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    pub fn alloc_raw(&self, size: usize) -> Result<u64, AllocError> {
        let block = self.alloc(size)?;
        let address = block.address();
        // Of this pool, so this finds it.
        let made = self.into_raw(block);
        debug_assert_eq!(made.as_ref(), Ok(&address));
        Ok(address)
    }

    /// Turns a block into its address, to be given to [`dealloc_raw`](Self::dealloc_raw).
    ///
    /// # Errors
    ///
    /// [`WrongPool`] with the block if it is another pool's.
    pub fn into_raw(&self, block: Block) -> Result<u64, WrongPool> {
        let own = block.is_of(self.tag).then(|| self.store.locate(block.address())).flatten();
        let Some(found) = own else { return Err(WrongPool(block)) };
        self.store.mark_raw(found);
        Ok(block.address())
    }

    /// Frees the block at an address that [`into_raw`](Self::into_raw) or
    /// [`alloc_raw`](Self::alloc_raw) returned.
    ///
    /// Neither the host nor the device may use it any more.
    ///
    /// # Errors
    ///
    /// * [`DeallocError::Foreign`], [`DeallocError::WrongPool`]: the address is not in this
    ///   pool's span.
    /// * [`DeallocError::Stale`]: no slab is there now.
    /// * [`DeallocError::Interior`]: it is not where a block starts.
    /// * [`DeallocError::NotLive`]: the block is freed already, or is held as a [`Block`].
    pub fn dealloc_raw(&self, address: u64) -> Result<(), DeallocError> {
        let store = &self.store;
        let Some(found) = store.locate(address) else { return Err(self.not_here(address)) };
        if found.start != address {
            let (block, size) = (found.start, found.size);
            return Err(DeallocError::Interior { address, block, size });
        }
        if !store.unmark_raw(found) {
            return Err(DeallocError::NotLive { address, size: found.size });
        }
        // The block behind the bit is ours now, so its slab stays as it is. If it is not the
        // block that we saw, the slab has changed in between, and the address was stale.
        if store.locate(address) != Some(found) {
            store.mark_raw(found);
            return Err(DeallocError::Stale { address });
        }
        let freed = self.dealloc(Block::new(address, self.tag, found.class));
        debug_assert!(freed.is_ok(), "{freed:?}");
        Ok(())
    }

    /// The block that an address lies in, at this moment; `None` where no slab is.
    pub fn block_at(&self, address: u64) -> Option<BlockInfo> {
        let found = self.store.locate(address)?;
        Some(BlockInfo {
            address: found.start,
            size: found.size,
            class: SizeClass::from_index(usize::from(found.class)),
            taken: self.store.is_taken(found),
            raw: self.store.is_raw(found),
        })
    }

    /// Why there is no block at an address.
    fn not_here(&self, address: u64) -> DeallocError {
        match registry().owner_of(address) {
            _ if self.store.geometry.slice_at(address).is_some() => DeallocError::Stale { address },
            Some(_) => DeallocError::WrongPool { address },
            None => DeallocError::Foreign { address },
        }
    }
}
