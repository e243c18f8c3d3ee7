//! A buffer: a typed piece of a block, with a handle.

#![expect(unsafe_code, reason = "hands out addresses; makes slices of host memory")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Bound, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_sys::bindings::CUdeviceptr;

use super::core::Core;
use super::error::HostError;
use super::info::BufferInfo;
use super::record::BufferRecord;
use crate::address::to_usize;
use crate::element::Element;
use crate::error::Error;
use crate::memory::MemoryKind;
use crate::stream::{Stream, parts};
use crate::timeline::WaitError;

/// Elements of a pool's memory, held by one owner, or by several as pieces of one block.
///
/// Dropping it never waits and never frees too early: the stream that used it may have the memory
/// at once, others when the device is past its last use. The copies and fills here note their uses
/// themselves; who uses the address otherwise [records](Self::record_use) it.
///
/// It may be sent to and dropped on any thread, and keeps the pool's memory alive. The last buffer
/// of a pool that was dropped [ends it](super::Pool#drop), which calls the driver and may wait for
/// the device: not in a callback of a stream, where all of the pool's memory would be leaked.
///
/// # Graphs
///
/// A graph that was captured or built with a buffer's address uses the memory at every launch. Keep
/// the buffer as long as the graph.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Buffer, Pool};
/// use wharf::{Context, Stream};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let memory = DeviceMemoryResource::new(&context, 1 << 30)?;
/// let pool = Pool::builder().max_bytes(64 << 20).build(memory)?;
/// let ids: Buffer<i32> = pool.alloc(4, &stream)?;
/// ids.copy_from_slice(&[3, 1, 4, 1], &stream)?;
/// let mut back = [0; 4];
/// ids.copy_to_slice(&mut back, &stream)?;
/// assert_eq!(back, [3, 1, 4, 1]);
/// drop(ids);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Buffer<T: Element> {
    core: ManuallyDrop<Arc<Core>>,
    /// One of the core's.
    record: NonNull<BufferRecord>,
    /// Where the elements start in the block, in bytes.
    pub(super) offset: usize,
    len: usize,
    elements: PhantomData<fn() -> T>,
}

