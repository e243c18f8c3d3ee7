//! The memory of an engine's steps: activations on the device, results in pinned memory.

use wharf::Context;
use wharf::memory::{
    DeviceMemoryResource, MemoryResource, PinnedMemoryResource, PinnedOptions, ResourceReport,
};
use wharf::slab::{AllocError, Block, PoolOptions, SlabPool};

use super::ReplayError;

/// Memory of a replay at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// Of the device.
    pub device: KindUse,
    /// Pinned.
    pub pinned: KindUse,
}

/// Memory of one kind, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct KindUse {
    /// What steps in flight asked for.
    pub live: u64,
    /// What the pool had obtained for it.
    pub reserved: u64,
    /// Allocations so far.
    pub allocations: u64,
    /// How many of them made the pool grow.
    pub grown: u64,
}

/// The pools.
pub(super) struct Engine {
    device: Pool<DeviceMemoryResource>,
    pinned: Pool<PinnedMemoryResource>,
}

/// The buffers of one step.
pub(super) struct Buffers {
    activations: (Block, usize),
    results: (Block, usize),
}

impl Engine {
    pub(super) fn new(context: &Context) -> Result<Self, ReplayError> {
        let device = DeviceMemoryResource::new(context, SPAN)?;
        let pinned = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default())?;
        Ok(Self {
            device: Pool::new(device, DeviceMemoryResource::report)?,
            pinned: Pool::new(pinned, PinnedMemoryResource::report)?,
        })
    }

    /// Allocates what a step of so many tokens and requests needs.
    pub(super) fn alloc(&mut self, tokens: usize, requests: usize) -> Result<Buffers, AllocError> {
        let activations = self.device.alloc(tokens.max(1) * ACTIVATION)?;
        match self.pinned.alloc(requests.max(1) * RESULT) {
            Ok(results) => Ok(Buffers { activations, results }),
            Err(error) => {
                self.device.free(activations);
                Err(error)
            }
        }
    }

    /// Frees the buffers of a step that the device is done with.
    pub(super) fn free(&mut self, buffers: Buffers) {
        self.device.free(buffers.activations);
        self.pinned.free(buffers.results);
    }

    pub(super) fn memory(&self) -> MemoryUse {
        MemoryUse { device: self.device.seen, pinned: self.pinned.seen }
    }
}

/// A pool that counts.
struct Pool<R: MemoryResource + 'static> {
    slabs: SlabPool<R>,
    report: fn(&R) -> ResourceReport,
    seen: KindUse,
}

impl<R: MemoryResource + 'static> Pool<R> {
    fn new(resource: R, report: fn(&R) -> ResourceReport) -> Result<Self, ReplayError> {
        Ok(Self { slabs: SlabPool::new(resource, PoolOptions::default())?, report, seen: KindUse::default() })
    }

    fn alloc(&mut self, size: usize) -> Result<(Block, usize), AllocError> {
        let block = self.slabs.alloc(size)?;
        let reserved = (self.report)(self.slabs.upstream()).committed as u64;
        self.seen.live += size as u64;
        self.seen.allocations += 1;
        self.seen.grown += u64::from(reserved > self.seen.reserved);
        self.seen.reserved = reserved;
        Ok((block, size))
    }

    fn free(&mut self, (block, size): (Block, usize)) {
        // A block of this pool comes back to it: there is nothing to refuse.
        if self.slabs.dealloc(block).is_ok() {
            self.seen.live -= size as u64;
        }
    }
}

/// Addresses for each pool, in bytes.
const SPAN: usize = 1 << 30;
/// Bytes of activations a token: 4096 numbers of two bytes.
const ACTIVATION: usize = 8192;
/// Bytes of results a request: a token and its 20 likeliest alternatives.
const RESULT: usize = 4 + 20 * 8;
