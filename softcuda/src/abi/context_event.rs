#![expect(unsafe_code, reason = "exports C functions")]
//! Contexts as a whole in the order of things, and their usage counts.

use core::ffi::c_uint;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::event::EventState;
use crate::handle::{number, to_pointer};
use crate::machine::{State, Work};
use crate::sched::Origin;
use crate::sched::work::Record;

exports! {
    Normal PFN_cuCtxRecordEvent_v12050: cuCtxRecordEvent(
        context: CUcontext, event: CUevent,
    ) => record_event;
    Normal PFN_cuCtxWaitEvent_v12050: cuCtxWaitEvent(
        context: CUcontext, event: CUevent,
    ) => wait_event;
    Always PFN_cuCtxAttach_v2000: cuCtxAttach(context: *mut CUcontext, flags: c_uint) => attach;
    Always PFN_cuCtxDetach_v2000: cuCtxDetach(context: CUcontext) => detach;
}

impl Call<'_> {
    /// The context that is named, or the current one for null.
    fn named(self, state: &State, context: CUcontext) -> Status<u64> {
        match number(context) {
            0 => self.context(state),
            handle if state.contexts.contains(handle) => Ok(handle),
            _ => Err(CudaError::INVALID_CONTEXT),
        }
    }
}

/// "Captures in hEvent all the activities of the context hCtx at the time of this call."
fn record_event(call: Call, context: CUcontext, event: CUevent) -> Status {
    let mut state = call.lock();
    let context = call.named(&state, context)?;
    let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?;
    if known.context != context {
        return Err(CudaError::INVALID_HANDLE);
    }
    call.forbid_while_capturing(&mut state, Some(context))?;
    let record = Arc::new(Record::default());
    let all = state.queue.of_context(context);
    let origin = Origin { call: call.name, context, stream: 0 };
    let op = state.queue.add(origin, Work::Record(Arc::clone(&record)), &all);
    // The event follows all work of the context, complete work included.
    state.queue.hear_everything(op);
    if let Some(event) = state.events.get_mut(number(event)) {
        event.state = EventState::Recorded { op, record };
    }
    drop(call.machine.kick(state));
    Ok(())
}

/// "Makes all future work submitted to context hCtx wait for all work captured in hEvent."
fn wait_event(call: Call, context: CUcontext, event: CUevent) -> Status {
    let mut state = call.lock();
    let context = call.named(&state, context)?;
    let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?.state.clone();
    call.forbid_while_capturing(&mut state, Some(context))?;
    let op = match known {
        EventState::Unrecorded => return Ok(()),
        EventState::Captured { .. } => return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED),
        EventState::Recorded { op, .. } => op,
    };
    let origin = Origin { call: call.name, context, stream: 0 };
    let before = state.contexts.get(context).map_or(0, |context| context.barrier);
    // Later work depends on one operation, which in turn depends on the earlier barrier: a stream
    // looks at one barrier however many events are waited for.
    let barrier = state.queue.add(origin, Work::Nothing, &[op, before]);
    if let Some(context) = state.contexts.get_mut(context) {
        context.barrier = barrier;
    }
    drop(call.machine.kick(state));
    Ok(())
}

/// "Increments the usage count of the context."
fn attach(call: Call, context: *mut CUcontext, flags: c_uint) -> Status {
    if flags != 0 || !valid(context) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.context(&state)?;
    if let Some(known) = state.contexts.get_mut(handle) {
        known.usage += 1;
    }
    out(context, to_pointer(handle))
}

/// "Decrements the usage count of the context, and destroys the context if the usage count goes
/// to 0. The context … must be current to the calling thread."
fn detach(call: Call, context: CUcontext) -> Status {
    let mut state = call.lock();
    let handle = call.context(&state)?;
    if number(context) != handle {
        return Err(CudaError::INVALID_CONTEXT);
    }
    let known = state.contexts.get_mut(handle).ok_or(CudaError::INVALID_CONTEXT)?;
    if known.usage > 1 {
        known.usage -= 1;
        return Ok(());
    }
    drop(state);
    super::context::destroy(call, context)
}
