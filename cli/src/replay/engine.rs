//! The memory of an engine's steps: activations on the device, results in pinned memory; of a
//! server, blocks of keys and values beside the activations, and results by a set of outputs. What
//! PyTorch's allocators would have obtained for the same allocations goes along.

use std::collections::VecDeque;

use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, MemoryPlan, Pool, ReclaimStats};
use wharf::slab::AllocError;
use wharf::staging::Counts;
use wharf::{Context, Stream};

use super::results::{Fetched, ServerResults};
use super::{ReplayError, Settings, all_sizes};
use crate::schedule::{KV_BLOCK, Step};
use crate::torch::{Torch, TorchBlock};

/// Memory of a replay at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// Of the device.
    pub device: KindUse,
    /// Pinned.
    pub pinned: KindUse,
}

/// What steps allocate on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Activations, which are the next step's.
    #[default]
    Activations,
    /// Beside them, blocks of keys and values for every request until it ends; inputs are staged on
    /// a stream of their own, and the results of each step are fetched and read.
    Serving,
}

/// What an allocator by PyTorch's rules would have obtained for the device's allocations, in bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct TorchUse {
    /// The most at once.
    pub peak_reserved: u64,
    /// The most in blocks at once.
    pub peak_live: u64,
    /// How often it obtained memory.
    pub grown: u64,
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
    activations: Option<Held>,
    /// Blocks of keys and values, the oldest first; none but for a server.
    kv: Option<VecDeque<Held>>,
    /// Where a server's results are.
    results: Option<ServerResults>,
    /// Steps whose results have been read.
    read: u64,
    rules: [Rules; 2],
}

/// A buffer, and what stands for it in PyTorch's allocators.
struct Held {
    buffer: Buffer<u8>,
    blocks: [Option<TorchBlock>; 2],
}

/// An allocator by PyTorch's rules, beside the pool.
struct Rules {
    torch: Torch,
    used: TorchUse,
}

/// A step's results, kept as long as they may be read.
pub(super) enum Results {
    Buffer(Buffer<u8>),
    Fetched(Fetched),
}

