#![expect(unsafe_code, reason = "exports symbols; keeps steps beside the set that they borrow")]
//! Steps.
//!
//! A step that C holds lives in the set's cell for its ring slot, so a handle is two numbers and
//! beginning one allocates nothing. It is good until the ring slot is begun again: after it was
//! submitted it names what was staged.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use wharf::Stream;
use wharf::staging::{Counts, InputBuffers, StageError, Staged, Step};

use crate::args::{out, out_or_none};
use crate::cell::{Cell, Taken};
use crate::inputs::{InputsObject, no_slot, wharf_inputs};
use crate::status::{Failure, call, wharf_status};
use crate::stream::wharf_stream;
use crate::table::get;

/// A step of a set. It may be copied; when its ring slot is begun again, or it was abandoned, every
/// copy is stale.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_step {
    /// The set.
    pub inputs: wharf_inputs,
    /// Which step of the set it is.
    pub number: u64,
}

/// What a ring slot has of C: one of the two, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Content {
    open: Option<Step<'static>>,
    staged: Option<Staged<'static>>,
}

/// The cell of a ring slot. Its life is the number of steps that were begun in it.
pub(crate) type StepCell = Cell<Content>;

/// Begins a step: takes a ring slot that the device does not read any more, and waits for one until
/// the set's deadline if need be.
///
/// Thread-safe.
///
/// # Safety
///
/// `step` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_begin(
    inputs: wharf_inputs,
    tokens: usize,
    requests: usize,
    step: *mut wharf_step,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { begin(inputs, step, |set| set.begin(tokens, requests)) })
}

/// As wharf_begin; WHARF_STATUS_WOULD_BLOCK if no ring slot is free.
///
/// Thread-safe.
///
/// # Safety
///
/// `step` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_try_begin(
    inputs: wharf_inputs,
    tokens: usize,
    requests: usize,
    step: *mut wharf_step,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { begin(inputs, step, |set| set.try_begin(tokens, requests)) })
}

/// As wharf_begin, padded to the bucket that holds `padded_tokens` and `padded_requests`, and not
/// only to the one that holds the step: for ranks that run one model together. Such a step may have
/// 0 tokens.
///
/// Thread-safe.
///
/// # Safety
///
/// `step` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_begin_padded(
    inputs: wharf_inputs,
    tokens: usize,
    requests: usize,
    padded_tokens: usize,
    padded_requests: usize,
    step: *mut wharf_step,
) -> wharf_status {
    let padded = Counts { tokens: padded_tokens, requests: padded_requests };
    // SAFETY: the caller's promise.
    call(|| unsafe { begin(inputs, step, |set| set.begin_padded(tokens, requests, padded)) })
}

/// Writes where the host writes a slot's elements for this step, in pinned memory, and how many
/// bytes they have. Their contents are left from earlier steps. The memory is the caller's until
/// the step is submitted or abandoned.
///
/// Thread-safe; several threads may write different slots.
///
/// # Safety
///
/// `data` and `size` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_slot(
    step: wharf_step,
    slot: usize,
    data: *mut *mut c_void,
    size: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(data, "data") }?;
        // SAFETY: the caller's promise.
        let to_size = unsafe { out(size, "size") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        let mut cell = object.cell(step)?;
        let bytes = cell.open()?.write_raw_at(slot);
        let bytes = bytes.ok_or_else(|| no_slot(slot, object.slots.len()))?;
        to.set(bytes.as_mut_ptr().cast());
        to_size.set(bytes.len());
        Ok(())
    })
}

/// Sends a step to the device: one driver call, where the stream is that of the last step. A step
/// that fails has not happened, and its ring slot is free.
///
/// Steps of one set that two threads submit at once, to two streams, are ordered by neither: let
/// one thread at a time submit, or give each thread a set.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread writes the step's slots meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_submit(step: wharf_step, stream: wharf_stream) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        let mut cell = object.cell(step)?;
        cell.submit(stream)?;
        drop(cell);
        Ok(())
    })
}

/// Abandons a step that was not submitted: it has not happened.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread writes the step's slots meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_abandon(step: wharf_step) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let mut cell = unsafe { get(step.inputs) }?.cell(step)?;
        cell.open.take().ok_or_else(not_open).map(drop)
    })
}

/// Makes what `stream` is given from here on wait, on the device, for a submitted step's inputs.
/// The next step waits for all work of `stream`, or for the point of wharf_step_consumed_by.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_wait_on(
    step: wharf_step,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        Ok(object.cell(step)?.staged()?.wait_on(stream)?)
    })
}

/// Declares that the work of `stream` up to this point reads a submitted step's inputs, and that
/// later work does not: the next step waits, on the device, for this point.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_consumed_by(
    step: wharf_step,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        Ok(object.cell(step)?.staged()?.consumed_by(stream)?)
    })
}

