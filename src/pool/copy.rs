//! Copies and fills of buffers, which note their uses themselves.
//!
//! Each orders its stream behind the earlier owners of the memory, submits, and notes the use. What
//! could fail because of the bookkeeping fails before anything is submitted. Host memory that is
//! registered piece by piece is copied and filled piece by piece, and what touches it is marked,
//! since the host waits for its end.

#![expect(unsafe_code, reason = "calls the driver with addresses of buffers")]

use std::cell::Cell;
use std::ops::Range;
use std::ptr;

use super::buffer::Buffer;
use crate::element::Element;
use crate::error::{CudaError, Error};
use crate::memory::MemoryKind;
use crate::stream::{HostRange, Stream, parts};
use crate::timeline::Timeline;

impl<T: Element> Buffer<T> {
    /// Copies all elements of `source` to the front of this buffer, in the order of `stream`.
    ///
    /// Both may be dropped at once. Data that other streams write are the caller's to order.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `source` is longer, or overlaps.
    /// * [`Error::Driver`]: the driver refused; nothing was submitted, or, of memory in several
    ///   pieces, only the first of them.
    /// * [`Error::Asleep`]: a pool sleeps. So for all copies and fills.
    #[doc(alias = "cuMemcpyAsync")]
    pub fn copy_from(&self, source: &Self, stream: &Stream) -> Result<(), Error> {
        let call = stream.context().driver().api().memcpy_async.name();
        let (to, from) = (self.host_address(), source.host_address());
        let size = source.size();
        let overlaps = to < from + size as u64 && from < to + size as u64;
        if source.len() > self.len() || (overlaps && size > 0) {
            return Err(Error::Driver { call, code: CudaError::INVALID_VALUE });
        }
        let _awake = (self.core().stay_awake()?, source.core().stay_awake()?);
        self.check_seen(size)?;
        source.check_seen(size)?;
        let (slot, timeline) = self.slot_of(stream)?;
        let (source_slot, _) = source.slot_of(stream)?;
        self.order(slot, stream)?;
        source.order(source_slot, stream)?;
        let reach = |at, left| self.piece_len(at, left).min(source.piece_len(at, left));
        let submitted = submit(parts(size, reach), |part| {
            let (to, from) = (self.part_address(&part)?, source.part_address(&part)?);
            // SAFETY: both are live memory of at least so many bytes that is not used again before
            // the device is past the ticket noted below.
            unsafe { stream.copy(to, from, part.len()) }
        });
        let noted = self.settle(submitted, || self.note(slot, timeline, stream));
        let source_noted = source.settle(submitted, || source.note(source_slot, timeline, stream));
        mark_for_host([self.kind(), source.kind()], timeline);
        submitted.outcome.and(noted).and(source_noted)
    }

    /// Copies elements from ordinary memory to the front of this buffer, in the order of `stream`.
    ///
    /// `source` may be reused on return: pageable memory is read before, and if it is memory that
    /// the driver has pinned, this waits for the stream. For what must not wait, write into a
    /// pinned buffer and [copy](Self::copy_from) from that.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `source` is longer than the buffer.
    /// * [`Error::Driver`]: the driver refused.
    #[doc(alias = "cuMemcpyHtoDAsync")]
    pub fn copy_from_slice(&self, source: &[T], stream: &Stream) -> Result<(), Error> {
        let api = stream.context().driver().api();
        if source.len() > self.len() {
            return Err(Error::Driver {
                call: api.memcpy_htod_async.name(),
                code: CudaError::INVALID_VALUE,
            });
        }
        let size = size_of_val(source);
        let awake = self.core().stay_awake()?;
        self.check_seen(size)?;
        let (slot, timeline) = self.slot_of(stream)?;
        self.order(slot, stream)?;
        let (from, is_known) = (source.as_ptr().cast::<u8>(), Cell::new(false));
        let reach = |at: usize, left: usize| {
            let memory = stream.host_memory(from.wrapping_add(at).addr() as u64);
            is_known.set(is_known.get() || memory != HostRange::Pageable);
            memory.reach(self.piece_len(at, left))
        };
        let submitted = submit(parts(size, reach), |part| {
            let to = self.part_address(&part)?;
            // SAFETY: `source` is readable, and not written before this function returns; the
            // buffer is live memory of at least that size that is not used again before the ticket
            // below.
            unsafe { stream.copy_htod(to, from.wrapping_add(part.start).cast(), part.len()) }
        });
        let noted = self.settle(submitted, || self.note(slot, timeline, stream));
        // A sleep waits for the use that is noted, for as long as it was told to.
        drop(awake);
        // The driver may still read memory that it knows.
        let waited = if is_known.get() && submitted.any {
            stream.synchronize()
        } else {
            mark_for_host([self.kind()], timeline);
            Ok(())
        };
        submitted.outcome.and(noted).and(waited)
    }

