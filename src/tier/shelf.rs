//! The memory of one tier.

use std::fmt::Debug;
use std::time::Duration;

use super::packed::Packed;
use crate::driver::Context;
use crate::error::{CudaError, Error};
use crate::memory::{
    Advice, DeviceMemoryResource, FileMappedMemoryResource, Location, ManagedMemoryResource, MemoryResource,
    PinnedMemoryResource,
};
use crate::slab::{AllocError, PoolError, PoolOptions, SlabPool};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where an object's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The address of the span that it lies in: the host's, for memory that the host reaches.
    pub(super) address: u64,
    /// The device's address of the same bytes; `None` where the device does not reach them.
    pub(super) device: Option<u64>,
}

/// A tier's slabs and the account of what is on its way out of them.
#[derive(Debug)]
pub(super) struct Shelf {
    blocks: Box<dyn Blocks>,
    pub(super) limit: usize,
    /// Bytes of blocks that are taken.
    used: AtomicUsize,
    /// Bytes of objects that are being moved away.
    pub(super) leaving: AtomicUsize,
    /// Where the clock's hand is.
    pub(super) hand: AtomicUsize,
}

impl Shelf {
    pub(super) fn new<R: Shelved + Debug + 'static>(resource: R, limit: usize) -> Result<Self, PoolError> {
        let granularity = resource.granularity();
        // Threads keep nothing to themselves: what one frees, another waits for.
        let options = PoolOptions::default().thread_cache_bytes(0).granule(granularity);
        let blocks = SlabPool::new(resource, options.max_bytes(limit.next_multiple_of(granularity)))?;
        Ok(Self {
            blocks: Box::new(blocks),
            limit,
            used: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        })
    }

    /// A block of at least `size` bytes; `None` if there is no room.
    pub(super) fn take(&self, size: usize) -> Result<Option<Place>, AllocError> {
        let taken = match self.blocks.take(size) {
            // Room that nobody uses may be in pieces of the wrong length.
            Err(error) if is_full(&error) => {
                self.blocks.trim();
                self.blocks.take(size)
            }
            outcome => outcome,
        };
        match taken {
            Ok(address) => {
                self.used.fetch_add(self.blocks.size_at(address), Relaxed);
                Ok(Some(Place { address, device: self.blocks.device_address(address, size) }))
            }
            Err(error) if is_full(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a block back, which nobody uses any more.
    pub(super) fn give(&self, address: u64) {
        self.used.fetch_sub(self.blocks.size_at(address), Relaxed);
        self.blocks.give(address);
    }

    /// Gives memory that no block has back to the driver.
    pub(super) fn trim(&self) {
        self.blocks.trim();
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Bytes that have to leave, beyond those that do so, to make room for `size`; at least 1, if nothing
    /// is leaving, since the room that there is was not enough.
    pub(super) fn lack(&self, size: usize) -> usize {
        let leaving = self.leaving.load(Relaxed);
        let lack = (self.used() + size).saturating_sub(self.limit + leaving);
        if leaving == 0 { lack.max(1) } else { lack }
    }

    /// Asks the driver to bring managed memory to the device, or to the host.
    pub(super) fn attract(
        &self,
        place: Place,
        size: usize,
        to_device: bool,
        stream: &Stream,
    ) -> Result<(), Error> {
        self.blocks.attract(place.address, size, to_device, stream)
    }
}

/// Whether somebody's leaving would help.
fn is_full(error: &AllocError) -> bool {
    match error {
        AllocError::Exhausted(_) => true,
        AllocError::Upstream(error) => error.code() == Some(CudaError::OUT_OF_MEMORY),
        _ => false,
    }
}

/// The device's tier.
pub(super) fn device(context: &Context, limit: usize, can_map: bool) -> Result<Shelf, super::TierError> {
    // Addresses are plenty where memory is mapped to them, and room for holes.
    let span = if can_map { limit.saturating_mul(SPARE_ADDRESSES) } else { limit };
    let resource = DeviceMemoryResource::new(context, span)?;
    let granule = resource.granularity();
    let unit = (limit / UNITS).next_power_of_two().clamp(LEAST_UNIT, granule.min(MOST_UNIT));
    let limit = (limit / granule).max(1) * granule;
    Ok(Shelf::new(Packed::new(resource, unit, limit), limit)?)
}

/// Slabs without the type of their resource.
trait Blocks: Debug + Send + Sync {
    fn take(&self, size: usize) -> Result<u64, AllocError>;
    fn give(&self, address: u64);
    fn size_at(&self, address: u64) -> usize;
    fn device_address(&self, address: u64, len: usize) -> Option<u64>;
    fn trim(&self);
    fn attract(&self, address: u64, len: usize, to_device: bool, stream: &Stream) -> Result<(), Error>;
}

impl<R: Shelved + Debug + 'static> Blocks for SlabPool<R> {
    fn take(&self, size: usize) -> Result<u64, AllocError> {
        let block = if size > self.upstream().slabs_up_to() {
            self.alloc_run(size)?
        } else {
            // Several blocks of a class may be more than there is room for.
            self.alloc(size).or_else(|_| self.alloc_run(size))?
        };
        // Of this pool.
        self.into_raw(block).map_err(|_| AllocError::TooLarge { size, max: 0 })
    }

    fn give(&self, address: u64) {
        // Of this pool, and given back once: it has one owner.
        let freed = self.dealloc_raw(address);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }

    fn size_at(&self, address: u64) -> usize {
        self.block_at(address).map_or(0, |block| block.size)
    }

    fn device_address(&self, address: u64, len: usize) -> Option<u64> {
        MemoryResource::device_address(self.upstream(), offset(self.upstream(), address), len)
    }

    fn trim(&self) {
        Self::trim(self, Duration::ZERO, 0);
    }

    fn attract(&self, address: u64, len: usize, to_device: bool, stream: &Stream) -> Result<(), Error> {
        self.upstream().attract(offset(self.upstream(), address), len, to_device, stream)
    }
}

/// What tiers ask of a resource beyond memory.
pub(super) trait Shelved: MemoryResource {
    /// Up to which size blocks share slabs with others of their class, in bytes.
    fn slabs_up_to(&self) -> usize {
        usize::MAX
    }

    /// Moves a range to the device, or to the host, where its address stays the same.
    fn attract(&self, offset: usize, len: usize, to_device: bool, stream: &Stream) -> Result<(), Error> {
        let _ = (offset, len, to_device, stream);
        Ok(())
    }
}

impl Shelved for PinnedMemoryResource {}

impl Shelved for FileMappedMemoryResource {}

impl<R: MemoryResource> Shelved for Packed<R> {
    fn slabs_up_to(&self) -> usize {
        self.granularity()
    }
}

impl Shelved for ManagedMemoryResource {
    fn attract(&self, offset: usize, len: usize, to_device: bool, stream: &Stream) -> Result<(), Error> {
        let device = Location::Device(self.context().device());
        let place = if to_device { device } else { Location::Host };
        self.advise(offset, len, Advice::PreferredLocation(place))?;
        // Wherever it is, the device has it in its page tables.
        self.advise(offset, len, Advice::AccessedBy(device))?;
        self.prefetch(offset, len, place, stream)
    }
}

fn offset<R: MemoryResource>(resource: &R, address: u64) -> usize {
    usize::try_from(address - resource.base()).unwrap_or(usize::MAX)
}

/// How many times its limit a span of mapped memory has in addresses.
const SPARE_ADDRESSES: usize = 4;

/// About how many units the device's tier is cut into: an object of a thousandth of it wastes an eighth
/// of a thousandth at most.
const UNITS: usize = 8192;
const LEAST_UNIT: usize = 4 << 10;
const MOST_UNIT: usize = 1 << 20;
