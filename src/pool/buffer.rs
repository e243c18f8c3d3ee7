//! A buffer: a typed piece of a block that somebody holds.

#![expect(unsafe_code, reason = "hands out addresses; makes slices of host memory")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_sys::bindings::CUdeviceptr;

use super::core::Shared;
use super::element::Element;
use super::error::HostError;
use super::info::BufferInfo;
use super::record::{Record, Use};
use crate::error::{CudaError, Error};
use crate::memory::MemoryKind;
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::{Timeline, WaitError};

/// Elements of a pool's memory, held by one owner, or by several as pieces of one block.
///
/// Dropping it never waits and never frees too early: the stream that used it may have the memory
/// at once, others when the device is past its last use. The copies and fills here note their uses
/// themselves; who uses the address otherwise [records](Self::record_use) it.
///
/// It may be sent to and dropped on any thread, and keeps the pool's memory alive.
///
/// # Graphs
///
/// A graph that was captured or built with a buffer's address uses the memory at every launch. Keep the
/// buffer as long as the graph.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Buffer, Pool};
/// use wharf::{Context, Stream};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let pool = Pool::builder().max_bytes(64 << 20).build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let ids: Buffer<i32> = pool.alloc(4, &stream)?;
/// ids.copy_from_slice(&[3, 1, 4, 1], &stream)?;
/// let mut back = [0; 4];
/// ids.copy_to_slice(&mut back, &stream)?;
/// assert_eq!(back, [3, 1, 4, 1]);
/// drop(ids);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Buffer<T: Element> {
    core: Shared,
    index: u32,
    /// Where the elements start in the block, in bytes.
    offset: usize,
    len: usize,
    elements: PhantomData<fn() -> T>,
}

impl<T: Element> Buffer<T> {
    /// The one handle of a record's life, or one that was counted.
    pub(super) fn new(core: Shared, index: u32, offset: usize, len: usize) -> Self {
        Self { core, index, offset, len, elements: PhantomData }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The size of the elements, in bytes.
    pub fn size(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The kind of memory.
    pub fn kind(&self) -> MemoryKind {
        self.core.upstream.kind()
    }

    /// The state of the block that the elements lie in.
    pub fn info(&self) -> BufferInfo {
        BufferInfo::of(&self.core, self.index)
    }

    /// The device's address of the first element.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: the device does not see all elements, as a
    /// file that could not be registered.
    ///
    /// # Safety
    ///
    /// Whoever submits work with the address, in whatever way,
    ///
    /// * calls [`record_use`](Self::record_use) with its stream afterwards and before the buffer is
    ///   dropped;
    /// * calls [`acquire`](Self::acquire) before, unless the stream is the one that the buffer was
    ///   allocated for, or waits for that one;
    /// * keeps the buffer as long as a graph that names the address.
    pub unsafe fn as_device_ptr(&self) -> Result<CUdeviceptr, Error> {
        self.device_address()
    }

    /// Notes that work on `stream`, submitted by now, uses the buffer.
    ///
    /// Makes no driver call, except for the first use by a stream beyond 8 at once, which then waits on
    /// the device for one of the others.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the use could not be noted; the memory is leaked when the buffer is dropped.
    #[inline]
    #[doc(alias = "mark_in_use")]
    pub fn record_use(&self, stream: &Stream) -> Result<(), Error> {
        let noted = self.lane(stream).and_then(|(lane, timeline)| self.note(lane, timeline, stream));
        noted.inspect_err(|_| self.core.lose(self.record()))
    }

    /// Makes work submitted to `stream` from here on wait, on the device, for what earlier owners of
    /// the memory have submitted. No driver call where nothing is left of that, and none for the stream
    /// that the buffer was allocated for.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_ISOLATION`]: one of the streams is being
    /// captured.
    pub fn acquire(&self, stream: &Stream) -> Result<(), Error> {
        let (lane, _) = self.lane(stream)?;
        self.order(lane, stream)
    }

    /// Whether the device is known to be past all uses.
    pub fn is_idle(&self) -> bool {
        self.core.is_idle(self.record())
    }

    /// Waits until the device is past all uses, for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`](crate::timeline::Ticket::wait).
    pub fn wait(&self, limit: Duration) -> Result<(), WaitError> {
        let start = Instant::now();
        for of in self.record().uses() {
            let Some(timeline) = self.core.lanes.get(of.lane).timeline() else { continue };
            timeline.wait(of.ticket, limit.saturating_sub(start.elapsed()))?;
        }
        Ok(())
    }

    /// The elements for the host, when the device is past all uses; waits for that at most `limit`.
    ///
    /// # Errors
    ///
    /// * [`HostError::Kind`]: the host does not reach this kind of memory.
    /// * [`HostError::Shared`]: there are other handles to the block.
    /// * [`HostError::Busy`]: the device is not done.
    pub fn host_mut(&mut self, limit: Duration) -> Result<&mut [T], HostError> {
        let kind = self.kind();
        if !matches!(kind, MemoryKind::Pinned | MemoryKind::Managed | MemoryKind::FileMapped) {
            return Err(HostError::Kind(kind));
        }
        if self.record().state.load().handles() != 1 {
            return Err(HostError::Shared);
        }
        self.wait(limit).map_err(HostError::Busy)?;
        let start = usize::try_from(self.host_address()).unwrap_or(0);
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: committed memory of a kind that the host reaches, at least `len` elements from
        // here on, aligned to 256 or a multiple of the element's size; every pattern of bits is a
        // value. The device is past all uses that were noted, and a new one needs the buffer, which
        // this borrows as its only handle.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, self.len) })
    }

    /// A handle to some of the elements, which keeps the whole block.
    ///
    /// `None` if the range is not within the buffer.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Option<Self> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1)?,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        if start > end || end > self.len {
            return None;
        }
        self.record().state.share().ok()?;
        let offset = self.offset + start * size_of::<T>();
        Some(Self::new(Arc::clone(&self.core), self.index, offset, end - start))
    }

