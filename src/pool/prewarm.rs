//! Blocks that are ready before they are asked for.

use super::buffer::Buffer;
use super::plan::{BlocksOfSize, MemoryPlan};
use super::stream_pool::Pool;
use crate::forecast::{Change, WarmSet};
use crate::profile::range;
use crate::slab::{AllocError, SizeClass};
use crate::stream::Stream;

/// Keeps blocks of the sizes that a forecast names ready in a pool.
///
/// They have no owner: an allocation on the stream gets them, without a lock and without growth.
/// They are bounded by the room of the [`WarmSet`], and given back to the slabs when the forecast
/// changes. Blocks that are not forecast stay with their stream as always.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::forecast::{ContextModel, WarmSet};
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Pool, BlockPrewarm};
///
/// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let mut prewarm = BlockPrewarm::new(&pool, WarmSet::new(ContextModel::new(), 4).ahead(2));
/// for size in [1 << 20, 3 << 20].repeat(20) {
///     drop(pool.alloc::<u8>(size, &stream)?);
///     prewarm.record_usage(size, &stream)?;
/// }
/// assert!(prewarm.warm().stats().missed <= 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "PredictiveBufferManager")]
pub struct BlockPrewarm {
    pool: Pool,
    warm: WarmSet,
    blocks: usize,
}

impl BlockPrewarm {
    /// Keeps blocks of the sizes in `warm` ready in `pool`, one of each.
    pub fn new(pool: &Pool, warm: WarmSet) -> Self {
        Self { pool: pool.clone(), warm, blocks: 1 }
    }

    /// Keeps so many blocks of each size ready.
    #[must_use]
    pub fn blocks(self, blocks: usize) -> Self {
        Self { blocks, ..self }
    }

    /// Takes note that `size` bytes were allocated on `stream`, gives back blocks of sizes that
    /// have no room any more, and makes those that are forecast. Does not wait.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`]: the driver refused a block; the next call tries again. That the
    /// pool's limit leaves no room is no error: then there are fewer blocks.
    pub fn record_usage(&mut self, size: usize, stream: &Stream) -> Result<(), AllocError> {
        let Self { pool, warm, blocks } = self;
        warm.record_usage(number(size));
        warm.rearrange(|change| match change {
            Change::Make(number) => pool.prewarm(bytes(number), *blocks, stream).map(drop),
            Change::GiveBack(number) => pool.give_back(bytes(number), stream).map(drop),
        })
    }

    /// Gives back all blocks that are ready.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`]: the stream is of no use any more.
    pub fn clear(&mut self, stream: &Stream) -> Result<(), AllocError> {
        let Self { pool, warm, .. } = self;
        warm.clear(|change| match change {
            Change::Make(_) => Ok(()),
            Change::GiveBack(number) => pool.give_back(bytes(number), stream).map(drop),
        })
    }

    /// Reclaim sizes are ready, in units of 256 bytes, and what became of them.
    pub fn warm(&self) -> &WarmSet {
        &self.warm
    }
}

impl Pool {
    /// Makes up to `count` blocks for `size` bytes ready for the next allocations of that size on
    /// `stream`. Returns how many there are; fewer where the limit leaves no room.
    ///
    /// Free blocks are used first; may grow the pool, and does not wait for the device.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`], [`AllocError::TooLarge`]: as [`alloc`](Self::alloc). Blocks that
    /// are ready by then stay.
    pub fn prewarm(&self, size: usize, count: usize, stream: &Stream) -> Result<usize, AllocError> {
        let mut ready = Vec::new();
        self.ready(size, count, stream, &mut ready)?;
        Ok(ready.len())
    }

    /// Adds up to `count` blocks to those that are being made ready; they are when all are dropped.
    fn ready(
        &self,
        size: usize,
        count: usize,
        stream: &Stream,
        ready: &mut Vec<Buffer<u8>>,
    ) -> Result<(), AllocError> {
        for _ in 0..count {
            let Some(index) = self.core.ready(size, stream)? else { break };
            ready.push(Buffer::begun(&self.core, self.core.records.get(index), 0, size));
        }
        Ok(())
    }

    /// Gives retired blocks of this size on `stream` that the device is past back to the slabs,
    /// where they are free for other sizes. Returns how many.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`]: the stream cannot be used.
    pub fn give_back(&self, size: usize, stream: &Stream) -> Result<usize, AllocError> {
        self.core.give_back_size(size, stream)
    }

    /// What this pool needed so far: the most blocks of each size that it had at once, and the most
    /// memory.
    pub fn plan(&self) -> MemoryPlan {
        self.core.peaks.plan().reserving(self.slab_stats().peak_reserved)
    }

    /// Commits what a plan [reserves](MemoryPlan::reserved), for `stream` first, as far as the
    /// pool's limit goes. Returns how many bytes are ready.
    ///
    /// A run that needs the same then makes no call for memory. The largest blocks of the plan are
    /// made ready as long as they fit, and small ones, and the rest in granules: what a stream has
    /// retired serves its requests of every size.
    ///
    /// # Errors
    ///
    /// As [`prewarm`](Self::prewarm).
    pub fn reserve(&self, plan: &MemoryPlan, stream: &Stream) -> Result<usize, AllocError> {
        let _range = range!("pool::reserve", plan.size());
        let mut ready = Vec::new();
        let left = || plan.reserved().saturating_sub(self.slab_stats().reserved);
        let granule = self.core.upstream.resource().granularity();
        let is_small = |blocks: &BlocksOfSize| SizeClass::shared(blocks.size).is_some();
        let (small, large): (Vec<_>, Vec<_>) = plan.blocks().partition(is_small);
        let slabs = |ready: &mut Vec<_>| {
            small.iter().try_for_each(|of| self.ready(of.size, of.count, stream, ready))
        };
        // Slabs have memory of their own where that is an eighth at most. In a smaller pool they
        // find room beside large blocks. All are held together: what one had made ready would
        // serve the next.
        let are_apart = plan.reserved() / 8 >= granule;
        if are_apart {
            slabs(&mut ready)?;
        }
        for BlocksOfSize { size, count } in large {
            self.ready(size, count.min(left() / size), stream, &mut ready)?;
        }
        if !are_apart {
            slabs(&mut ready)?;
        }
        self.ready(granule, left() / granule, stream, &mut ready)?;
        Ok(ready.iter().map(Buffer::len).sum())
    }
}

/// The number that stands for a size: sizes of one class have one.
fn number(size: usize) -> u32 {
    let size = SizeClass::of(size).map_or(size, SizeClass::block_size);
    u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// The size that a number stands for, in bytes.
fn bytes(number: u32) -> usize {
    number as usize * UNIT
}

/// The unit of sizes in a forecast, in bytes: blocks are multiples of it.
const UNIT: usize = 256;
