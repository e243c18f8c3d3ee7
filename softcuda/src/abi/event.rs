#![expect(unsafe_code, reason = "exports C functions")]
//! Events.

use core::ffi::c_uint;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::event::{DISABLE_TIMING, Event, EventState, INTERPROCESS};
use crate::handle::{number, to_pointer};
use crate::machine::Work;
use crate::sched::work::Record;

#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuEventDestroy_v2000 = PFN_cuEventDestroy_v4000;

exports! {
    Normal PFN_cuEventCreate_v2000: cuEventCreate(event: *mut CUevent, flags: c_uint) => create;
    Always PFN_cuEventDestroy_v2000: cuEventDestroy(event: CUevent) => destroy;
    Always PFN_cuEventDestroy_v4000: cuEventDestroy_v2(event: CUevent) => destroy;
    Normal PFN_cuEventRecord_v2000: cuEventRecord(
        event: CUevent, stream: CUstream,
    ) | cuEventRecord_ptsz => record;
    Normal PFN_cuEventRecordWithFlags_v11010: cuEventRecordWithFlags(
        event: CUevent, stream: CUstream, flags: c_uint,
    ) | cuEventRecordWithFlags_ptsz => record_with_flags;
    Normal PFN_cuEventQuery_v2000: cuEventQuery(event: CUevent) => query;
    Normal PFN_cuEventSynchronize_v2000: cuEventSynchronize(event: CUevent) => synchronize;
    Normal PFN_cuEventElapsedTime_v2000: cuEventElapsedTime(
        milliseconds: *mut f32, start: CUevent, end: CUevent,
    ) => elapsed_time;
    Normal PFN_cuEventElapsedTime_v12080: cuEventElapsedTime_v2(
        milliseconds: *mut f32, start: CUevent, end: CUevent,
    ) => elapsed_time_v2;
    Normal PFN_cuStreamWaitEvent_v3020: cuStreamWaitEvent(
        stream: CUstream, event: CUevent, flags: c_uint,
    ) | cuStreamWaitEvent_ptsz => wait_event;
}

/// Blocking synchronisation, no timing, between processes.
const FLAGS: c_uint = 7;
/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`: a node of its own in a capture.
const EXTERNAL: c_uint = 1;

fn create(call: Call, event: *mut CUevent, flags: c_uint) -> Status {
    let needs_no_timing = flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0;
    if !valid(event) || flags & !FLAGS != 0 || needs_no_timing {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let context = call.context(&state)?;
    let handle = state.events.insert(Event { context, flags, state: EventState::Unrecorded });
    out(event, to_pointer(handle))
}

fn destroy(call: Call, event: CUevent) -> Status {
    // "May be destroyed before it is complete. The resources are released at completion":
    // operations hold the record, not the event.
    call.lock().events.remove(number(event)).map(|_| ()).ok_or(CudaError::INVALID_HANDLE)
}

fn record(call: Call, event: CUevent, stream: CUstream) -> Status {
    record_with_flags(call, event, stream, 0)
}

fn record_with_flags(call: Call, event: CUevent, stream: CUstream, flags: c_uint) -> Status {
    if flags & !EXTERNAL != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let stream = call.stream(&mut state, stream)?;
    let handle = number(event);
    let context =
        state.events.get(handle).map(|event| event.context).ok_or(CudaError::INVALID_HANDLE)?;
    // "hEvent and hStream must be from the same context otherwise CUDA_ERROR_INVALID_HANDLE."
    if state.streams.get(stream).is_none_or(|stream| stream.context != context) {
        return Err(CudaError::INVALID_HANDLE);
    }
    if call.capture_record(&mut state, handle, stream, flags & EXTERNAL != 0)? {
        return Ok(());
    }
    if flags & EXTERNAL != 0 {
        // "Outside of stream capture, the external flag is not permitted."
        return Err(CudaError::INVALID_VALUE);
    }
    let record = Arc::new(Record::default());
    let (mut state, op) = call.enqueue(state, stream, Work::Record(Arc::clone(&record)), &[])?;
    if let Some(event) = state.events.get_mut(handle) {
        event.state = EventState::Recorded { op, record };
    }
    Ok(())
}

fn query(call: Call, event: CUevent) -> Status {
    let mut state = call.lock();
    let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?;
    let context = known.context;
    let known = known.state.clone();
    if matches!(known, EventState::Captured { .. }) {
        return call.captured_event(&mut state, number(event));
    }
    // Its answer would not be the same when the graph is launched.
    call.forbid_while_capturing(&mut state, None)?;
    match known {
        EventState::Unrecorded | EventState::Captured { .. } => Ok(()),
        EventState::Recorded { op, .. } => call.machine.is_complete(state, &[op], context),
    }
}

fn synchronize(call: Call, event: CUevent) -> Status {
    let mut state = call.lock();
    let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?;
    let context = known.context;
    match known.state.clone() {
        EventState::Unrecorded => Ok(()),
        EventState::Captured { .. } => call.captured_event(&mut state, number(event)),
        EventState::Recorded { op, .. } => call.machine.wait(state, &[op]).lost(context),
    }
}

fn elapsed_time(call: Call, milliseconds: *mut f32, start: CUevent, end: CUevent) -> Status {
    if !valid(milliseconds) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(milliseconds, elapsed(call, start, end)?)
}

/// The newer form answers null pointers and unknown events alike.
fn elapsed_time_v2(call: Call, milliseconds: *mut f32, start: CUevent, end: CUevent) -> Status {
    elapsed_time(call, milliseconds, start, end)
}

/// The time between two records, in milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "the driver API answers in single precision")]
fn elapsed(call: Call, start: CUevent, end: CUevent) -> Status<f32> {
    let mut state = call.lock();
    let time = |event: CUevent| {
        let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?;
        if known.flags & DISABLE_TIMING != 0 {
            return Err(CudaError::INVALID_HANDLE);
        }
        match &known.state {
            EventState::Unrecorded => Err(CudaError::INVALID_HANDLE),
            EventState::Captured { .. } => Err(CudaError::CAPTURED_EVENT),
            EventState::Recorded { record, .. } => Ok(record.time()),
        }
    };
    let (start, end) = (time(start)?, time(end)?);
    let (Some(start), Some(end)) = (start, end) else { return Err(CudaError::NOT_READY) };
    // A time tells the host that both records are complete.
    state.queue.learn_everything();
    let forward = end.saturating_duration_since(start).as_secs_f64();
    let backward = start.saturating_duration_since(end).as_secs_f64();
    Ok(((forward - backward) * 1e3) as f32)
}

fn wait_event(call: Call, stream: CUstream, event: CUevent, flags: c_uint) -> Status {
    if flags & !EXTERNAL != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let stream = call.stream(&mut state, stream)?;
    let handle = number(event);
    let known = state
        .events
        .get(handle)
        .map(|event| event.state.clone())
        .ok_or(CudaError::INVALID_HANDLE)?;
    if call.capture_wait(&mut state, handle, stream, flags & EXTERNAL != 0)? {
        return Ok(());
    }
    if flags & EXTERNAL != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    // The record is the one of now: a later one does not change what this waits for.
    match known {
        EventState::Recorded { op, .. } => {
            call.enqueue(state, stream, Work::Nothing, &[op]).map(|_| ())
        }
        EventState::Unrecorded | EventState::Captured { .. } => Ok(()),
    }
}
