//! Blocks that are allocated and freed as bare handles or addresses, without a [`Buffer`] between:
//! for foreign interfaces, whose callers keep numbers.

use std::panic::Location;

use super::buffer::Buffer;
use super::error::{FreeError, RawError};
use super::raw::RawBuffer;
use super::stream_pool::Pool;
use crate::slab::AllocError;
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;

impl Pool {
    /// Allocates `size` bytes for use on `stream` first, as [`alloc`](Self::alloc) and
    /// [`Buffer::into_raw`] do.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    #[inline]
    #[track_caller]
    pub fn alloc_raw(&self, size: usize, stream: &Stream) -> Result<RawBuffer, AllocError> {
        let (index, record) = self.core.alloc(size, stream, Location::caller())?;
        Ok(RawBuffer::begin(&self.core, index, record, size))
    }

    /// Frees the block of a bare handle behind what `stream` was given by now: the stream may have
    /// the memory at once, others when the device is past that, and past every use that was
    /// recorded. As [`take_raw`](Self::take_raw), [`Buffer::record_use`] and a drop.
    ///
    /// # Errors
    ///
    /// * [`FreeError::Handle`]: the handle is another pool's, or was taken back before.
    /// * [`FreeError::Stream`]: the stream cannot have used the block, as for
    ///   [`Buffer::record_use`]; the block is still allocated. Only where eight streams use the
    ///   block already, and the driver refuses to order this one, is the block freed and leaked.
    #[inline]
    pub fn free_raw(&self, raw: RawBuffer, stream: &Stream) -> Result<(), FreeError> {
        // What can fail comes before the handle ends.
        if let Some(timeline) = stream.ready_timeline()
            && let Some(slot) = self.core.slots.seat(timeline)
            && let Some(record) = raw.end(&self.core)
        {
            return Ok(self.core.retire_behind(record, slot, timeline, stream)?);
        }
        self.free_shared(raw, stream)
    }

    /// As `free_raw`, where there may be other handles, or the stream is new to the pool.
    #[cold]
    fn free_shared(&self, raw: RawBuffer, stream: &Stream) -> Result<(), FreeError> {
        let timeline = stream.timeline()?;
        let slot = self.core.slot_of(timeline)?;
        let (index, record) = raw.claim(&self.core)?;
        let noted = self.core.note_use(record, slot, timeline, stream);
        let noted = noted.inspect_err(|_| self.core.lose(record));
        self.core.end_handle_of(index, record);
        Ok(noted?)
    }

    /// A buffer that shares the block of a bare handle, which stays good: for uses, copies and
    /// graphs of a block that foreign code owns. The block is free when both have ended.
    ///
    /// # Errors
    ///
    /// As [`take_raw`](Self::take_raw).
    pub fn share_raw(&self, raw: RawBuffer) -> Result<Buffer<u8>, RawError> {
        raw.share(&self.core)
    }

    /// Allocates `size` bytes for use on `stream` first; the address of the first, to be given to
    /// [`take_address`](Self::take_address) or [`free_address`](Self::free_address).
    ///
    /// For callers that keep an address only, as PyTorch's, RMM's and ggml's interfaces do. The
    /// address is the host's where host and device differ.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// use wharf::memory::DeviceMemoryResource;
    /// use wharf::pool::Pool;
    /// use wharf::{Context, ErrorKind, Stream};
    ///
    /// let context = Context::retain(&driver.device(0)?)?;
    /// let stream = Stream::new(&context)?;
    /// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
    /// let address = pool.alloc_address(4096, &stream)?;
    /// pool.free_address(address, &stream)?;
    /// let again = pool.free_address(address, &stream).unwrap_err();
    /// assert_eq!(again.kind(), ErrorKind::Stale);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn alloc_address(&self, size: usize, stream: &Stream) -> Result<u64, AllocError> {
        let (index, record) = self.core.alloc(size, stream, Location::caller())?;
        let address = record.address.load(Relaxed);
        self.core.addresses.set(address, index);
        Ok(RawBuffer::begin(&self.core, index, record, size).address())
    }

    /// The handle of the block that was handed out at an address. No lock, no driver call.
    ///
    /// # Errors
    ///
    /// [`RawError::NotLive`]: no block is handed out at this address by
    /// [`alloc_address`](Self::alloc_address).
    #[inline]
    pub fn find_address(&self, address: u64) -> Result<RawBuffer, RawError> {
        let found = self.core.addresses.get(address);
        found
            .and_then(|index| RawBuffer::at(&self.core, index, address))
            .ok_or(RawError::NotLive { address })
    }

    /// Takes a block back that was handed out at an address. No lock, no driver call.
    ///
    /// # Errors
    ///
    /// [`RawError::NotLive`], [`RawError::Stale`]: the address is not that of a block that is
    /// handed out, or another thread has just taken it back.
    pub fn take_address(&self, address: u64) -> Result<Buffer<u8>, RawError> {
        self.take_raw(self.find_address(address)?)
    }

    /// Frees the block that was handed out at an address, behind what `stream` was given by now.
    ///
    /// # Errors
    ///
    /// As [`free_raw`](Self::free_raw) and [`find_address`](Self::find_address).
    pub fn free_address(&self, address: u64, stream: &Stream) -> Result<(), FreeError> {
        self.free_raw(self.find_address(address)?, stream)
    }
}
