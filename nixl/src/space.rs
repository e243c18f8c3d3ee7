//! Memory of a peer's that this process divides.

use wharf::memory::{MemoryResource, UnbackedResource};
use wharf::slab::{Block, PoolOptions, SlabPool};

use crate::region::RemoteBlock;
use crate::remote_error::RemoteError;

/// A block of the peer's. Which bytes of it are in use says a pool of addresses without memory.
pub(crate) struct Space {
    block: RemoteBlock,
    addresses: SlabPool<UnbackedResource>,
}

impl Space {
    pub(crate) fn new(block: RemoteBlock) -> Result<Self, RemoteError> {
        let refused = |reason| RemoteError::Setup { reason };
        // Numbers of the peer's: no memory ends beyond all addresses, and a table for the space is
        // made.
        let it = block.descriptor;
        if it.offset.checked_add(it.len).is_none() || it.len > MOST {
            return Err(refused("a space of the peer's is larger than 1 TiB: export several"));
        }
        let len = usize::try_from(it.len).unwrap_or(0) & !(GRANULE - 1);
        if len == 0 {
            return Err(refused("a space of the peer's is smaller than 2 MiB: export more"));
        }
        let no_addresses = refused("this process cannot have as many addresses as a space has");
        let resource = UnbackedResource::new(len).map_err(|_| no_addresses.clone())?;
        let options = PoolOptions::default().thread_cache_bytes(0).max_bytes(len);
        let addresses = SlabPool::new(resource, options).map_err(|_| no_addresses)?;
        Ok(Self { block, addresses })
    }

    /// A block of at least `size` bytes; `None` where there is no room.
    pub(crate) fn take(&self, size: usize) -> Option<Block> {
        self.addresses.alloc(size).ok()
    }

    /// The peer's name of a block.
    pub(crate) fn name(&self, block: &Block, size: usize) -> RemoteBlock {
        let mut name = self.block;
        name.descriptor.offset += block.address() - self.addresses.upstream().base();
        name.descriptor.len = size as u64;
        name
    }

    /// Takes a block back.
    pub(crate) fn give(&self, block: Block) {
        // It is a block of this pool.
        let given = self.addresses.dealloc(block);
        debug_assert!(given.is_ok(), "{given:?}");
    }
}

/// Spaces are numbered in granules of this many bytes.
const GRANULE: usize = 2 << 20;

/// The longest space, in bytes.
const MOST: u64 = 1 << 40;
