//! The seam between slabs and the layers that give their blocks owners: a pool without the type of
//! its resource.

use std::fmt::Debug;
use std::time::Duration;

use super::block::Block;
use super::error::AllocError;
use super::geometry::{LARGE, SlabShape};
use super::number::SliceCount;
use super::pool::SlabPool;
use super::size_class::SizeClass;
use super::sleep::{Interrupted, Keeper};
use super::space::Retirement;
use super::stats::{PoolStats, SlabInfo};
use super::store::Reserved;
use super::trim::Trimmed;
use crate::address::to_usize;
use crate::error::Error;
use crate::memory::{MemoryResource, joined_device_address};

/// A [`SlabPool`] of any resource, and without thread caches: the layers above keep what they free.
pub(crate) trait Blocks: Debug + Send + Sync {
    /// A number that no other pool of the process has or had.
    fn id(&self) -> u64;

    /// The resource that the pool draws from.
    fn resource(&self) -> &dyn MemoryResource;

    /// Allocates a block of what is committed already. Returns `None` if the pool would have to
    /// grow.
    fn alloc_committed(&self, request: BlockRequest) -> Result<Option<OwnedBlock>, Error>;

    /// Allocates a block.
    ///
    /// For callers that have other memory to free: an [`Exhaustion`](super::Exhaustion) says
    /// nothing of physical memory.
    fn alloc(&self, request: BlockRequest) -> Result<OwnedBlock, AllocError>;

    /// Gives back a large block that a stream may still use: that stream has it at once, in parts
    /// and joined with what is free, and others when it is [complete](Self::complete).
    fn retire(&self, block: Block, by: Retirement);

    /// The streams that have retired memory, each with its first ticket.
    fn retirers(&self) -> Vec<Retirement>;

    /// The last ticket of what a stream has retired.
    fn last_retirement(&self, owner: u32) -> Option<u64>;

    /// The device is past a stream's ticket: what it retired up to there is free. Returns bytes.
    fn complete(&self, through: Retirement) -> usize;

    /// Another stream waits for a ticket: what was retired up to there is its own from now on.
    fn hand_over(&self, through: Retirement, to: Retirement);

    /// Bytes that are committed.
    fn reserved(&self) -> usize;

    /// Bytes of blocks that are taken.
    fn taken(&self) -> usize;

    /// Bytes that streams have retired.
    fn retired(&self) -> usize;

    /// The size of a large block for `size` bytes.
    fn run_size(&self, size: usize) -> usize;

    /// Frees a block of this pool.
    fn dealloc(&self, block: Block);

    /// The size of a block of this pool, in bytes.
    fn block_size(&self, block: &Block) -> usize;

    /// As [`SlabPool::trim`].
    fn trim(&self, idle: Duration, keep: usize) -> Trimmed;

    /// As [`Store::sleep`](super::store::Store::sleep).
    fn sleep(&self, keeper: &mut dyn Keeper) -> Result<usize, Interrupted>;

    /// As [`Store::wake`](super::store::Store::wake).
    fn wake(&self, keeper: &dyn Keeper) -> Result<usize, Interrupted>;

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

/// A request for a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRequest {
    /// The class of the size, which the caller has found once; `None` asks for a large block.
    pub(crate) class: Option<SizeClass>,
    /// Bytes.
    pub(crate) size: usize,
    /// The stream whose retired memory will do for a large block, too.
    pub(crate) owner: Option<u32>,
}

/// A block, and the work that it has to come behind.
#[derive(Debug)]
#[must_use]
pub(crate) struct OwnedBlock {
    pub(crate) block: Block,
    /// The last ticket of what the request's stream had retired there; 0 if there was nothing.
    pub(crate) ticket: u64,
}

