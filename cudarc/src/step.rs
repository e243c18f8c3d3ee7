#![expect(unsafe_code, reason = "vouches for pinned memory that an `Arc` keeps")]
//! cudarc's memory as the source of steps.

use std::sync::Arc;

use cudarc::driver::{PinnedHostSlice, ValidAsZeroBits};
use wharf::element::Element;
use wharf::staging::{InputBuffers, SlotId, StageError, Step};
use wharf::{CudaError, Error};

use crate::error::from_cudarc;

/// Lets the device read a slot's elements in cudarc's pinned memory, so that the host copies
/// nothing: as many as the step is padded to. As [`Step::refer_buffer`].
///
/// The memory is kept until the device has read it; while it is shared, safe code cannot write it.
///
/// # Errors
///
/// Nothing has changed, and the step goes on, after an error:
///
/// * [`StageError::Slot`]: the slot has no copy of its own, or is of another set or length.
/// * [`StageError::Driver`]: the memory is of another context, or the copy that filled it failed.
pub fn refer<T: Element + ValidAsZeroBits, Tag>(
    inputs: &InputBuffers<Tag>,
    step: &mut Step<'_, Tag>,
    slot: SlotId<T, Tag>,
    from: Arc<PinnedHostSlice<T>>,
) -> Result<(), StageError> {
    if from.context().cu_ctx().addr() != inputs.context().as_raw().addr() {
        let call = "referring to memory of another context";
        return Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT }.into());
    }
    // Waits for what cudarc has written there.
    let start = (*from).as_ptr().map_err(from_cudarc)?;
    let elements = std::ptr::slice_from_raw_parts(start, from.len());
    // SAFETY: one allocation of pinned memory of the set's context, as long as the `Arc` lives,
    // which is kept until the ring slot is used again; what is shared is not written.
    unsafe { step.refer(slot, elements, from) }
}
