#![expect(unsafe_code, reason = "vouches for pinned memory that an `Arc` keeps")]
//! cuda-core's memory as the source of steps.

use std::sync::Arc;

use cuda_core::{DeviceCopy, PinnedHostBuffer};
use wharf::element::Element;
use wharf::staging::{InputBuffers, SlotId, StageError, Step};
use wharf::{CudaError, Error};

/// Lets the device read a slot's elements in cuda-core's pinned memory, so that the host copies
/// nothing: as many as the step is padded to. As [`Step::refer`].
///
/// The memory is kept until the device has read it; while it is shared, safe code cannot write it.
///
/// # Errors
///
/// Nothing has changed, and the step goes on, after an error:
///
/// * [`StageError::Slot`]: the slot has no copy of its own, or is of another set or length.
/// * [`StageError::Driver`]: the memory is of another context.
pub fn refer<T: Element + DeviceCopy, Tag>(
    inputs: &InputBuffers<Tag>,
    step: &mut Step<'_, Tag>,
    slot: SlotId<T, Tag>,
    from: Arc<PinnedHostBuffer<T>>,
) -> Result<(), StageError> {
    if from.context().cu_ctx().addr() != inputs.context().as_raw().addr() {
        let call = "referring to memory of another context";
        return Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT }.into());
    }
    let elements: *const [T] = from.as_slice();
    // SAFETY: one allocation of pinned memory of the set's context, as long as the `Arc` lives,
    // which is kept until the ring slot is used again; what is shared is not written.
    unsafe { step.refer(slot, elements, from) }
}