impl<R: MemoryResource + Debug + 'static> Blocks for SlabPool<R> {
    fn id(&self) -> u64 {
        self.seat.id
    }

    fn resource(&self) -> &dyn MemoryResource {
        self.upstream()
    }

    fn alloc_committed(&self, request: BlockRequest) -> Result<Option<OwnedBlock>, Error> {
        let BlockRequest { class, size, owner } = request;
        if let Some((class, shape)) = self.slab_of(class) {
            let reserved = match self.store.reserve(class, 1, None) {
                Some(reserved) => Some(reserved),
                None => self.store.reserve_committed(class, shape, 1)?,
            };
            return Ok(reserved.map(|reserved| self.of_slab(reserved)));
        }
        let taken = self.store.acquire_large_committed(size, owner)?;
        Ok(taken.map(|taken| self.large(taken)))
    }

    fn alloc(&self, request: BlockRequest) -> Result<OwnedBlock, AllocError> {
        let BlockRequest { class, size, owner } = request;
        if let Some((class, shape)) = self.slab_of(class) {
            let reserved = self
                .store
                .reserve(class, 1, None)
                .map_or_else(|| self.store.acquire(class, 1, || false), Ok);
            match reserved {
                // Where there is no room for a slab there may be room for the block alone.
                Err(AllocError::Exhausted(_)) if self.is_shorter_alone(size, shape) => {}
                outcome => return Ok(self.of_slab(outcome?)),
            }
        }
        self.store.acquire_large(size, 1, owner, || false).map(|taken| self.large(taken))
    }

    fn retire(&self, block: Block, by: Retirement) {
        debug_assert!(block.class().is_none() && block.is_of(self.tag), "{block:?}");
        self.store.retire_large(block.address(), by);
    }

    fn retirers(&self) -> Vec<Retirement> {
        self.store.folded().map_or_else(|_| Vec::new(), |space| space.retirers().collect())
    }

    fn last_retirement(&self, owner: u32) -> Option<u64> {
        self.store.folded().ok()?.last_retirement(owner)
    }

    fn complete(&self, through: Retirement) -> usize {
        let freed = self.store.folded().map_or(0, |mut space| space.complete(through));
        self.store.geometry.bytes(SliceCount::from_word(freed))
    }

    fn hand_over(&self, through: Retirement, to: Retirement) {
        if let Ok(mut space) = self.store.folded() {
            space.hand_over(through, to);
        }
    }

    fn reserved(&self) -> usize {
        self.store.budget.reserved()
    }

    fn taken(&self) -> usize {
        self.store.taken()
    }

    fn retired(&self) -> usize {
        let retired = self.store.folded().map_or(0, |space| space.retired());
        self.store.geometry.bytes(SliceCount::from_word(retired))
    }

    fn run_size(&self, size: usize) -> usize {
        size.max(1).checked_next_multiple_of(self.store.geometry.slice()).unwrap_or(size)
    }

    fn dealloc(&self, block: Block) {
        match block.class() {
            Some(class) => {
                let (head, index) = self.store.block_of(class, block.address());
                self.store.free_one(head, index);
            }
            None => self.store.free_large(block.address()),
        }
    }

    fn block_size(&self, block: &Block) -> usize {
        Self::block_size(self, block)
    }

    fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        Self::trim(self, idle, keep)
    }

    fn sleep(&self, keeper: &mut dyn Keeper) -> Result<usize, Interrupted> {
        self.store.sleep(keeper)
    }

    fn wake(&self, keeper: &dyn Keeper) -> Result<usize, Interrupted> {
        self.store.wake(keeper)
    }

    fn stats(&self) -> PoolStats {
        Self::stats(self)
    }

    fn slabs(&self) -> Vec<SlabInfo> {
        Self::slabs(self)
    }
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// The slabs of a class; `None` if its blocks are runs of their own.
    fn slab_of(&self, class: Option<SizeClass>) -> Option<(SizeClass, SlabShape)> {
        let class = class?;
        Some((class, self.store.geometry.slab(class)?))
    }

    fn of_slab(&self, reserved: Reserved) -> OwnedBlock {
        let class = reserved.class.number();
        let address = self.store.collect_one(reserved);
        OwnedBlock { block: Block::new(address, self.tag, class), ticket: 0 }
    }

    fn large(&self, (address, ticket): (u64, u64)) -> OwnedBlock {
        OwnedBlock { block: Block::new(address, self.tag, LARGE), ticket }
    }
}
