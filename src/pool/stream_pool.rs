//! The pool as its users see it.

use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::core::Core;
use super::error::RawError;
use super::info::BufferInfo;
use super::parked::Open;
use super::raw::RawBuffer;
use super::stats::ReclaimStats;
use crate::element::Element;
use crate::memory::{MemoryKind, PhysicalMemory};
use crate::slab::{AllocError, PoolStats, SlabInfo, Trimmed};
use crate::stream::Stream;

/// A pool of memory of one kind, reused in the order of streams.
///
/// Cheap to clone; the clones are one pool. May be used from any thread. A pool that is dropped
/// while buffers are alive goes with the last of them.
///
/// # Drop
///
/// What ends a pool, the last clone or the last buffer, gives the memory back, by calls to the
/// driver. It waits for the device to finish with the buffers that were dropped before, for at most
/// ten seconds in all, and not at all for a stream that cannot say how far it is: one that is being
/// captured, that was forgotten, or that is the per-thread default stream of another thread. Blocks
/// in use after that are leaked, with the granules they lie in, which is counted in
/// [`Context::drop_errors`](crate::Context::drop_errors) and told to the hook of
/// [`Driver::on_drop_error`](crate::Driver::on_drop_error) as
/// [`Error::Leaked`](crate::Error::Leaked). To set the limit, and to be told, call
/// [`close`](Self::close).
///
/// A callback of a stream must not call the driver, so it must not end a pool: all of its memory
/// would be leaked. Keep a clone of the pool elsewhere while buffers go to callbacks.
///
/// # Examples
///
/// See [`Buffer`].
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) core: Arc<Core>,
    pub(super) open: Arc<Open>,
}

impl Pool {
    pub(super) fn with(core: Core) -> Self {
        let core = Arc::new(core);
        Self { open: Arc::new(Open(Arc::clone(&core))), core }
    }

    /// Allocates `len` elements for use on `stream` first, aligned to at least 256 bytes.
    ///
    /// Their contents are undefined. Where the stream has dropped a buffer of that size before,
    /// this takes no lock and makes no driver call. In order of preference it takes what the stream
    /// itself used last, what the device is past, what the pool can grow by, and at the limit what
    /// another stream still uses: `stream` then waits for that on the device.
    ///
    /// # Errors
    ///
    /// * [`AllocError::Exhausted`]: the limit is reached, or the driver has no memory left, which
    ///   is the [cause](crate::slab::Exhaustion::cause) then, and nothing could be reclaimed. So is
    ///   a size between the limit and the span's length, for which no room comes.
    /// * [`AllocError::TooLarge`]: larger than the span.
    /// * [`AllocError::Upstream`] with [`Error::OtherThread`](crate::Error::OtherThread),
    ///   [`OtherDevice`](crate::Error::OtherDevice) or
    ///   [`StreamForgotten`](crate::Error::StreamForgotten): the calling thread must not use the
    ///   stream, its device does not reach the memory, or it is gone; with
    ///   [`TooManyStreams`](crate::Error::TooManyStreams): 4096 streams use the pool at a time.
    /// * [`AllocError::Upstream`]: the driver refused, or has lost the context: after a fault of
    ///   the device nothing is reused.
    #[inline]
    #[track_caller]
    pub fn alloc<T: Element>(&self, len: usize, stream: &Stream) -> Result<Buffer<T>, AllocError> {
        let kept = match len.checked_mul(size_of::<T>()) {
            Some(size) => self.core.alloc_kept(size, stream),
            None => None,
        };
        match kept {
            Some((_, record)) => Ok(Buffer::begun(&self.core, record, 0, len)),
            None => self.alloc_slow(len, stream, Location::caller()),
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow<T: Element>(
        &self,
        len: usize,
        stream: &Stream,
        site: &'static Location<'static>,
    ) -> Result<Buffer<T>, AllocError> {
        let Some(size) = len.checked_mul(size_of::<T>()) else {
            let max = self.core.upstream.stats().limit;
            return Err(AllocError::TooLarge { size: usize::MAX, max });
        };
        let (_, record) = self.core.alloc_slow(size, stream, site)?;
        Ok(Buffer::begun(&self.core, record, 0, len))
    }

    /// Gives retired blocks that the device is done with back to the slabs, and slabs that have
    /// been empty for `idle` back to the resource, but for `keep` bytes of them.
    ///
    /// A stream whose blocks have no marker behind them gets one now, and they are given back by a
    /// later call. So after a synchronisation that this crate did not make, such as the caller's
    /// own
    /// `cuStreamSynchronize`, the first call may give back nothing; call [`Stream::synchronize`]
    /// instead, or this twice.
    ///
    /// Calls the driver; does not wait for the device.
    pub fn trim(&self, idle: Duration, keep: usize) -> Trimmed {
        self.core.drain_all();
        self.core.upstream.trim(idle, keep)
    }

    /// What the slabs hold. Retired blocks count as live there, see [`retired`](Self::retired).
    pub fn slab_stats(&self) -> PoolStats {
        self.core.upstream.stats()
    }

    /// Bytes of blocks without a handle, which are free for one stream only or wait for the device.
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

    /// The addresses of the pool's span.
    pub fn span(&self) -> Range<u64> {
        let resource = self.core.upstream.resource();
        resource.base()..resource.base() + resource.size() as u64
    }

    /// The name that the pool was given.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The kind of memory.
    pub fn kind(&self) -> MemoryKind {
        self.core.kind
    }

    /// The device whose memory it is, or that it is registered with.
    pub fn ordinal(&self) -> Option<i32> {
        self.core.upstream.resource().ordinal()
    }

    /// The physical memory that the pool takes from, at this moment: the device's, as the driver
    /// tells, with what others have of it. `None` where it is not known.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemGetInfo")]
    pub fn physical_memory(&self) -> Option<PhysicalMemory> {
        self.core.upstream.resource().physical_memory()
    }

    /// Every block that has a handle or is retired.
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

    /// Whether a buffer is of this pool.
    pub fn owns(&self, buffer: &Buffer<u8>) -> bool {
        Arc::ptr_eq(&self.core, buffer.core())
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
}