impl Engine {
    /// Pools that have the blocks of `reserve` from the start.
    pub(super) fn new(
        context: &Context,
        stream: &Stream,
        settings: &Settings,
    ) -> Result<Self, ReplayError> {
        let Settings { keep_idle, memory, .. } = *settings;
        let is_server = memory == Workload::Serving;
        let span = if is_server { SERVING_SPAN } else { SPAN };
        let device = DeviceMemoryResource::new(context, span)?;
        let pinned = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default())?;
        let pool = |name| Pool::builder().name(name).keep_idle(keep_idle);
        let activations = pool(if is_server { "activations and blocks" } else { "activations" });
        let activations = activations.budget(&settings.budget).build(device)?;
        let pools = (activations, pool("results").build(pinned)?);
        // An earlier run knows the peak: growth during steps would be in the measured times.
        if let Some([device, pinned]) = &settings.reserve {
            pools.0.reserve(device, stream)?;
            pools.1.reserve(pinned, stream)?;
        }
        Ok(Self {
            device: Counted::new(pools.0),
            pinned: Counted::new(pools.1),
            activations: None,
            kv: is_server.then(VecDeque::new),
            results: is_server.then(|| ServerResults::new(context, settings)).transpose()?,
            read: 0,
            rules: [Torch::native(span), Torch::expandable(span)].map(Rules::new),
        })
    }

    /// Uses the memory of a step: activations, which the next step may overwrite in the order of
    /// the stream, results, which the host reads later, and blocks of a server's requests. `padded`
    /// are its tokens and requests with padding.
    pub(super) fn step(
        &mut self,
        number: u64,
        step: &Step,
        padded: Counts,
        stream: &Stream,
    ) -> Result<Results, ReplayError> {
        if let Some(last) = self.activations.take() {
            self.give(last);
        }
        self.hold(step.kv_blocks as usize, stream)?;
        // Steps without a graph have no padding, but memory of few sizes all the same.
        let tokens = all_sizes().find(|size| padded.tokens <= *size).unwrap_or(padded.tokens);
        let activations = self.take(tokens.max(1) * ACTIVATION, stream)?;
        // A model would run here; a little work stands for it.
        touch(&activations.buffer, stream)?;
        self.activations = Some(activations);
        if let Some(results) = &self.results {
            let requests = step.requests.max(1) as usize;
            return Ok(Results::Fetched(results.fetch(number, requests, stream)?));
        }
        let results = self.pinned.alloc(padded.requests.max(1) * RESULT, stream)?;
        touch(&results, stream)?;
        Ok(Results::Buffer(results))
    }

    /// Has as many blocks of keys and values as the running requests hold.
    fn hold(&mut self, blocks: usize, stream: &Stream) -> Result<(), ReplayError> {
        let Some(mut kv) = self.kv.take() else { return Ok(()) };
        while kv.len() > blocks
            && let Some(oldest) = kv.pop_front()
        {
            self.give(oldest);
        }
        let mut taken = Ok(());
        while kv.len() < blocks && taken.is_ok() {
            taken = self.take(KV_BYTES, stream).map(|held| kv.push_back(held));
        }
        self.kv = Some(kv);
        taken
    }

    fn take(&mut self, size: usize, stream: &Stream) -> Result<Held, ReplayError> {
        let buffer = self.device.alloc(size, stream)?;
        Ok(Held { buffer, blocks: self.rules.each_mut().map(|rules| rules.alloc(size)) })
    }

    fn give(&mut self, held: Held) {
        self.device.drop(held.buffer);
        for (rules, block) in self.rules.iter_mut().zip(held.blocks) {
            if let Some(block) = block {
                rules.torch.free(block);
            }
        }
    }

    /// What PyTorch's native allocator, and the one with expandable segments, would have obtained.
    pub(super) fn torch(&self) -> [TorchUse; 2] {
        self.rules.each_ref().map(|rules| rules.used)
    }

    /// Is done with the results of step `number`; how many bytes of them are wrong, where the
    /// device has written them and `verify`.
    pub(super) fn read(
        &mut self,
        results: Results,
        number: u64,
        verify: bool,
    ) -> Result<u64, ReplayError> {
        self.read += 1;
        match (results, &self.results) {
            (Results::Buffer(buffer), _) => self.pinned.drop(buffer),
            (Results::Fetched(fetched), Some(results)) if verify => {
                return results.mismatches(&fetched, number);
            }
            (Results::Fetched(_), _) => {}
        }
        Ok(0)
    }

    /// Steps whose results were fetched and have been read; none but for a server.
    pub(super) fn fetched(&self) -> Option<u64> {
        self.results.as_ref().map(|_| self.read)
    }

    /// The memory that the pools have needed so far.
    pub(super) fn needed(&self) -> [MemoryPlan; 2] {
        [self.device.pool.plan(), self.pinned.pool.plan()]
    }

    pub(super) fn memory(&self) -> MemoryUse {
        MemoryUse { device: self.device.seen, pinned: self.pinned.seen }
    }
}

impl Rules {
    fn new(torch: Torch) -> Self {
        Self { torch, used: TorchUse::default() }
    }

    /// All work on the device's memory is on one stream.
    fn alloc(&mut self, size: usize) -> Option<TorchBlock> {
        let block = self.torch.alloc(size, 0);
        let used = &mut self.used;
        used.peak_reserved = used.peak_reserved.max(self.torch.reserved() as u64);
        used.peak_live = used.peak_live.max(self.torch.live() as u64);
        used.grown = self.torch.calls().0 as u64;
        block
    }
}

/// A little work in place of a model's.
fn touch(buffer: &Buffer<u8>, stream: &Stream) -> Result<(), ReplayError> {
    buffer.slice(..TOUCHED).map_or(Ok(()), |part| part.fill(0, stream))?;
    Ok(())
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
/// Addresses for the device's pool of a server.
const SERVING_SPAN: usize = 1 << 36;
/// Bytes of a block of keys and values: a kibibyte a token, a small part of a model's, so that the
/// memory of a trace fits softcuda.
const KV_BYTES: usize = (KV_BLOCK as usize) << 10;
/// Bytes of activations a token: 4096 numbers of two bytes.
const ACTIVATION: usize = 8192;
/// Bytes of results a request: a token and its 20 likeliest alternatives.
const RESULT: usize = 4 + 20 * 8;
/// Bytes of each buffer that the work in place of a model touches.
const TOUCHED: usize = 64;
