//! Which context is current, what a lost or destroyed one answers, faults on demand.

use std::ptr;
use std::thread;

use softcuda::{Config, Schedule, Simulator};
use wharf_sys::bindings::CUcontext;
use wharf_sys::{Api, CudaError};

use crate::support::{Rig, code};

fn current(api: &Api) -> CUcontext {
    let mut context = ptr::null_mut();
    unsafe { api.ctx_get_current.call(&raw mut context) }.unwrap();
    context
}

#[test]
fn nothing_works_before_init() {
    let simulator = Simulator::new(Rig::config());
    let _bound = simulator.bind();
    let api = crate::support::api();
    let mut count = 0;
    let result = unsafe { api.device_get_count.call(&raw mut count) };
    assert_eq!(code(result), CudaError::NOT_INITIALIZED);
}

#[test]
fn the_primary_context_keeps_its_handle_and_counts_its_owners() {
    let rig = Rig::new(Schedule::Async);
    let mut again = ptr::null_mut();
    let (mut flags, mut active) = (0, 0);
    unsafe {
        rig.api.device_primary_ctx_retain.call(&raw mut again, 0).unwrap();
        assert_eq!(again, rig.context);
        assert_eq!(code(rig.api.ctx_destroy.call(again)), CudaError::INVALID_CONTEXT);
        for _ in 0..2 {
            rig.api.device_primary_ctx_release.call(0).unwrap();
        }
        rig.api.device_primary_ctx_get_state.call(0, &raw mut flags, &raw mut active).unwrap();
        assert_eq!(active, 0);
        assert_eq!(code(rig.api.device_primary_ctx_release.call(0)), CudaError::INVALID_CONTEXT);
        assert_eq!(code(rig.api.ctx_synchronize.call()), CudaError::CONTEXT_IS_DESTROYED);
        rig.api.device_primary_ctx_retain.call(&raw mut again, 0).unwrap();
        assert_eq!(again, rig.context);
        rig.api.ctx_synchronize.call().unwrap();
    }
}

#[test]
fn contexts_are_a_stack_of_the_thread() {
    let rig = Rig::new(Schedule::Async);
    let (mut made, mut popped) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        rig.api.ctx_create.call(&raw mut made, 0, 0).unwrap();
        assert_eq!(current(&rig.api), made);
        rig.api.ctx_pop_current.call(&raw mut popped).unwrap();
        assert_eq!((popped, current(&rig.api)), (made, rig.context));
        rig.api.ctx_push_current.call(made).unwrap();
        rig.api.ctx_destroy.call(made).unwrap();
        assert_eq!(current(&rig.api), rig.context, "destroying the current context pops it");
        let mut version = 0;
        let stale = rig.api.ctx_get_api_version.call(made, &raw mut version);
        assert_eq!(code(stale), CudaError::INVALID_CONTEXT);
    }
}

#[test]
fn a_thread_begins_without_a_context_and_gets_the_machine_with_one() {
    let rig = Rig::new(Schedule::Async);
    let context = rig.context.expose_provenance();
    let api = &rig.api;
    thread::scope(|scope| {
        scope.spawn(move || {
            assert!(current(api).is_null());
            let context = ptr::with_exposed_provenance_mut(context);
            unsafe { api.ctx_set_current.call(context) }.unwrap();
            unsafe { api.ctx_synchronize.call() }.unwrap();
            unsafe { api.ctx_set_current.call(ptr::null_mut()) }.unwrap();
        });
    });
}