    /// The same bytes as elements of another type; the buffer comes back if they are not a whole number
    /// of aligned ones.
    ///
    /// # Errors
    ///
    /// The buffer.
    pub fn cast<U: Element>(self) -> Result<Buffer<U>, Self> {
        let size = size_of::<U>();
        if !self.size().is_multiple_of(size) || !self.offset.is_multiple_of(size) {
            return Err(self);
        }
        let len = self.size() / size;
        let (core, index, offset, _) = self.into_parts();
        Ok(Buffer::new(core, index, offset, len))
    }

    /// The core, record, offset and length, with the handle.
    pub(super) fn into_parts(self) -> (Shared, u32, usize, usize) {
        let (index, offset, len) = (self.index, self.offset, self.len);
        let core = Arc::clone(&self.core);
        // One handle more, for the caller; the one of `self` ends here.
        let shared = self.record().state.share();
        debug_assert!(shared.is_ok(), "{shared:?}");
        (core, index, offset, len)
    }

    pub(super) fn core(&self) -> &Shared {
        &self.core
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The host's address of the first element, where there is one.
    pub(crate) fn host_address(&self) -> u64 {
        self.record().address.load(Relaxed) + self.offset as u64
    }

    pub(crate) fn device_address(&self) -> Result<u64, Error> {
        let address = self.host_address();
        if self.kind() == MemoryKind::Device {
            return Ok(address);
        }
        let unseen = Error::Driver { call: "address of the device", code: CudaError::INVALID_VALUE };
        self.core.upstream.device_address(address, self.size()).ok_or(unseen)
    }

    /// The lane and timeline of a stream, before anything is submitted to it.
    #[inline]
    pub(super) fn lane<'a>(&self, stream: &'a Stream) -> Result<(usize, &'a Timeline), Error> {
        let timeline = stream.timeline()?;
        Ok((self.core.lane(timeline)?, timeline))
    }

    /// Orders a stream behind the earlier owners of the memory.
    pub(super) fn order(&self, lane: usize, stream: &Stream) -> Result<(), Error> {
        let record = self.record();
        let Some(of) = Use::unpack(record.inherited.load(Relaxed)) else { return Ok(()) };
        if lane == of.lane || lane == record.home() || self.core.order(of, stream)? {
            return Ok(());
        }
        let call = stream.context().driver().api().stream_wait_event.name();
        Err(Error::Driver { call, code: CudaError::STREAM_CAPTURE_ISOLATION })
    }

    /// Notes a use by work that was submitted to a stream.
    #[inline]
    pub(super) fn note(&self, lane: usize, timeline: &Timeline, stream: &Stream) -> Result<(), Error> {
        self.core.note_use(self.index, lane, timeline.issue()?, stream)
    }

    fn record(&self) -> &Record {
        self.core.records.get(self.index)
    }
}

impl<T: Element> Drop for Buffer<T> {
    #[inline]
    fn drop(&mut self) {
        let last = self.record().state.release();
        debug_assert!(last.is_ok(), "{last:?}");
        if last == Ok(true) {
            self.core.retire(self.index);
        }
    }
}

impl<T: Element> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dtype, len, at) = (T::DTYPE, self.len, self.host_address());
        write!(f, "Buffer({len} x {dtype} at {at:#x}, {:?})", self.kind())
    }
}
