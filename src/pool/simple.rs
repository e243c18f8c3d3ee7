//! A pool that holds at most so many buffers.

use std::fmt::Debug;
use std::sync::Arc;

use super::buffer::Buffer;
use super::buffer_pool::{AllocateError, BufferPool, NotOurs};
use super::core::Core;
use super::record::Record;
use super::spec::BufferSpec;
use super::stream_pool::Pool;
use crate::lockfree::buffer_state::Phase;
use crate::memory::MemoryResource;
use crate::slab::PoolError;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{thread, try_update};

/// A pool of at most so many buffers, held and kept together.
///
/// A buffer that is released is kept for the next of its size class. When there are as many as there may
/// be, the one that was released first is given up, if the device is past its last use; one that the
/// device still reads is not.
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
/// use wharf::memory::{DeviceMemoryResource, MemoryKind};
/// use wharf::pool::{BufferPool, BufferSpec, DType, SimplePool};
///
/// let pool = SimplePool::new(DeviceMemoryResource::new(&context, 1 << 30)?, 1)?;
/// let spec = |len| BufferSpec::new(&[len], DType::F32, MemoryKind::Device);
/// let first = pool.allocate(&spec(1000)?, &stream)?;
/// assert!(pool.allocate(&spec(1000)?, &stream).is_err());
/// pool.release(first)?;
/// // The first one is given up for it.
/// let second = pool.allocate(&spec(100_000)?, &stream)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "SimpleBufferPool")]
pub struct SimplePool(Pool);

impl SimplePool {
    /// A pool of at most `max_buffers`.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`](super::PoolBuilder::build).
    pub fn new<R: MemoryResource + Debug + 'static>(
        resource: R,
        max_buffers: usize,
    ) -> Result<Self, PoolError> {
        Pool::builder().max_buffers(max_buffers).build(resource).map(Self)
    }

    /// The pool, with all it can do besides.
    pub fn pool(&self) -> &Pool {
        &self.0
    }
}

impl BufferPool for SimplePool {
    type Buffer = Buffer<u8>;

    #[track_caller]
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Buffer<u8>, AllocateError> {
        self.0.allocate(spec, stream)
    }

    fn release(&self, buffer: Buffer<u8>) -> Result<(), NotOurs> {
        self.0.release(buffer)
    }

    fn clear(&self) {
        self.0.clear();
    }
}

/// How many blocks a pool has, and may have.
///
/// | word | written by | read by | orderings |
/// |---|---|---|---|
/// | `blocks` | `admit` (CAS), `dismiss` | `admit` | Relaxed: the number itself is the fact |
/// | `clock` | `stamp` | | Relaxed: order of releases, as good as it gets between threads |
#[derive(Debug)]
pub(super) struct Census {
    max: Option<u64>,
    blocks: AtomicU64,
    clock: AtomicU64,
}

impl Census {
    pub(super) fn new(max: Option<usize>) -> Self {
        Self { max: max.map(|max| max as u64), blocks: AtomicU64::new(0), clock: AtomicU64::new(0) }
    }

    /// The most blocks there may be.
    pub(super) fn max(&self) -> Option<u64> {
        self.max
    }

    /// Counts one block more; not if there are as many as there may be.
    pub(super) fn admit(&self) -> bool {
        let Some(max) = self.max else { return true };
        try_update(&self.blocks, Relaxed, |blocks| if blocks < max { Ok(blocks + 1) } else { Err(()) })
            .is_ok()
    }

    /// Counts one block less.
    pub(super) fn dismiss(&self) {
        if self.max.is_some() {
            self.blocks.fetch_sub(1, Relaxed);
        }
    }

    /// The moment of a release.
    #[inline]
    pub(super) fn stamp(&self, record: &Record) {
        if self.max.is_some() {
            record.stamp.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        }
    }
}

impl Core {
    /// Counts one block more, for which others are given up where need be; whether there may be one.
    pub(super) fn admit(&self) -> bool {
        loop {
            if self.census.admit() {
                return true;
            }
            if !self.evict() {
                return false;
            }
        }
    }

    /// Gives up the block that was released first of those that the device is past; whether there was
    /// one, or somebody else has made room.
    fn evict(&self) -> bool {
        let Some(turn) = self.turn() else {
            thread::yield_now();
            return true;
        };
        let is_kept = |record: &Record| record.state.load().phase() == Phase::Retired && record.size() > 0;
        let kept = self.records.all().filter(|(_, record)| is_kept(record) && self.is_idle(record));
        let Some((index, record)) = kept.min_by_key(|(_, record)| record.stamp.load(Relaxed)) else {
            return false;
        };
        let lists = self.lanes.all().map(|(_, lane)| &lane.lists[record.list()]).chain([&self.mixed]);
        let mut lists = lists.into_iter();
        if lists.any(|list| self.take_first(&turn, list, |at| at == index).is_some()) {
            self.give_back(index, record);
        }
        // Otherwise somebody has just taken it: look again.
        true
    }
}

impl Pool {
    /// Whether a buffer is of this pool.
    pub fn owns(&self, buffer: &Buffer<u8>) -> bool {
        Arc::ptr_eq(self.core(), buffer.core())
    }
}
