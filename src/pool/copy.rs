//! Copies and fills of buffers, which note their uses themselves.
//!
//! Each orders its stream behind the earlier owners of the memory, submits, and notes the use. What
//! could fail because of the bookkeeping fails before anything is submitted.

#![expect(unsafe_code, reason = "calls the driver with addresses of buffers")]

use std::ptr;

use super::buffer::Buffer;
use super::element::Element;
use crate::error::{CudaError, Error};
use crate::stream::Stream;

impl<T: Element> Buffer<T> {
    /// Copies all elements of `source` to the front of this buffer, in the order of `stream`.
    ///
    /// Both may be dropped at once. Data that other streams write are the caller's to order.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `source` is longer, or overlaps.
    /// * [`Error::Driver`]: the driver refused; nothing was submitted.
    #[doc(alias = "cuMemcpyAsync")]
    pub fn copy_from(&self, source: &Self, stream: &Stream) -> Result<(), Error> {
        let call = stream.context().driver().api().memcpy_async.name();
        let (to, from) = (self.device_address()?, source.device_address()?);
        let size = source.size();
        let overlaps = to < from + size as u64 && from < to + size as u64;
        if source.len() > self.len() || (overlaps && size > 0) {
            return Err(Error::Driver { call, code: CudaError::INVALID_VALUE });
        }
        let (lane, timeline) = self.lane(stream)?;
        let (source_lane, _) = source.lane(stream)?;
        self.order(lane, stream)?;
        source.order(source_lane, stream)?;
        // SAFETY: both are live memory of at least `size` bytes that is not used again before the
        // device is past the ticket noted below.
        unsafe { stream.copy(to, from, size) }?;
        self.settle(self.note(lane, timeline, stream))?;
        source.settle(source.note(source_lane, timeline, stream))
    }

    /// Copies elements from ordinary memory to the front of this buffer, in the order of `stream`.
    ///
    /// `source` may be reused on return: pageable memory is read before, and if it is memory that the
    /// driver has pinned, this waits for the stream. For what must not wait, write into a pinned
    /// buffer and [copy](Self::copy_from) from that.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `source` is longer than the buffer.
    /// * [`Error::Driver`]: the driver refused.
    #[doc(alias = "cuMemcpyHtoDAsync")]
    pub fn copy_from_slice(&self, source: &[T], stream: &Stream) -> Result<(), Error> {
        let api = stream.context().driver().api();
        if source.len() > self.len() {
            return Err(Error::Driver { call: api.memcpy_htod_async.name(), code: CudaError::INVALID_VALUE });
        }
        let (lane, timeline) = self.lane(stream)?;
        self.order(lane, stream)?;
        let to = self.device_address()?;
        // SAFETY: `source` is readable, and not written before this function returns; the buffer is
        // live memory of at least that size that is not used again before the ticket below.
        unsafe { stream.copy_htod(to, source.as_ptr().cast(), size_of_val(source)) }?;
        self.settle(self.note(lane, timeline, stream))?;
        if is_known(source.as_ptr().cast(), stream) { stream.synchronize() } else { Ok(()) }
    }

    /// Copies all elements to the front of ordinary memory, and waits for that.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `destination` is shorter than the buffer.
    /// * [`Error::Driver`]: the driver refused, or earlier work failed.
    #[doc(alias = "cuMemcpyDtoHAsync")]
    pub fn copy_to_slice(&self, destination: &mut [T], stream: &Stream) -> Result<(), Error> {
        let api = stream.context().driver().api();
        let call = api.memcpy_dtoh_async.name();
        if destination.len() < self.len() {
            return Err(Error::Driver { call, code: CudaError::INVALID_VALUE });
        }
        if stream.capture_status()? != crate::stream::CaptureStatus::Inactive {
            return Err(Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED });
        }
        let (lane, timeline) = self.lane(stream)?;
        self.order(lane, stream)?;
        let from = self.device_address()?;
        // SAFETY: `destination` is borrowed for writing until the stream is synchronised, below; the
        // buffer is live memory that is not used again before the ticket below.
        unsafe { stream.copy_dtoh(destination.as_mut_ptr().cast(), from, self.size()) }?;
        self.settle(self.note(lane, timeline, stream))?;
        stream.synchronize()
    }

    /// Sets every element to `value`, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::NOT_SUPPORTED`]: elements of 8 bytes whose halves differ,
    ///   for which the driver has no fill.
    /// * [`Error::Driver`]: the driver refused.
    #[doc(alias = "cuMemsetD8Async")]
    pub fn fill(&self, value: T, stream: &Stream) -> Result<(), Error> {
        let (lane, timeline) = self.lane(stream)?;
        let to = self.device_address()?;
        let fill = Pattern::of(value).ok_or_else(|| {
            let call = stream.context().driver().api().memset_d32_async.name();
            Error::Driver { call, code: CudaError::NOT_SUPPORTED }
        })?;
        self.order(lane, stream)?;
        // The arms' safety: the buffer is live memory of that many elements, which is not used again
        // before the ticket below.
        match fill {
            // SAFETY: as above.
            Pattern::One(byte) => unsafe { stream.fill_d8(to, byte, self.size()) },
            // SAFETY: as above.
            Pattern::Two(word) => unsafe { stream.fill_d16(to, word, self.size() / 2) },
            // SAFETY: as above.
            Pattern::Four(word) => unsafe { stream.fill_d32(to, word, self.size() / 4) },
        }?;
        self.settle(self.note(lane, timeline, stream))
    }

    /// A use that was submitted and could not be noted leaks the memory.
    fn settle(&self, noted: Result<(), Error>) -> Result<(), Error> {
        noted.inspect_err(|_| self.core().lose(self.core().records.get(self.index())))
    }
}

/// What a fill repeats.
enum Pattern {
    One(u8),
    Two(u16),
    Four(u32),
}

impl Pattern {
    fn of<T: Element>(value: T) -> Option<Self> {
        let bytes = ptr::from_ref(&value).cast::<u8>();
        // SAFETY: an element has no padding, so each of its bytes may be read.
        let byte = |at: usize| unsafe { *bytes.wrapping_add(at) };
        let word = |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        match size_of::<T>() {
            1 => Some(Self::One(byte(0))),
            2 => Some(Self::Two(u16::from_ne_bytes([byte(0), byte(1)]))),
            4 => Some(Self::Four(word(0))),
            _ => (word(0) == word(4)).then(|| Self::Four(word(0))),
        }
    }
}

/// Whether the driver knows host memory, so that a copy from it may be read later. In doubt it does.
fn is_known(address: *const u8, stream: &Stream) -> bool {
    use wharf_sys::bindings::CUpointer_attribute;
    let (mut kind, api) = (0_u32, stream.context().driver().api());
    let Ok(_scope) = stream.context().enter() else { return true };
    let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    // SAFETY: `kind` is valid for writes of the attribute's 4 bytes; the address is only looked up.
    let asked =
        unsafe { api.pointer_get_attribute.call((&raw mut kind).cast(), attribute, address.addr() as u64) };
    !matches!(asked, Err(error) if error.code() == Some(CudaError::INVALID_VALUE))
}
