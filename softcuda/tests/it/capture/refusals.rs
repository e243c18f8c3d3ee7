//! What a capture refuses, and which error says so.

use std::ptr;

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::CUstream;

use super::{ACTIVE, INVALIDATED, NONE};
use crate::graph_rig::{GLOBAL, RELAXED, THREAD_LOCAL};
use crate::support::{Rig, code};

/// Asserts that the capture on `stream` is beyond repair, until it is ended.
pub(super) fn assert_invalid(rig: &Rig, stream: CUstream) {
    assert_eq!(rig.status(stream), INVALIDATED);
    let to = rig.device_unchecked();
    let again = unsafe { rig.api.memset_d32_async.call(to, 1, 1, stream) };
    assert_eq!(code(again), CudaError::STREAM_CAPTURE_INVALIDATED);
    assert_eq!(rig.end(stream).unwrap_err().code(), Some(CudaError::STREAM_CAPTURE_INVALIDATED));
    assert_eq!(rig.status(stream), NONE);
}

#[test]
fn asking_or_waiting_for_a_capturing_stream_is_900() {
    let rig = Rig::new(Schedule::Async);
    let stream = rig.stream(1);
    let ask = |rig: &Rig| unsafe { rig.api.stream_query.call(stream) };
    let wait = |rig: &Rig| unsafe { rig.api.stream_synchronize.call(stream) };
    let wait_for_all = |rig: &Rig| unsafe { rig.api.ctx_synchronize.call() };
    extern "C" fn nothing(_: CUstream, _: wharf_sys::bindings::CUresult, _: *mut std::ffi::c_void) {
    }
    let call_back = |rig: &Rig| unsafe {
        rig.api.stream_add_callback.call(stream, Some(nothing), ptr::null_mut(), 0)
    };
    let calls: [&Asks<'_>; 4] = [&ask, &wait, &wait_for_all, &call_back];
    for call in calls {
        for mode in [GLOBAL, THREAD_LOCAL, RELAXED] {
            rig.begin(stream, mode);
            assert_eq!(code(call(&rig)), CudaError::STREAM_CAPTURE_UNSUPPORTED);
            assert_invalid(&rig, stream);
        }
    }
}

#[test]
fn unsafe_calls_are_900_by_the_modes_of_the_thread_and_of_the_capture() {
    let rig = Rig::new(Schedule::Async);
    let stream = rig.stream(1);
    // (mode of the capture, mode of the thread) and whether this thread, which captures, may
    // allocate; and whether another thread may.
    let table = [
        (GLOBAL, GLOBAL, false, false),
        (GLOBAL, THREAD_LOCAL, false, true),
        (GLOBAL, RELAXED, true, true),
        (THREAD_LOCAL, GLOBAL, false, true),
        (THREAD_LOCAL, THREAD_LOCAL, false, true),
        (THREAD_LOCAL, RELAXED, true, true),
        (RELAXED, GLOBAL, true, true),
        (RELAXED, THREAD_LOCAL, true, true),
        (RELAXED, RELAXED, true, true),
    ];
    for (capture, thread, own, other) in table {
        for (allowed, elsewhere) in [(own, false), (other, true)] {
            rig.begin(stream, capture);
            let allocate = || {
                let (mut mode, mut pointer) = (thread, 0);
                unsafe { rig.api.thread_exchange_stream_capture_mode.call(&raw mut mode) }.unwrap();
                let result = unsafe { rig.api.mem_alloc.call(&raw mut pointer, 16) };
                unsafe { rig.api.thread_exchange_stream_capture_mode.call(&raw mut mode) }.unwrap();
                assert_eq!(mode, thread);
                result.map_err(|error| error.code().unwrap())
            };
            let result = if elsewhere { rig.elsewhere(allocate) } else { allocate() };
            let expected =
                if allowed { Ok(()) } else { Err(CudaError::STREAM_CAPTURE_UNSUPPORTED) };
            assert_eq!(result, expected, "{capture:?} {thread:?} {elsewhere}");
            if allowed {
                rig.end(stream).unwrap();
            } else {
                assert_invalid(&rig, stream);
            }
        }
    }
}

#[test]
fn a_query_of_an_event_counts_as_unsafe() {
    let rig = Rig::new(Schedule::Async);
    let (stream, event) = (rig.stream(1), rig.event(0));
    rig.begin(stream, GLOBAL);
    let asked = unsafe { rig.api.event_query.call(event) };
    assert_eq!(code(asked), CudaError::STREAM_CAPTURE_UNSUPPORTED);
    assert_invalid(&rig, stream);
}

#[test]
fn two_captures_that_meet_are_902_and_both_invalid() {
    let rig = Rig::new(Schedule::Async);
    let (a, b, event) = (rig.stream(1), rig.stream(1), rig.event(0));
    rig.begin(a, THREAD_LOCAL);
    rig.begin(b, THREAD_LOCAL);
    rig.record(event, a);
    let met = unsafe { rig.api.stream_wait_event.call(b, event, 0) };
    assert_eq!(code(met), CudaError::STREAM_CAPTURE_MERGE);
    assert_invalid(&rig, a);
    assert_invalid(&rig, b);
}

#[test]
fn a_capture_ends_on_its_stream_903_with_its_forks_joined_904_and_on_its_thread_908() {
    let rig = Rig::new(Schedule::Async);
    let (a, b, event, to) = (rig.stream(1), rig.stream(1), rig.event(0), rig.device(4));
    let forked = |mode| {
        rig.begin(a, mode);
        rig.record(event, a);
        rig.wait(b, event);
    };
    forked(GLOBAL);
    assert_eq!(rig.end(b).unwrap_err().code(), Some(CudaError::STREAM_CAPTURE_UNMATCHED));
    assert_eq!(rig.elsewhere(|| rig.end_here(a)), Err(CudaError::STREAM_CAPTURE_WRONG_THREAD));
    rig.end(a).unwrap();
    forked(GLOBAL);
    rig.fill(to, 1, b);
    assert_eq!(rig.end(a).unwrap_err().code(), Some(CudaError::STREAM_CAPTURE_UNJOINED));
    assert_eq!((rig.status(a), rig.status(b)), (NONE, NONE));
    forked(RELAXED);
    assert_eq!(rig.elsewhere(|| rig.end_here(a)), Ok(()));
    assert_eq!(rig.status(b), NONE);
}

#[test]
fn a_wait_for_work_outside_the_capture_is_905() {
    let rig = Rig::new(Schedule::Async);
    let (stream, event, never) = (rig.stream(1), rig.event(0), rig.event(0));
    rig.record(event, rig.stream(1));
    rig.begin(stream, THREAD_LOCAL);
    rig.wait(stream, never);
    let crossed = unsafe { rig.api.stream_wait_event.call(stream, event, 0) };
    assert_eq!(code(crossed), CudaError::STREAM_CAPTURE_ISOLATION);
    assert_invalid(&rig, stream);
}

#[test]
fn the_legacy_stream_is_906_while_a_blocking_stream_captures() {
    let rig = Rig::new(Schedule::Async);
    let (blocking, free, to) = (rig.stream(0), rig.stream(1), rig.device(4));
    let legacy = ptr::null_mut();
    let mut status = NONE;
    rig.begin(blocking, THREAD_LOCAL);
    let asked = unsafe { rig.api.stream_is_capturing.call(legacy, &raw mut status) };
    assert_eq!(code(asked), CudaError::STREAM_CAPTURE_IMPLICIT);
    assert_eq!(rig.status(blocking), ACTIVE, "a question does no harm");
    let used = unsafe { rig.api.memset_d32_async.call(to, 1, 1, legacy) };
    assert_eq!(code(used), CudaError::STREAM_CAPTURE_IMPLICIT);
    assert_invalid(&rig, blocking);
    rig.begin(blocking, RELAXED);
    let synchronous = unsafe { rig.api.memset_d32.call(to, 1, 1) };
    assert_eq!(code(synchronous), CudaError::STREAM_CAPTURE_IMPLICIT);
    assert_invalid(&rig, blocking);
    rig.begin(free, RELAXED);
    rig.fill(to, 1, legacy);
    assert_eq!(rig.status(legacy), NONE);
    rig.end(free).unwrap();
}

#[test]
fn an_event_recorded_in_a_capture_is_907() {
    let rig = Rig::new(Schedule::Async);
    let (stream, event) = (rig.stream(1), rig.event(0));
    rig.begin(stream, RELAXED);
    rig.record(event, stream);
    rig.end(stream).unwrap();
    let mut milliseconds = 0.0;
    unsafe {
        assert_eq!(code(rig.api.event_query.call(event)), CudaError::CAPTURED_EVENT);
        assert_eq!(code(rig.api.event_synchronize.call(event)), CudaError::CAPTURED_EVENT);
        let elapsed = rig.api.event_elapsed_time.call(&raw mut milliseconds, event, event);
        assert_eq!(code(elapsed), CudaError::CAPTURED_EVENT);
        assert_eq!(
            code(rig.api.stream_wait_event.call(stream, event, 0)),
            CudaError::CAPTURED_EVENT
        );
    }
    rig.record(event, stream);
    unsafe { rig.api.event_synchronize.call(event) }.unwrap();
    rig.begin(stream, RELAXED);
    rig.record(event, stream);
    assert_eq!(code(unsafe { rig.api.event_query.call(event) }), CudaError::CAPTURED_EVENT);
    assert_invalid(&rig, stream);
}

#[test]
fn a_capture_does_not_begin_on_the_legacy_stream_nor_twice() {
    let rig = Rig::new(Schedule::Async);
    let stream = rig.stream(1);
    unsafe {
        let legacy = rig.api.stream_begin_capture.call(ptr::null_mut(), GLOBAL);
        assert_eq!(code(legacy), CudaError::STREAM_CAPTURE_UNSUPPORTED);
        let mode =
            rig.api.stream_begin_capture.call(stream, wharf_sys::bindings::CUstreamCaptureMode(3));
        assert_eq!(code(mode), CudaError::INVALID_VALUE);
        rig.begin(stream, GLOBAL);
        assert_eq!(
            code(rig.api.stream_begin_capture.call(stream, GLOBAL)),
            CudaError::ILLEGAL_STATE
        );
    }
    rig.end(stream).unwrap();
    assert_eq!(rig.end(stream).unwrap_err().code(), Some(CudaError::ILLEGAL_STATE));
}

/// A question or a wait that a capture may forbid.
type Asks<'a> = dyn Fn(&Rig) -> Result<(), wharf_sys::Error> + 'a;
