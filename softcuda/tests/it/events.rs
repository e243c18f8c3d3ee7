//! Events: snapshots, timing, contexts.

use std::ptr;

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::CUcontext;

use crate::support::{Rig, code};

const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;

#[test]
fn an_event_that_was_never_recorded_is_complete() {
    let rig = Rig::new(Schedule::Late);
    let (event, stream) = (rig.event(0), rig.stream(1));
    unsafe {
        rig.api.event_query.call(event).unwrap();
        rig.api.event_synchronize.call(event).unwrap();
        rig.api.stream_wait_event.call(stream, event, 0).unwrap();
        rig.synchronize(stream);
    }
}

#[test]
fn a_later_record_does_not_change_an_earlier_wait() {
    let rig = Rig::new(Schedule::Late);
    let (first, held, waiting) = (rig.stream(1), rig.stream(1), rig.stream(1));
    let (event, gate) = (rig.event(DISABLE_TIMING), rig.device(8));
    unsafe {
        rig.api.memset_d8.call(gate, 0, 8).unwrap();
        rig.api.ctx_synchronize.call().unwrap();
        rig.api.event_record.call(event, first).unwrap();
        rig.api.stream_wait_event.call(waiting, event, 0).unwrap();
        rig.api.stream_wait_value_64.call(held, gate, 1, 0).unwrap();
        rig.api.event_record.call(event, held).unwrap();
        rig.synchronize(waiting);
        assert_eq!(code(rig.api.event_query.call(event)), CudaError::NOT_READY);
        rig.api.stream_write_value_64.call(first, gate, 1, 0).unwrap();
        rig.api.event_synchronize.call(event).unwrap();
    }
}

#[test]
fn elapsed_time_needs_two_timed_records_that_are_complete() {
    let rig = Rig::new(Schedule::Late);
    let (start, end, untimed) = (rig.event(0), rig.event(0), rig.event(DISABLE_TIMING));
    let stream = rig.stream(1);
    let mut time = -1.0_f32;
    unsafe {
        let elapsed = |a, b, time: *mut f32| rig.api.event_elapsed_time.call(time, a, b);
        assert_eq!(code(elapsed(start, end, &raw mut time)), CudaError::INVALID_HANDLE);
        for event in [start, untimed, end] {
            rig.api.event_record.call(event, stream).unwrap();
        }
        assert_eq!(code(elapsed(start, end, &raw mut time)), CudaError::NOT_READY);
        rig.synchronize(stream);
        assert_eq!(code(elapsed(start, untimed, &raw mut time)), CudaError::INVALID_HANDLE);
        elapsed(start, end, &raw mut time).unwrap();
        assert!(time >= 0.0);
    }
}

#[test]
fn an_event_between_processes_carries_no_time() {
    let rig = Rig::new(Schedule::Async);
    let mut event = ptr::null_mut();
    let result = unsafe { rig.api.event_create.call(&raw mut event, INTERPROCESS) };
    assert_eq!(code(result), CudaError::INVALID_VALUE);
    unsafe { rig.api.event_create.call(&raw mut event, INTERPROCESS | DISABLE_TIMING) }.unwrap();
}

#[test]
fn a_record_stays_in_its_context_and_a_wait_may_leave_it() {
    let rig = Rig::new(Schedule::Async);
    let (event, stream) = (rig.event(0), rig.stream(1));
    let mut other: CUcontext = ptr::null_mut();
    unsafe {
        rig.api.event_record.call(event, stream).unwrap();
        rig.api.ctx_create.call(&raw mut other, 0, 0).unwrap();
        let foreign = rig.stream(1);
        assert_eq!(code(rig.api.event_record.call(event, foreign)), CudaError::INVALID_HANDLE);
        rig.api.stream_wait_event.call(foreign, event, 0).unwrap();
        rig.synchronize(foreign);
        rig.api.ctx_destroy.call(other).unwrap();
    }
}

#[test]
fn a_destroyed_event_is_unknown_and_its_work_goes_on() {
    let rig = Rig::new(Schedule::Late);
    let (event, stream, after, device) =
        (rig.event(0), rig.stream(1), rig.stream(1), rig.device(4));
    unsafe {
        rig.api.memset_d32_async.call(device, 3, 1, stream).unwrap();
        rig.api.event_record.call(event, stream).unwrap();
        rig.api.stream_wait_event.call(after, event, 0).unwrap();
        rig.api.event_destroy.call(event).unwrap();
        rig.api.stream_destroy.call(stream).unwrap();
        assert_eq!(code(rig.api.event_query.call(event)), CudaError::INVALID_HANDLE);
        assert_eq!(code(rig.api.stream_query.call(stream)), CudaError::INVALID_HANDLE);
        rig.synchronize(after);
    }
    assert_eq!(rig.read(device, 4), 3_u32.to_ne_bytes());
}
