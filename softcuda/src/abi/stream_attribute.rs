#![expect(unsafe_code, reason = "exports C functions and reads a union of the driver API")]
//! Attributes of streams: kept and given back, and without effect, since no kernel runs.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::sched::work::Opaque;

exports! {
    Normal PFN_cuStreamCopyAttributes_v11000: cuStreamCopyAttributes(
        dst: CUstream, src: CUstream,
    ) | cuStreamCopyAttributes_ptsz => copy_attributes;
    Normal PFN_cuStreamGetAttribute_v11000: cuStreamGetAttribute(
        stream: CUstream, attribute: CUstreamAttrID, value: *mut CUstreamAttrValue_v1,
    ) | cuStreamGetAttribute_ptsz => get_attribute;
    Normal PFN_cuStreamSetAttribute_v11000: cuStreamSetAttribute(
        stream: CUstream, attribute: CUstreamAttrID, value: *const CUstreamAttrValue_v1,
    ) | cuStreamSetAttribute_ptsz => set_attribute;
}

type Id = CUlaunchAttributeID;

/// Whether a launch attribute is a stream's too.
fn is_of_stream(attribute: Id) -> bool {
    matches!(
        attribute,
        Id::CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW
            | Id::CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY
            | Id::CU_LAUNCH_ATTRIBUTE_PRIORITY
            | Id::CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP
            | Id::CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN
    )
}

/// The default value of an attribute.
fn unset(attribute: Id, priority: i32) -> CUstreamAttrValue_v1 {
    let mut value = CUstreamAttrValue_v1 { pad: [0; 64] };
    match attribute {
        Id::CU_LAUNCH_ATTRIBUTE_PRIORITY => value.priority = priority,
        Id::CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY => {
            value.syncPolicy = CUsynchronizationPolicy::CU_SYNC_POLICY_AUTO;
        }
        _ => {}
    }
    value
}

fn copy_attributes(call: Call, dst: CUstream, src: CUstream) -> Status {
    let mut state = call.lock();
    let (dst, src) = (call.stream(&mut state, dst)?, call.stream(&mut state, src)?);
    let from = state.streams.get(src).ok_or(CudaError::INVALID_HANDLE)?;
    let (context, priority, attributes) = (from.context, from.priority, from.attributes.clone());
    let to = state.streams.get_mut(dst).ok_or(CudaError::INVALID_HANDLE)?;
    // "Both streams must have the same context."
    if to.context != context {
        return Err(CudaError::INVALID_VALUE);
    }
    to.attributes = attributes;
    to.priority = priority;
    Ok(())
}

fn get_attribute(
    call: Call,
    stream: CUstream,
    attribute: CUstreamAttrID,
    value: *mut CUstreamAttrValue_v1,
) -> Status {
    if !valid(value) || !is_of_stream(attribute) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    let known = state.streams.get(handle).ok_or(CudaError::INVALID_HANDLE)?;
    let set = known.attributes.get(&attribute.0).map(|set| set.0);
    out(value, set.unwrap_or_else(|| unset(attribute, known.priority)))
}

fn set_attribute(
    call: Call,
    stream: CUstream,
    attribute: CUstreamAttrID,
    value: *const CUstreamAttrValue_v1,
) -> Status {
    let value = input(value)?;
    if !is_of_stream(attribute) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    let known = state.streams.get_mut(handle).ok_or(CudaError::INVALID_HANDLE)?;
    if attribute == Id::CU_LAUNCH_ATTRIBUTE_PRIORITY {
        // SAFETY: every variant was read, and this one is an integer.
        let priority = unsafe { value.priority };
        let (least, greatest) = super::context_settings::PRIORITIES;
        if !(greatest..=least).contains(&priority) {
            return Err(CudaError::INVALID_VALUE);
        }
        known.priority = priority;
    }
    known.attributes.insert(attribute.0, Opaque(value));
    Ok(())
}