/// Writes where the device finds a slot of a submitted step: for zero-copy slots, and for steps of
/// packed layouts above the largest bucket, whose addresses are others in each step.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_address(
    step: wharf_step,
    slot: usize,
    address: *mut u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        let info = object.slot(slot)?;
        to.set(object.cell(step)?.staged()?.address_of(info));
        Ok(())
    })
}

/// Writes what a step is padded to: the place of its bucket among the set's, ascending, SIZE_MAX
/// above the largest; and the tokens and requests whose elements are sent. For the engine's own
/// table of graphs. Each pointer may be NULL.
///
/// Thread-safe.
///
/// # Safety
///
/// `bucket`, `tokens` and `requests` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_padded(
    step: wharf_step,
    bucket: *mut usize,
    tokens: *mut usize,
    requests: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        let cell = object.cell(step)?;
        let (found, padded) = match &*cell {
            Content { open: Some(step), .. } => (step.bucket(), step.padded()),
            Content { staged: Some(staged), .. } => (staged.bucket(), staged.padded()),
            _ => return Err(stale()),
        };
        for (to, value) in [
            (bucket, found.unwrap_or(usize::MAX)),
            (tokens, padded.tokens),
            (requests, padded.requests),
        ] {
            // SAFETY: the caller's promise.
            if let Some(to) = unsafe { out_or_none(to) } {
                to.set(value);
            }
        }
        Ok(())
    })
}

/// Writes whether the device has read a submitted step's ring slot.
///
/// Thread-safe.
///
/// # Safety
///
/// `complete` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_step_is_complete(
    step: wharf_step,
    complete: *mut bool,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(complete, "complete") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        to.set(object.cell(step)?.staged()?.is_complete()?);
        Ok(())
    })
}

/// Begins a step and puts it into the cell of its ring slot.
///
/// # Safety
///
/// No thread releases the set meanwhile; `step` is null or can be written.
#[inline]
unsafe fn begin(
    inputs: wharf_inputs,
    step: *mut wharf_step,
    begin: impl FnOnce(&'static InputBuffers) -> Result<Step<'static>, StageError>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let to = unsafe { out(step, "step") }?;
    // SAFETY: the caller's promise.
    let object = unsafe { get(inputs) }?;
    // SAFETY: the set is behind an `Arc` that is dropped after the cells, and what borrows it is
    // put into a cell below and never leaves it.
    let set: &'static InputBuffers = unsafe { &*Arc::as_ptr(&object.set) };
    // Would be lost if what follows panicked; has nothing to see to if it cannot.
    let open = ManuallyDrop::new(begin(set)?);
    // The remainder is the place, and spares the check of it.
    let place = open.ring_slot() % PLACES;
    let mut cell = object.cells[place].begin();
    cell.clear();
    // Nothing is there to be dropped, so that the step is copied once.
    #[expect(clippy::mem_forget, reason = "it is None")]
    std::mem::forget(cell.open.replace(ManuallyDrop::into_inner(open)));
    to.set(wharf_step { inputs, number: cell.life() << PLACE_BITS | place as u64 });
    Ok(())
}

impl InputsObject {
    /// The cell of a step that is in it.
    #[inline]
    pub(crate) fn cell(&self, step: wharf_step) -> Result<Taken<'_, Content>, Failure> {
        let place = step.number & ((1 << PLACE_BITS) - 1);
        let cell = &self.cells[place as usize];
        cell.take(step.number >> PLACE_BITS).ok_or_else(stale)
    }
}

impl Content {
    /// Drops what the ring slot had before: no open step, which would have kept the ring slot.
    #[inline]
    fn clear(&mut self) {
        self.staged = None;
        debug_assert!(self.open.is_none());
    }

    #[inline]
    fn open(&mut self) -> Result<&mut Step<'static>, Failure> {
        self.open.as_mut().ok_or_else(not_open)
    }

    #[inline]
    fn submit(&mut self, stream: &Stream) -> Result<(), Failure> {
        let step = self.open.take().ok_or_else(not_open)?;
        Ok(step.submit_to(stream, &mut self.staged)?)
    }

    pub(crate) fn staged(&self) -> Result<&Staged<'static>, Failure> {
        self.staged.as_ref().ok_or_else(|| match self.open {
            Some(_) => {
                let text = "the step was not submitted yet: call wharf_submit first";
                Failure::new(wharf_status::Invalid, text)
            }
            None => stale(),
        })
    }
}

#[cold]
fn not_open() -> Failure {
    Failure::new(wharf_status::Stale, "the step was submitted or abandoned before")
}

#[cold]
fn stale() -> Failure {
    let text = "the step is over: its ring slot was begun again, or it was abandoned";
    Failure::new(wharf_status::Stale, text)
}

/// The ring slots that a step's number tells apart: as many as the library lets a set have. So each
/// number names a cell, and one of no ring slot is one that no step was begun in.
pub(crate) const PLACES: usize = 1 << PLACE_BITS;
pub(crate) const PLACE_BITS: u32 = 6;
