//! Order within and between streams.

use softcuda::{Check, Schedule};
use wharf_sys::CudaError;

use crate::support::{Rig, code};

#[test]
fn a_copy_reads_its_pinned_source_late_under_late_and_early_under_eager() {
    for (schedule, expected) in [(Schedule::Late, 2), (Schedule::Eager, 1)] {
        let rig = Rig::new(schedule);
        let (stream, device, source) = (rig.stream(1), rig.device(64), rig.pinned(64));
        source.fill(1);
        unsafe { rig.api.memcpy_htod_async.call(device, source.as_ptr().cast(), 64, stream) }
            .unwrap();
        source.fill(2);
        rig.synchronize(stream);
        assert_eq!(rig.read(device, 64), [expected; 64], "{schedule:?}");
        let violations = rig.simulator.violations();
        assert_eq!(violations.len(), usize::from(schedule == Schedule::Late), "{violations:?}");
        for violation in violations {
            assert_eq!(
                (violation.check, violation.call),
                (Check::SourceStable, "cuMemcpyHtoDAsync")
            );
            assert_eq!(violation.stream, stream.addr() as u64);
            assert!(
                violation.what.contains(&format!("{:#x}", source.as_ptr().addr())),
                "{}",
                violation.what
            );
            assert!(violation.what.contains(&format!("{device:#x}")), "{}", violation.what);
        }
    }
}

#[test]
fn a_pageable_source_may_be_reused_when_the_call_returns() {
    for schedule in [Schedule::Async, Schedule::Late, Schedule::Random(3)] {
        let rig = Rig::new(schedule);
        let (stream, device) = (rig.stream(1), rig.device(8));
        let mut source = [1_u8; 8];
        unsafe { rig.api.memcpy_htod_async.call(device, source.as_ptr().cast(), 8, stream) }
            .unwrap();
        source.fill(2);
        rig.synchronize(stream);
        assert_eq!(rig.read(device, 8), [1; 8]);
    }
}

#[test]
fn a_stream_waits_for_the_record_that_was_the_last_one_at_the_wait() {
    let rig = Rig::new(Schedule::Late);
    let (first, second, event) = (rig.stream(1), rig.stream(1), rig.event(2));
    let device = rig.device(4);
    unsafe {
        rig.api.memset_d32_async.call(device, 7, 1, first).unwrap();
        rig.api.event_record.call(event, first).unwrap();
        rig.api.stream_wait_event.call(second, event, 0).unwrap();
        assert_eq!(code(rig.api.event_query.call(event)), CudaError::NOT_READY);
        rig.synchronize(second);
        assert_eq!(rig.read(device, 4), 7_u32.to_ne_bytes());
        rig.api.event_query.call(event).unwrap();
    }
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams_and_only_for_them() {
    let rig = Rig::new(Schedule::Late);
    let (blocking, free) = (rig.stream(0), rig.stream(1));
    let (a, b) = (rig.device(4), rig.device(4));
    unsafe {
        rig.api.memset_d32_async.call(a, 1, 1, blocking).unwrap();
        rig.api.memset_d32_async.call(b, 1, 1, free).unwrap();
        rig.api.stream_synchronize.call(std::ptr::null_mut()).unwrap();
        rig.api.stream_query.call(blocking).unwrap();
        assert_eq!(code(rig.api.stream_query.call(free)), CudaError::NOT_READY);
    }
}

#[test]
fn a_program_that_polls_memory_sees_the_write_in_every_schedule() {
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(1)] {
        let rig = Rig::polled(schedule);
        let (stream, word) = (rig.stream(1), rig.pinned(8));
        word.fill(0);
        let address = word.as_ptr().expose_provenance() as u64;
        unsafe { rig.api.stream_write_value_64.call(stream, address, 5, 0) }.unwrap();
        let word: &std::sync::atomic::AtomicU64 = unsafe { &*word.as_ptr().cast() };
        while word.load(std::sync::atomic::Ordering::Acquire) != 5 {
            std::hint::spin_loop();
        }
    }
}

#[test]
fn a_wait_for_a_value_holds_its_stream_until_another_stream_writes_it() {
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(1)] {
        let rig = Rig::new(schedule);
        let (waiting, writing) = (rig.stream(1), rig.stream(1));
        let (word, flag) = (rig.device(8), rig.device(4));
        unsafe {
            rig.api.memset_d8.call(word, 0, 8).unwrap();
            rig.api.stream_synchronize.call(std::ptr::null_mut()).unwrap();
            rig.api.stream_wait_value_64.call(waiting, word, 3, 0).unwrap();
            rig.api.memset_d32_async.call(flag, 9, 1, waiting).unwrap();
            assert_eq!(code(rig.api.stream_query.call(waiting)), CudaError::NOT_READY);
            rig.api.stream_write_value_64.call(writing, word, 3, 0).unwrap();
            rig.synchronize(waiting);
        }
        assert_eq!(rig.read(flag, 4), 9_u32.to_ne_bytes());
    }
}