#[test]
fn after_a_device_fault_every_call_says_so_and_nothing_more_runs() {
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(2)] {
        let rig = Rig::new(schedule);
        let (stream, event, word, gate) =
            (rig.stream(1), rig.event(2), rig.pinned(8), rig.device(8));
        word.fill(0);
        unsafe {
            rig.api.memset_d8.call(gate, 0, 8).unwrap();
            rig.api.ctx_synchronize.call().unwrap();
            rig.api.stream_wait_value_64.call(stream, gate, 1, 0).unwrap();
            let address = word.as_ptr().expose_provenance() as u64;
            rig.api.stream_write_value_64.call(stream, address, 1, 0).unwrap();
            rig.api.event_record.call(event, stream).unwrap();
            rig.simulator.fault_devices(CudaError::ILLEGAL_ADDRESS);
            for result in [
                rig.api.stream_synchronize.call(stream),
                rig.api.stream_query.call(stream),
                rig.api.event_synchronize.call(event),
                rig.api.event_query.call(event),
                rig.api.ctx_synchronize.call(),
                rig.api.mem_free.call(gate),
            ] {
                assert_eq!(code(result), CudaError::ILLEGAL_ADDRESS, "{schedule:?}");
            }
            assert_eq!(word, [0; 8], "{schedule:?}");
            rig.api.device_primary_ctx_release.call(0).unwrap();
        }
    }
}

#[test]
fn a_waiting_thread_hears_of_a_device_fault() {
    let rig = Rig::new(Schedule::Async);
    let (stream, gate) = (rig.stream(1), rig.device(8));
    unsafe {
        rig.api.memset_d8.call(gate, 0, 8).unwrap();
        rig.api.stream_wait_value_64.call(stream, gate, 1, 0).unwrap();
    }
    let (api, context, stream) =
        (&rig.api, rig.context.expose_provenance(), stream.expose_provenance());
    thread::scope(|scope| {
        let waiter = scope.spawn(move || unsafe {
            api.ctx_set_current.call(ptr::with_exposed_provenance_mut(context)).unwrap();
            api.stream_synchronize.call(ptr::with_exposed_provenance_mut(stream))
        });
        rig.simulator.fault_devices(CudaError::LAUNCH_FAILED);
        assert_eq!(code(waiter.join().unwrap()), CudaError::LAUNCH_FAILED);
    });
}

#[test]
fn the_nth_call_fails_and_does_nothing() {
    let rig = Rig::new(Schedule::Async);
    rig.simulator.fail("cuMemAlloc", 2, CudaError::OUT_OF_MEMORY);
    let first = rig.device(64);
    let mut second = 0;
    let result = unsafe { rig.api.mem_alloc.call(&raw mut second, 64) };
    assert_eq!((code(result), second), (CudaError::OUT_OF_MEMORY, 0));
    let third = rig.device(64);
    assert_ne!(first, third);
    assert_eq!(rig.simulator.calls("cuMemAlloc"), 3);
    unsafe { rig.api.mem_free.call(first) }.unwrap();
    unsafe { rig.api.mem_free.call(third) }.unwrap();
    let leaks = rig.simulator.leaks();
    assert_eq!(leaks.len(), 1, "only the primary context: {leaks:?}");
}

#[test]
fn a_thread_whose_machine_has_gone_is_told_so() {
    let simulator = Simulator::new(Config::default());
    let _bound = simulator.bind();
    let api = crate::support::api();
    unsafe { api.init.call(0) }.unwrap();
    drop(simulator);
    let mut pointer = 0;
    assert_eq!(code(unsafe { api.mem_alloc.call(&raw mut pointer, 64) }), CudaError::DEINITIALIZED);
    assert_eq!(code(unsafe { api.init.call(0) }), CudaError::DEINITIALIZED);
}

#[test]
#[should_panic(expected = "there is no call cuNoSuchCall")]
fn a_fault_of_a_call_that_does_not_exist_is_refused() {
    Simulator::new(Config::default()).fail("cuNoSuchCall", 1, CudaError::OUT_OF_MEMORY);
}

#[test]
#[should_panic(expected = "the calls of cuMemAlloc are counted from 1")]
fn a_fault_of_the_call_before_the_first_is_refused() {
    Simulator::new(Config::default()).fail("cuMemAlloc", 0, CudaError::OUT_OF_MEMORY);
}

#[test]
#[should_panic(expected = "there is no call cuNoSuchCall")]
fn counting_a_call_that_does_not_exist_is_a_panic() {
    Simulator::new(Config::default()).calls("cuNoSuchCall");
}
