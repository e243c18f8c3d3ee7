#![expect(unsafe_code, reason = "exports symbols; keeps steps beside the set that they borrow")]
//! Steps.
//!
//! A step that C holds lives in the set's cell for its ring slot, so a handle is two numbers and
//! beginning one allocates nothing. It is good until the ring slot is begun again: after it was
//! submitted it names what was staged.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf::staging::{Counts, InputBuffers, StageError, Staged, Step};

use crate::args::{out, out_or_none};
use crate::inputs::{InputsObject, wharf_inputs};
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

/// The content of a ring slot.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// How many steps were begun in it.
    life: u64,
    content: Content,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    Open(Step<'static>),
    Staged(Staged<'static>),
}

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
        let info = object.slot(slot)?;
        let mut cell = object.cell(step)?;
        let bytes = cell.open()?.write_raw(info);
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
        cell.content = match std::mem::take(&mut cell.content) {
            Content::Open(open) => Content::Staged(open.submit(stream)?),
            other => {
                cell.content = other;
                return Err(not_open());
            }
        };
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
        cell.open()?;
        cell.content = Content::Empty;
        Ok(())
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
        let (found, padded) = match &cell.content {
            Content::Open(step) => (step.bucket(), step.padded()),
            Content::Staged(staged) => (staged.bucket(), staged.padded()),
            Content::Empty => return Err(stale()),
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
    let open = begin(set)?;
    let place = open.ring_slot();
    let mut cell = lock(&object.cells[place]);
    cell.life += 1;
    cell.content = Content::Open(open);
    to.set(wharf_step { inputs, number: cell.life << PLACE_BITS | place as u64 });
    Ok(())
}

impl InputsObject {
    /// The cell of a step that is in it.
    #[inline]
    pub(crate) fn cell(&self, step: wharf_step) -> Result<MutexGuard<'_, Cell>, Failure> {
        let place = step.number & ((1 << PLACE_BITS) - 1);
        let cell = self.cells.get(place as usize).map(lock);
        cell.filter(|cell| cell.life == step.number >> PLACE_BITS).ok_or_else(stale)
    }
}

impl Cell {
    #[inline]
    fn open(&mut self) -> Result<&mut Step<'static>, Failure> {
        match &mut self.content {
            Content::Open(step) => Ok(step),
            _ => Err(not_open()),
        }
    }

    pub(crate) fn staged(&self) -> Result<&Staged<'static>, Failure> {
        match &self.content {
            Content::Staged(staged) => Ok(staged),
            Content::Open(_) => {
                let text = "the step was not submitted yet: call wharf_submit first";
                Err(Failure::new(wharf_status::Invalid, text))
            }
            Content::Empty => Err(stale()),
        }
    }
}

#[inline]
fn lock(cell: &Mutex<Cell>) -> MutexGuard<'_, Cell> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Bits of a step's number that name its ring slot, of which a set has 64 at most.
const PLACE_BITS: u32 = 8;
