//! The memory of an engine's steps: activations on the device, results in pinned memory.

use std::time::Duration;

use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, MemoryPlan, Pool, ReclaimStats};
use wharf::slab::AllocError;
use wharf::{Context, Stream};

use super::{ReplayError, all_sizes};

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
    /// Bytes in use, as requested.
    pub live: u64,
    /// The most that was in use at once so far.
    pub peak: u64,
    /// The blocks that were in use then: what was asked for, rounded up to blocks.
    pub peak_blocks: u64,
    /// Bytes that the pool had reserved.
    pub reserved: u64,
    /// Allocations so far.
    pub allocations: u64,
    /// The number of allocations for which the pool may have grown.
    pub grown: u64,
}

/// The pools.
pub(super) struct Engine {
    device: Counted,
    pinned: Counted,
    /// The activations of the last step, whose work was submitted: the next may have their memory.
    activations: Option<Buffer<u8>>,
}

/// The buffer of a step's results, kept as long as they may be read.
pub(super) struct Results(Buffer<u8>);

impl Engine {
    /// Pools that have the blocks of `reserve` from the start.
    pub(super) fn new(
        context: &Context,
        stream: &Stream,
        reserve: Option<&[MemoryPlan; 2]>,
        keep_idle: Duration,
    ) -> Result<Self, ReplayError> {
        let device = DeviceMemoryResource::new(context, SPAN)?;
        let pinned = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default())?;
        let pool = |name| Pool::builder().name(name).keep_idle(keep_idle);
        let pools = (pool("activations").build(device)?, pool("results").build(pinned)?);
        // An earlier run knows the peak: growth during steps would be in the measured times.
        if let Some([device, pinned]) = reserve {
            pools.0.reserve(device, stream)?;
            pools.1.reserve(pinned, stream)?;
        }
        Ok(Self { device: Counted::new(pools.0), pinned: Counted::new(pools.1), activations: None })
    }

    /// Uses the memory of a step of so many tokens and requests: activations, which the next step
    /// may overwrite in the order of the stream, and results, which the host reads later.
    pub(super) fn step(
        &mut self,
        tokens: usize,
        requests: usize,
        stream: &Stream,
    ) -> Result<Results, ReplayError> {
        if let Some(last) = self.activations.take() {
            self.device.drop(last);
        }
        // Steps without a graph have no padding, but memory of few sizes all the same.
        let tokens = all_sizes().find(|size| tokens <= *size).unwrap_or(tokens);
        let activations = self.device.alloc(tokens.max(1) * ACTIVATION, stream)?;
        let results = self.pinned.alloc(requests.max(1) * RESULT, stream)?;
        // A model would run here; a little work stands for it.
        for used in [activations.slice(..TOUCHED), results.slice(..TOUCHED)].into_iter().flatten() {
            used.fill(0, stream)?;
        }
        self.activations = Some(activations);
        Ok(Results(results))
    }

    /// Drops the results of a step.
    pub(super) fn read(&mut self, results: Results) {
        self.pinned.drop(results.0);
    }

    /// The memory that the pools have needed so far.
    pub(super) fn needed(&self) -> [MemoryPlan; 2] {
        [self.device.pool.plan(), self.pinned.pool.plan()]
    }

    pub(super) fn memory(&self) -> MemoryUse {
        MemoryUse { device: self.device.seen, pinned: self.pinned.seen }
    }
}

/// A pool, and what was asked of it.
struct Counted {
    pool: Pool,
    /// The pool's own counters when `seen` was brought up to date.
    counters: Option<ReclaimStats>,
    /// The blocks in use.
    blocks: u64,
    seen: KindUse,
}

impl Counted {
    fn new(pool: Pool) -> Self {
        Self { pool, counters: None, blocks: 0, seen: KindUse::default() }
    }

    fn alloc(&mut self, size: usize, stream: &Stream) -> Result<Buffer<u8>, AllocError> {
        let buffer = self.pool.alloc(size, stream)?;
        self.seen.live += size as u64;
        self.blocks += buffer.info().size as u64;
        if self.seen.live > self.seen.peak {
            (self.seen.peak, self.seen.peak_blocks) = (self.seen.live, self.blocks);
        }
        self.seen.allocations += 1;
        let counters = self.pool.stats();
        // Reading the slabs costs more than the allocation, so it is done only after a change.
        if self.counters != Some(counters) {
            self.seen.grown = counters.grown;
            self.seen.reserved = self.pool.slab_stats().reserved as u64;
            self.counters = Some(counters);
        }
        Ok(buffer)
    }

    fn drop(&mut self, buffer: Buffer<u8>) {
        self.seen.live -= buffer.len() as u64;
        self.blocks -= buffer.info().size as u64;
    }
}

/// Addresses for each pool, in bytes.
const SPAN: usize = 1 << 30;
/// Bytes of activations a token: 4096 numbers of two bytes.
const ACTIVATION: usize = 8192;
/// Bytes of results a request: a token and its 20 likeliest alternatives.
const RESULT: usize = 4 + 20 * 8;
/// Bytes of each buffer that the work in place of a model touches.
const TOUCHED: usize = 64;
