#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles")]
//! Results that a fetch brings.

use std::ffi::c_void;

use wharf::staging::Pending;

use crate::args::{millis, out};
use crate::inputs::no_slot;
use crate::status::{Failure, call, wharf_status};
use crate::stream::wharf_stream;
use crate::table::{end, get, handle};

/// The results of one step, which the device is copying or has copied. They are not overwritten
/// before wharf_results_release.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_results {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_results, ResultsObject, "results");

/// What a fetch brings. It keeps its share of the set.
#[derive(Debug)]
pub struct ResultsObject {
    pending: Pending,
    /// How many slots it has.
    slots: usize,
}

impl ResultsObject {
    /// The results of a fetch of a set with so many slots.
    #[inline]
    pub(crate) fn new(pending: Pending, slots: usize) -> Self {
        Self { pending, slots }
    }
}

/// Writes whether the results are there. No driver call.
///
/// Thread-safe.
///
/// # Safety
///
/// `complete` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_results_is_complete(
    results: wharf_results,
    complete: *mut bool,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(complete, "complete") }?;
        // SAFETY: the caller's promise.
        to.set(unsafe { get(results) }?.pending.is_complete()?);
        Ok(())
    })
}

/// Waits for the results, and for nothing that the stream was given behind the fetch.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_results_wait(
    results: wharf_results,
    timeout_ms: u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let pending = &unsafe { get(results) }?.pending;
        // Most results are there when they are asked for.
        if !pending.is_complete()? {
            pending.wait(millis(timeout_ms))?;
        }
        Ok(())
    })
}

/// Writes where a slot's elements are, in pinned memory, and how many bytes they have: as many
/// elements as the step has. WHARF_STATUS_WOULD_BLOCK if the results are not there yet. The memory
/// is good until wharf_results_release, and is only read.
///
/// Thread-safe.
///
/// # Safety
///
/// `data` and `size` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_results_read(
    results: wharf_results,
    slot: usize,
    data: *mut *const c_void,
    size: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(data, "data") }?;
        // SAFETY: the caller's promise.
        let to_size = unsafe { out(size, "size") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(results) }?;
        if slot >= object.slots {
            return Err(no_slot(slot, object.slots));
        }
        let there = object.pending.try_read()?.ok_or_else(not_there)?;
        let bytes = there.read_raw_at(slot)?;
        to.set(bytes.as_ptr().cast());
        to_size.set(bytes.len());
        Ok(())
    })
}

/// Makes what `writer` is given from here on wait, on the device, until the device memory has been
/// read: for a step on another stream than the fetch's, which writes it again.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_results_source_free_on(
    results: wharf_results,
    writer: wharf_stream,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { get(results) }?.pending.source_free_on(unsafe { get(writer) }?)?))
}

/// Releases results: their memory may be overwritten, when the device has written it. Does not
/// wait.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile, or reads the memory from here on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_results_release(results: wharf_results) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { end(results) })
}

#[cold]
fn not_there() -> Failure {
    let text = "the results are not there yet: call wharf_results_wait first";
    Failure::new(wharf_status::WouldBlock, text)
}