// SAFETY: the record behind the pointer may be used from any thread, as the core may that it is of.
unsafe impl<T: Element> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// The one handle of the life of a record of the core's, which has just begun.
    #[inline]
    pub(super) fn begun(
        core: &Arc<Core>,
        record: &BufferRecord,
        offset: usize,
        len: usize,
    ) -> Self {
        let core = record.unpark().unwrap_or_else(|| Arc::clone(core));
        Self::of_parts(core, NonNull::from(record), offset, len)
    }

    /// A handle of a record of the core's that was counted.
    pub(super) fn counted(
        core: &Arc<Core>,
        record: &BufferRecord,
        offset: usize,
        len: usize,
    ) -> Self {
        Self::of_parts(Arc::clone(core), NonNull::from(record), offset, len)
    }

    #[inline]
    fn of_parts(core: Arc<Core>, record: NonNull<BufferRecord>, offset: usize, len: usize) -> Self {
        Self { core: ManuallyDrop::new(core), record, offset, len, elements: PhantomData }
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
    #[inline]
    pub fn size(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The kind of memory.
    #[inline]
    pub fn kind(&self) -> MemoryKind {
        self.core.kind
    }

    /// The state of the block that the elements lie in.
    pub fn info(&self) -> BufferInfo {
        BufferInfo::of(&self.core, self.index())
    }

    /// The device's address of the first element; the others follow it.
    ///
    /// Pinned memory of more than a [registration](crate::memory::PinnedOptions::piece_limit) is
    /// good for kernels at this address, but a copy or fill of the caller's own has to be cut at
    /// [`as_device_pieces`](Self::as_device_pieces).
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`INVALID_VALUE`](crate::CudaError::INVALID_VALUE): the device does
    /// not see all elements, as a file that could not be registered, or not one after the other.
    ///
    /// # Safety
    ///
    /// Code that submits work with the address, in any way,
    ///
    /// * calls [`record_use`](Self::record_use) with its stream afterwards and before the buffer is
    ///   dropped;
    /// * calls [`acquire`](Self::acquire) before, unless the stream is the one that the buffer was
    ///   allocated for, or waits for that one;
    /// * keeps the buffer as long as a graph that names the address;
    /// * gives the address to nothing that frees it: a
    ///   `CudaSlice` that cudarc's `upgrade_device_ptr` makes of it calls
    ///   `cuMemFreeAsync` when it is dropped, so it has to be [forgotten](std::mem::forget), or
    ///   given back by its `leak`.
    #[inline]
    pub unsafe fn as_device_ptr(&self) -> Result<CUdeviceptr, Error> {
        self.device_address()
    }

    /// The device's addresses and the lengths in bytes of the pieces that the elements lie in, in
    /// their order: what the driver copies or fills in one call each.
    ///
    /// One, but for host memory that is registered with the driver piece by piece. The copies and
    /// fills of this crate are cut at these borders already.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`INVALID_VALUE`](crate::CudaError::INVALID_VALUE): the device does
    /// not see all elements.
    ///
    /// # Safety
    ///
    /// As [`as_device_ptr`](Self::as_device_ptr).
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// # let stream = wharf::Stream::new(&context)?;
    /// use wharf::memory::{PinnedMemoryResource, PinnedOptions};
    /// use wharf::pool::{Buffer, Pool};
    ///
    /// let options = PinnedOptions::default().piece_limit(2 << 20);
    /// let pool = Pool::builder().build(PinnedMemoryResource::new(&context, 64 << 20, options)?)?;
    /// let buffer: Buffer<u8> = pool.alloc(40 << 20, &stream)?;
    /// // SAFETY: nothing is submitted with the addresses.
    /// let pieces = unsafe { buffer.as_device_pieces() }?;
    /// assert_eq!(pieces.map(|(_, size)| size).collect::<Vec<_>>(), [2 << 20; 20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_device_pieces(
        &self,
    ) -> Result<impl Iterator<Item = (CUdeviceptr, usize)>, Error> {
        self.check_seen(self.size())?;
        // Asked before, and it stays so as long as there is the buffer.
        Ok(parts(self.size(), |at, left| self.piece_len(at, left))
            .map_while(|part| Some((self.part_address(&part).ok()?, part.len()))))
    }

    /// Notes that work on `stream`, submitted by now, uses the buffer.
    ///
    /// Makes no driver call, except for the first use by a stream beyond 8 at once, which then
    /// waits on the device for one of the others.
    ///
    /// # Errors
    ///
    /// The use could not be noted, so the memory is leaked when the buffer is dropped:
    ///
    /// * [`Error::OtherThread`], [`Error::OtherDevice`], [`Error::StreamForgotten`]: the work
    ///   should not have been submitted.
    /// * [`Error::TooManyStreams`]: 4096 streams use the pool at a time.
    /// * [`Error::Driver`]: the driver refused.
    #[inline]
    #[doc(alias = "mark_in_use")]
    pub fn record_use(&self, stream: &Stream) -> Result<(), Error> {
        if self.core.note_again(self.record(), stream) {
            return Ok(());
        }
        self.record_other_use(stream)
    }

    /// As `record_use`, of a stream that is not known to have used the buffer.
    #[cold]
    #[inline(never)]
    fn record_other_use(&self, stream: &Stream) -> Result<(), Error> {
        let noted =
            self.slot_of(stream).and_then(|(slot, timeline)| self.note(slot, timeline, stream));
        noted.inspect_err(|_| self.core.lose(self.record()))
    }

    /// Whether the device is past all uses; makes the streams report if need be, with at most one
    /// marker each.
    ///
    /// A copy or fill of memory of the device alone, and work of the caller's, have no marker
    /// behind them until something asks: the marker then comes behind everything that is in the
    /// stream by now, so the buffer is in use until that is done. To be asked of its own use only,
    /// call [`Stream::mark`] right behind it.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the driver reports a failure, after which the uses never complete.
    /// * [`Error::Forked`]: this process is a forked child, also for a buffer that is not in use.
    pub fn poll(&self) -> Result<bool, Error> {
        // Without a use that is out, no call would find out.
        self.core.upstream.resource().check_fork()?;
        for of in self.record().uses() {
            if let Some((timeline, ticket)) = self.core.slots.pending(of) {
                timeline
                    .advance(ticket, false)
                    .inspect_err(|error| self.core.note_error(*error))?;
            }
        }
        Ok(self.is_idle())
    }

    /// Waits until the device is past all uses, for at most `limit`.
    ///
    /// Where
    /// [`Stream::mark`] was not called behind a use, this waits as well for the work that was
    /// submitted to that stream later, see [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`](crate::timeline::Ticket::wait).
    pub fn wait(&self, limit: Duration) -> Result<(), WaitError> {
        // Without a use that is out, no call would find out.
        self.core.upstream.resource().check_fork()?;
        let start = Instant::now();
        for of in self.record().uses() {
            let Some((timeline, ticket)) = self.core.slots.pending(of) else { continue };
            timeline.wait(ticket, limit.saturating_sub(start.elapsed())).inspect_err(|error| {
                if let WaitError::Driver(error) = error {
                    self.core.note_error(*error);
                }
            })?;
        }
        Ok(())
    }

    /// The elements for the host, when the device is past all uses; waits for that at most `limit`.
    ///
    /// The copies and fills of this crate that touch memory of the host put a marker behind
    /// themselves, so this does not wait for work that was submitted after them. After other work
    /// that uses the buffer, such as a kernel, call [`Stream::mark`] for the same.
    ///
    /// The slice is of pinned memory. A library that copies from a slice as from pageable memory,
    /// such as cudarc's
    /// `clone_htod`, returns before the copy is done: it must be done before the slice is written
    /// again and before the buffer is dropped. [`copy_from`](Self::copy_from) and
    /// [`record_use`](Self::record_use) keep track of that; other code's copies are to be waited
    /// for.
    ///
    /// # Errors
    ///
    /// * [`HostError::Kind`]: the host does not reach this kind of memory.
    /// * [`HostError::Shared`]: there are other handles to the block.
    /// * [`HostError::Busy`]: the device is not done, or this process is a forked child.
    pub fn host_mut(&mut self, limit: Duration) -> Result<&mut [T], HostError> {
        let kind = self.kind();
        if !matches!(kind, MemoryKind::Pinned | MemoryKind::Managed | MemoryKind::FileMapped) {
            return Err(HostError::Kind(kind));
        }
        if self.record().state.load().handles() != 1 {
            return Err(HostError::Shared);
        }
        self.wait(limit).map_err(HostError::Busy)?;
        let start = to_usize(self.host_address());
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
        Some(Self::counted(&self.core, self.record(), offset, end - start))
    }

    /// The same bytes as elements of another type; the buffer comes back if they are not a whole
    /// number of aligned ones.
    ///
    /// # Errors
    ///
    /// The buffer.
    pub fn cast<U: Element>(self) -> Result<Buffer<U>, Self> {
        let size = size_of::<U>();
        if !self.size().is_multiple_of(size) || !self.offset.is_multiple_of(size) {
            return Err(self);
        }
        let (record, offset, len) = (self.record, self.offset, self.size() / size);
        Ok(Buffer::of_parts(self.into_core(), record, offset, len))
    }

    /// The reference to the core; the handle goes on without the buffer.
    pub(super) fn into_core(self) -> Arc<Core> {
        let mut buffer = ManuallyDrop::new(self);
        // SAFETY: taken once: the buffer is not dropped, nor used again.
        unsafe { ManuallyDrop::take(&mut buffer.core) }
    }

    #[inline]
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn index(&self) -> u32 {
        self.record().index()
    }

    #[inline]
    pub(super) fn record(&self) -> &BufferRecord {
        // SAFETY: a record of the core's, which `core` keeps: records live as long as it does, and
        // stay where they are.
        unsafe { self.record.as_ref() }
    }
}

impl<T: Element> Drop for Buffer<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken once: nothing uses a buffer after its drop.
        let core = unsafe { ManuallyDrop::take(&mut self.core) };
        core.end_buffer(self.record);
    }
}

impl<T: Element> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dtype, len, at) = (T::DTYPE, self.len, self.host_address());
        write!(f, "Buffer({len} x {dtype} at {at:#x}, {:?})", self.kind())
    }
}
