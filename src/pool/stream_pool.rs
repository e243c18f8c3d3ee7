//! The pool as its users see it.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::core::{Core, Shared};
use super::drain::Which;
use super::element::Element;
use super::error::{LeakReport, RawError};
use super::info::BufferInfo;
use super::options::PoolBuilder;
use super::raw::RawBuffer;
use super::stats::ReclaimStats;
use crate::memory::MemoryKind;
use crate::slab::{AllocError, PoolStats, SlabInfo, Trimmed};
use crate::stream::Stream;

/// A pool of memory of one kind, reused in the order of streams.
///
/// Cheap to clone; the clones are one pool. May be used from any thread. A pool that is dropped while
/// buffers are alive goes with the last of them.
///
/// # Examples
///
/// See [`Buffer`].
#[derive(Clone, Debug)]
pub struct Pool {
    core: Shared,
}

impl Pool {
    /// Options, to [build](PoolBuilder::build) a pool with.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    pub(super) fn with(core: Core) -> Self {
        Self { core: Arc::new(core) }
    }

    pub(super) fn core(&self) -> &Shared {
        &self.core
    }

    /// Allocates `len` elements for use on `stream` first, aligned to at least 256 bytes.
    ///
    /// What is in them is not defined. Where the stream has dropped a buffer of that size before, this
    /// takes no lock and makes no driver call. In order of preference it takes what the stream itself
    /// used last, what the device is past, what the pool can grow by, and at the limit what another
    /// stream still uses: `stream` then waits for that on the device.
    ///
    /// # Errors
    ///
    /// * [`AllocError::Exhausted`]: the limit is reached, and nothing could be reclaimed.
    /// * [`AllocError::TooLarge`]: larger than the span or the limit.
    /// * [`AllocError::Upstream`]: the driver refused, or has lost the context: after a fault of the
    ///   device nothing is reused.
    #[inline]
    #[track_caller]
    pub fn alloc<T: Element>(&self, len: usize, stream: &Stream) -> Result<Buffer<T>, AllocError> {
        let Some(size) = len.checked_mul(size_of::<T>()) else {
            return Err(AllocError::TooLarge { size: usize::MAX, max: self.core.upstream.stats().limit });
        };
        let index = self.core.alloc(size, stream, Location::caller())?;
        Ok(Buffer::new(Arc::clone(&self.core), index, 0, len))
    }

    /// Gives retired blocks that the device is done with back to the slabs, and slabs that have been
    /// empty for `idle` back to the resource, but for `keep` bytes of them.
    ///
    /// Calls the driver; does not wait for the device.
    pub fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        if let Some(turn) = self.core.turn() {
            self.core.drain(&turn, Which::All, None);
        }
        self.core.upstream.trim(idle, keep)
    }

    /// What the slabs hold. Retired blocks count as live there, see [`retired`](Self::retired).
    pub fn slab_stats(&self) -> PoolStats {
        self.core.upstream.stats()
    }

    /// Bytes of blocks that nobody holds, and that are free for one stream only or wait for the device.
    pub fn retired(&self) -> usize {
        self.core.retired()
    }

    /// Where memory came from so far.
    pub fn stats(&self) -> ReclaimStats {
        self.core.counters.read()
    }

    /// All slabs and runs of large blocks.
    pub fn slabs(&self) -> Vec<SlabInfo> {
        self.core.upstream.slabs()
    }

    /// Where the memory lies: the start of the span, and its length in bytes.
    pub fn span(&self) -> (u64, usize) {
        self.core.upstream.span()
    }

    /// The name that the pool was given.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The kind of memory.
    pub fn kind(&self) -> MemoryKind {
        self.core.upstream.kind()
    }

    /// The device whose memory it is, or that it is registered with.
    pub fn ordinal(&self) -> Option<i32> {
        self.core.upstream.ordinal()
    }

    /// Every block that is somebody's, or retired.
    pub fn blocks(&self) -> Vec<BufferInfo> {
        let records = self.core.records.all().filter(|(_, record)| record.size() > 0);
        records.map(|(index, _)| BufferInfo::of(&self.core, index)).collect()
    }

    /// What became of the block of a bare handle, whether or not that was taken back.
    ///
    /// # Errors
    ///
    /// * [`RawError::WrongPool`]: it is another pool's.
    /// * [`RawError::Stale`]: the block's record is in a later life.
    pub fn inspect(&self, raw: RawBuffer) -> Result<BufferInfo, RawError> {
        raw.inspect(&self.core)
    }

    /// Takes a handle back that [`Buffer::into_raw`] made.
    ///
    /// # Errors
    ///
    /// * [`RawError::WrongPool`]: it is another pool's.
    /// * [`RawError::Stale`]: it was taken back before.
    pub fn take_raw(&self, raw: RawBuffer) -> Result<Buffer<u8>, RawError> {
        raw.take(&self.core)
    }

    /// Waits for all retired blocks, for at most `limit`, gives everything back and says which buffers
    /// are still alive. Those stay valid, and the memory goes with the last of them.
    ///
    /// # Errors
    ///
    /// [`LeakReport`]: the live buffers.
    pub fn close(self, limit: Duration) -> Result<(), LeakReport> {
        let start = Instant::now();
        while let Ok(true) = self.core.wait_for_one(limit.saturating_sub(start.elapsed())) {}
        self.trim(Duration::ZERO, 0);
        let mut buffers = self.blocks();
        buffers.retain(|buffer| buffer.handles > 0);
        if buffers.is_empty() { Ok(()) } else { Err(LeakReport { buffers }) }
    }
}
