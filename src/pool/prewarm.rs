//! Blocks that are ready before they are asked for.

use std::panic::Location;
use std::sync::Arc;

use super::buffer::Buffer;
use super::core::{Core, Request};
use super::plan::MemoryPlan;
use super::record::LARGE_LIST;
use super::stream_pool::Pool;
use crate::forecast::{Change, WarmSet};
use crate::profile::range;
use crate::slab::{AllocError, SizeClass};
use crate::stream::Stream;

/// Keeps blocks of the sizes that a forecast names ready in a pool.
///
/// They are nobody's: whoever allocates on the stream has them, without a lock and without growth. They are
/// bounded by the room of the [`WarmSet`], and given back to the slabs when the forecast changes. Blocks
/// that are not forecast stay with their stream as always.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::forecast::{ContextModel, WarmSet};
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Pool, Prewarm};
///
/// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let mut prewarm = Prewarm::new(&pool, WarmSet::new(ContextModel::new(), 4).ahead(2));
/// for size in [1 << 20, 3 << 20].repeat(20) {
///     drop(pool.alloc::<u8>(size, &stream)?);
///     prewarm.record_usage(size, &stream)?;
/// }
/// assert!(prewarm.warm().stats().missed <= 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "PredictiveBufferManager")]
pub struct Prewarm {
    pool: Pool,
    warm: WarmSet,
    blocks: usize,
}

impl Prewarm {
    /// Keeps blocks of the sizes in `warm` ready in `pool`, one of each.
    pub fn new(pool: &Pool, warm: WarmSet) -> Self {
        Self { pool: pool.clone(), warm, blocks: 1 }
    }

    /// Keeps so many blocks of each size ready.
    #[must_use]
    pub fn blocks(self, blocks: usize) -> Self {
        Self { blocks, ..self }
    }

    /// Takes note that `size` bytes were allocated on `stream`, gives back blocks of sizes that have no
    /// room any more, and makes those that are forecast. Does not wait.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`]: the driver refused a block; the next call tries again. That the pool's limit
    /// leaves no room is no error: then there are fewer blocks.
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

    /// Which sizes are ready, in units of 256 bytes, and what became of them.
    pub fn warm(&self) -> &WarmSet {
        &self.warm
    }
}

impl Pool {
    /// Makes up to `count` blocks for `size` bytes ready for `stream`: nobody's, and the stream's next
    /// allocations of that size. How many there are; fewer where the limit leaves no room.
    ///
    /// What is free is used first; may grow the pool, and does not wait for the device.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`], [`AllocError::TooLarge`]: as [`alloc`](Self::alloc). What is ready by then stays.
    pub fn prewarm(&self, size: usize, count: usize, stream: &Stream) -> Result<usize, AllocError> {
        let mut ready: Vec<Buffer<u8>> = Vec::new();
        while ready.len() < count {
            let Some(index) = self.core().ready(size, stream)? else { break };
            ready.push(Buffer::new(Arc::clone(self.core()), index, 0, size));
        }
        Ok(ready.len())
    }

    /// Gives blocks of this size that nobody holds on `stream`, and the device is past, back to the slabs, where
    /// they are free for other sizes; how many.
    ///
    /// # Errors
    ///
    /// [`AllocError::Upstream`]: the stream cannot be used.
    pub fn give_back(&self, size: usize, stream: &Stream) -> Result<usize, AllocError> {
        self.core().give_back_size(size, stream)
    }

    /// What this pool needed so far: the most blocks of each size that it had at once.
    pub fn plan(&self) -> MemoryPlan {
        self.core().peaks.plan()
    }

    /// Makes the blocks of a plan ready for `stream`, largest first, as far as the pool's limit goes; how many bytes.
    ///
    /// A run that needs no more of any size then makes no call for memory.
    ///
    /// # Errors
    ///
    /// As [`prewarm`](Self::prewarm).
    pub fn reserve(&self, plan: &MemoryPlan, stream: &Stream) -> Result<usize, AllocError> {
        let _range = range!("wharf::pool::reserve", plan.size());
        let mut bytes = 0;
        for (size, count) in plan.blocks() {
            bytes += size * self.prewarm(size, count, stream)?;
        }
        Ok(bytes)
    }
}

impl Core {
    /// A block for `stream`, from what it has, what is free, or growth; `None` if the limit leaves no room.
    fn ready(&self, size: usize, stream: &Stream) -> Result<Option<u32>, AllocError> {
        let request = self.request(size, stream)?;
        let kept = if request.list == LARGE_LIST {
            self.pop_large(request.lane, size)
        } else {
            self.lanes.get(request.lane).lists[request.list].pop(|index| self.records.link(index))
        };
        if let Some(index) = kept {
            self.begin_behind(index, request.lane, size);
        }
        let index = match kept {
            Some(index) => index,
            None => match self.upstream.alloc(request.size).and_then(|raw| self.adopt(raw, &request)) {
                Ok(index) => index,
                Err(AllocError::Exhausted(_) | AllocError::TooMany { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if let Some(track) = &self.track {
            track.note(index, Location::caller());
        }
        Ok(Some(index))
    }

    /// Gives complete blocks of a size that only `stream` has used back to the slabs; how many.
    fn give_back_size(&self, size: usize, stream: &Stream) -> Result<usize, AllocError> {
        let request = self.request(size, stream)?;
        // Somebody else has the lists in hand, and looks for blocks to give back.
        let Some(turn) = self.turn() else { return Ok(0) };
        let list = &self.lanes.get(request.lane).lists[request.list];
        let mut count = 0;
        let is_wanted = |index| {
            let record = self.records.get(index);
            (request.list != LARGE_LIST || self.fits(index, size)) && self.is_idle(record)
        };
        while let Some(index) = self.take_first(&turn, list, is_wanted) {
            self.give_back(index, self.records.get(index));
            count += 1;
        }
        Ok(count)
    }

    /// What an allocation of `size` bytes for `stream` asks for.
    fn request<'a>(&self, size: usize, stream: &'a Stream) -> Result<Request<'a>, AllocError> {
        let timeline = stream.timeline()?;
        if timeline.is_forked() {
            return Err(crate::error::Error::Forked.into());
        }
        self.check_fault()?;
        let class = SizeClass::of(size);
        Ok(Request {
            asked: size,
            size: class.map_or(size, SizeClass::block_size),
            list: class.map_or(LARGE_LIST, SizeClass::index),
            lane: self.lane(timeline)?,
            stream,
            timeline,
        })
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