    /// Copies all elements to the front of ordinary memory, and waits for that.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: `destination` is shorter than the
    ///   buffer.
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
        let awake = self.core().stay_awake()?;
        self.check_seen(self.size())?;
        let (slot, timeline) = self.slot_of(stream)?;
        self.order(slot, stream)?;
        let to = destination.as_mut_ptr().cast::<u8>();
        let reach = |at: usize, left: usize| {
            let memory = stream.host_memory(to.wrapping_add(at).addr() as u64);
            memory.reach(self.piece_len(at, left))
        };
        let submitted = submit(parts(self.size(), reach), |part| {
            let from = self.part_address(&part)?;
            // SAFETY: `destination` is borrowed for writing until the stream is synchronised,
            // below; the buffer is live memory that is not used again before the ticket below.
            unsafe { stream.copy_dtoh(to.wrapping_add(part.start).cast(), from, part.len()) }
        });
        let noted = self.settle(submitted, || self.note(slot, timeline, stream));
        // A sleep waits for the use that is noted, for as long as it was told to.
        drop(awake);
        // Also after an error: what was submitted before it still writes.
        let waited = if submitted.any { stream.synchronize() } else { Ok(()) };
        submitted.outcome.and(noted).and(waited)
    }

    /// Sets every element to `value`, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::NOT_SUPPORTED`]: elements of 8 bytes whose halves
    ///   differ, for which the driver has no fill.
    /// * [`Error::Driver`]: the driver refused.
    #[doc(alias = "cuMemsetD8Async")]
    pub fn fill(&self, value: T, stream: &Stream) -> Result<(), Error> {
        let _awake = self.core().stay_awake()?;
        self.check_seen(self.size())?;
        let (slot, timeline) = self.slot_of(stream)?;
        let fill = Pattern::of(value).ok_or_else(|| {
            let call = stream.context().driver().api().memset_d32_async.name();
            Error::Driver { call, code: CudaError::NOT_SUPPORTED }
        })?;
        self.order(slot, stream)?;
        let submitted = submit(parts(self.size(), |at, left| self.piece_len(at, left)), |part| {
            let (to, size) = (self.part_address(&part)?, part.len());
            // The arms' safety: the buffer is live memory of that many elements, which is not used
            // again before the ticket below. A piece is a whole number of elements.
            match fill {
                // SAFETY: as above.
                Pattern::One(byte) => unsafe { stream.fill_d8(to, byte, size) },
                // SAFETY: as above.
                Pattern::Two(word) => unsafe { stream.fill_d16(to, word, size / 2) },
                // SAFETY: as above.
                Pattern::Four(word) => unsafe { stream.fill_d32(to, word, size / 4) },
            }
        });
        let noted = self.settle(submitted, || self.note(slot, timeline, stream));
        mark_for_host([self.kind()], timeline);
        submitted.outcome.and(noted)
    }

    /// Notes a use if there is one. One that was submitted and could not be noted leaks the memory.
    fn settle(
        &self,
        submitted: Submitted,
        note: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !submitted.any && submitted.outcome.is_err() {
            return Ok(());
        }
        note().inspect_err(|_| self.core().lose(self.record()))
    }
}

/// Puts a marker behind an operation whose end the host will wait for, since it touches memory of
/// the host: without one, the host would wait for what is submitted later.
fn mark_for_host<const N: usize>(kinds: [MemoryKind; N], timeline: &Timeline) {
    if kinds.into_iter().any(|kind| kind != MemoryKind::Device) {
        // An error comes again when something waits.
        let _marked = timeline.mark();
    }
}

/// What became of the parts of a copy or fill.
#[derive(Clone, Copy, Debug)]
struct Submitted {
    /// Whether the device was given some of them.
    any: bool,
    outcome: Result<(), Error>,
}

/// Submits parts one after the other, up to the first error.
fn submit(
    mut parts: impl Iterator<Item = Range<usize>>,
    mut one: impl FnMut(Range<usize>) -> Result<(), Error>,
) -> Submitted {
    let mut any = false;
    let outcome = parts.try_for_each(|part| one(part).inspect(|()| any = true));
    Submitted { any, outcome }
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
        let word =
            |at: usize| u32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        match size_of::<T>() {
            1 => Some(Self::One(byte(0))),
            2 => Some(Self::Two(u16::from_ne_bytes([byte(0), byte(1)]))),
            4 => Some(Self::Four(word(0))),
            _ => (word(0) == word(4)).then(|| Self::Four(word(0))),
        }
    }
}
