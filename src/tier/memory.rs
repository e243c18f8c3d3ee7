//! The memory of one tier.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::Context;
use crate::error::Error;
use crate::memory::{
    Advice, Budget, Budgeted, DeviceMemoryResource, Location, ManagedMemoryResource,
    MemoryResource, Registrations,
};
use crate::slab::{
    AllocError, Block, BlockRequest, Blocks, PoolError, PoolOptions, SizeClass, SlabPool,
};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The device's tier, to a budget.
pub(super) const DEVICE_TIER: &str = "device tier";

/// The block that an object has in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TierBlock {
    /// The address of the span that it lies in: the host's, for memory that the host reaches.
    pub(super) address: u64,
    /// What the slabs need to take the block back; 0 for a part of a mapped file.
    pub(super) meta: u64,
    /// The device's address of the same bytes; `None` where the device does not reach them.
    pub(super) device: Option<u64>,
}

/// A tier's slabs and the account of what is on its way out of them.
#[derive(Debug)]
pub(super) struct TierMemory {
    slabs: Arc<dyn Blocks>,
    /// The same slabs, where their memory is managed: its resource takes advice.
    managed: Option<Arc<SlabPool<ManagedMemoryResource>>>,
    /// Up to which size blocks share slabs with others of their class, in bytes.
    slabs_up_to: usize,
    pub(super) limit: usize,
    /// Bytes of blocks that are taken.
    used: AtomicUsize,
    /// Bytes of objects that are being moved away.
    pub(super) leaving: AtomicUsize,
    /// Where the clock's hand is.
    pub(super) hand: AtomicUsize,
}

impl TierMemory {
    /// The device's memory.
    pub(super) fn device(
        context: &Context,
        limit: usize,
        can_map: bool,
        budget: Option<&Budget>,
    ) -> Result<Self, super::TierError> {
        // Addresses are plenty where memory is mapped to them, and room for holes.
        let span = if can_map { limit.saturating_mul(SPARE_ADDRESSES) } else { limit };
        let resource = DeviceMemoryResource::new(context, span)?;
        let granule = resource.granularity();
        let unit = (limit / UNITS).next_power_of_two().clamp(LEAST_UNIT, MOST_UNIT);
        let limit = (limit / granule).max(1) * granule;
        let resource = Budgeted::if_any(resource, budget, DEVICE_TIER);
        let slabs = slabs(resource, limit, PoolOptions::default().slice(unit))?;
        Ok(Self { slabs_up_to: unit, ..Self::of(slabs, limit) })
    }

    /// Managed memory.
    pub(super) fn managed(
        resource: ManagedMemoryResource,
        limit: usize,
    ) -> Result<Self, PoolError> {
        let slabs = slabs(resource, limit, PoolOptions::default())?;
        Ok(Self { managed: Some(Arc::clone(&slabs)), ..Self::of(slabs, limit) })
    }

    /// The memory of a resource that needs nothing of its own.
    pub(super) fn new<R: MemoryResource + Debug + 'static>(
        resource: R,
        limit: usize,
    ) -> Result<Self, PoolError> {
        Ok(Self::of(slabs(resource, limit, PoolOptions::default())?, limit))
    }

    fn of(slabs: Arc<dyn Blocks>, limit: usize) -> Self {
        Self {
            slabs,
            managed: None,
            slabs_up_to: usize::MAX,
            limit,
            used: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// A block of at least `size` bytes; `None` if there is no room.
    pub(super) fn take(&self, size: usize) -> Result<Option<TierBlock>, AllocError> {
        match self.alloc(size) {
            Ok(block) => {
                self.used.fetch_add(self.slabs.block_size(&block), Relaxed);
                let (address, meta) = block.into_words();
                let device = self.slabs.device_address(address, size);
                Ok(Some(TierBlock { address, meta, device }))
            }
            // Where the driver has no memory, and nothing is here that could leave, no room comes.
            Err(AllocError::Exhausted(state)) if state.cause.is_none() || self.used() > 0 => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn alloc(&self, size: usize) -> Result<Block, AllocError> {
        let class = SizeClass::shared(size).filter(|_| size <= self.slabs_up_to);
        let request = BlockRequest { class, size, owner: None };
        self.slabs.alloc(request).map(|owned| owned.block)
    }

    /// Gives a block back, which no object has any more.
    pub(super) fn give(&self, block: TierBlock) {
        if let Some(block) = Block::from_words(block.address, block.meta) {
            self.used.fetch_sub(self.slabs.block_size(&block), Relaxed);
            self.slabs.dealloc(block);
        }
    }

    /// Gives memory that no block has back to the driver.
    pub(super) fn trim(&self) {
        self.slabs.trim(Duration::ZERO, 0);
    }

    /// As [`MemoryResource::peers`].
    pub(super) fn peers(&self) -> &[i32] {
        self.slabs.resource().peers()
    }

    /// As [`MemoryResource::registrations`].
    pub(super) fn registrations(&self) -> Option<Registrations> {
        self.slabs.resource().registrations()
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Bytes that have to leave, beyond those that do so, to make room for `size`; at least 1, if
    /// nothing is leaving, since the room that there is was not enough.
    pub(super) fn lack(&self, size: usize) -> usize {
        let leaving = self.leaving.load(Relaxed);
        let lack = (self.used() + size).saturating_sub(self.limit + leaving);
        if leaving == 0 { lack.max(1) } else { lack }
    }

    /// How many of `len` bytes from an address on one copy may take.
    pub(super) fn piece_len(&self, address: u64, len: usize) -> usize {
        self.slabs.piece_len(address, len)
    }

    /// Asks the driver to bring managed memory to the device, or to the host, where its address
    /// stays the same; other memory stays where it is.
    pub(super) fn prefetch(
        &self,
        block: TierBlock,
        size: usize,
        to_device: bool,
        stream: &Stream,
    ) -> Result<(), Error> {
        let Some(slabs) = &self.managed else { return Ok(()) };
        let (memory, offset) = (slabs.upstream(), self.slabs.offset(block.address));
        let device = Location::Device(memory.context().device());
        let location = if to_device { device } else { Location::Host };
        memory.advise(offset, size, Advice::PreferredLocation(location))?;
        // Wherever it is, the device has it in its page tables.
        memory.advise(offset, size, Advice::AccessedBy(device))?;
        memory.prefetch(offset, size, location, stream)
    }
}

/// Slabs of a tier's limit.
fn slabs<R: MemoryResource + Debug + 'static>(
    resource: R,
    limit: usize,
    options: PoolOptions,
) -> Result<Arc<SlabPool<R>>, PoolError> {
    let granularity = resource.granularity();
    // Threads keep nothing to themselves: what one frees, another waits for.
    let options = options.thread_cache_bytes(0).granule(granularity);
    let options = options.max_bytes(limit.next_multiple_of(granularity));
    Ok(Arc::new(SlabPool::new(resource, options)?))
}

/// How many times its limit a span of mapped memory has in addresses.
const SPARE_ADDRESSES: usize = 4;

/// About how many units the device's tier is cut into: an object of a thousandth of it wastes an
/// eighth of a thousandth at most.
const UNITS: usize = 8192;
const LEAST_UNIT: usize = 4 << 10;
const MOST_UNIT: usize = 32 << 10;
