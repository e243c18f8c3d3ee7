//! Host functions and stream callbacks.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::{CUresult, CUstream};

use crate::support::{Rig, code};

/// What a callback is told and what it tells.
struct Gate {
    open: Receiver<()>,
    said: Sender<CUresult>,
}

unsafe extern "C" fn wait_for_gate(data: *mut c_void) {
    let gate: &Gate = unsafe { &*data.cast() };
    let _ = gate.open.recv();
}

unsafe extern "C" fn call_driver(data: *mut c_void) {
    let gate: &Gate = unsafe { &*data.cast() };
    let mut count = 0;
    let api = crate::support::api();
    let result = unsafe { api.device_get_count.call(&raw mut count) };
    let _ = gate
        .said
        .send(result.map_or_else(|error| error.code().unwrap().as_raw(), |()| CUresult(0)));
}

unsafe extern "C" fn say_status(_: CUstream, status: CUresult, data: *mut c_void) {
    let gate: &Gate = unsafe { &*data.cast() };
    let _ = gate.said.send(status);
}

/// A gate, which has to outlive the machine whose threads use it.
fn gate() -> (Box<Gate>, Sender<()>, Receiver<CUresult>) {
    let ((opener, open), (said, answers)) = (channel(), channel());
    (Box::new(Gate { open, said }), opener, answers)
}

fn data(gate: &Gate) -> *mut c_void {
    ptr::from_ref(gate).cast_mut().cast()
}

#[test]
fn a_blocked_host_function_holds_its_stream_and_no_other() {
    for schedule in [Schedule::Async, Schedule::Eager] {
        let mut gates = Vec::new();
        let rig = Rig::new(schedule);
        let mut openers = Vec::new();
        let held: Vec<_> = (0..8)
            .map(|_| {
                let (stream, (gate, opener, _)) = (rig.stream(1), gate());
                unsafe { rig.api.launch_host_func.call(stream, Some(wait_for_gate), data(&gate)) }
                    .unwrap();
                openers.push(opener);
                gates.push(gate);
                stream
            })
            .collect();
        let (free, device) = (rig.stream(1), rig.device(4));
        unsafe {
            rig.api.memset_d32_async.call(device, 1, 1, free).unwrap();
            rig.synchronize(free);
            for stream in &held {
                assert_eq!(
                    code(rig.api.stream_query.call(*stream)),
                    CudaError::NOT_READY,
                    "{schedule:?}"
                );
            }
        }
        for (stream, opener) in held.into_iter().zip(openers).rev() {
            opener.send(()).unwrap();
            rig.synchronize(stream);
        }
    }
}

#[test]
fn a_host_function_may_not_call_the_driver() {
    let (gate, _opener, answers) = gate();
    let rig = Rig::new(Schedule::Async);
    let stream = rig.stream(1);
    unsafe { rig.api.launch_host_func.call(stream, Some(call_driver), data(&gate)) }.unwrap();
    assert_eq!(answers.recv().unwrap(), CUresult::CUDA_ERROR_NOT_PERMITTED);
}

#[test]
fn after_a_fault_a_callback_is_told_and_a_host_function_is_not_called() {
    let (callback, _opener, answers) = gate();
    let (function, _other, silence) = gate();
    let rig = Rig::new(Schedule::Async);
    let (stream, word) = (rig.stream(1), rig.device(8));
    unsafe {
        rig.api.memset_d8.call(word, 0, 8).unwrap();
        rig.api.ctx_synchronize.call().unwrap();
        rig.api.stream_wait_value_64.call(stream, word, 1, 0).unwrap();
        rig.api.launch_host_func.call(stream, Some(call_driver), data(&function)).unwrap();
        rig.api.stream_add_callback.call(stream, Some(say_status), data(&callback), 0).unwrap();
    }
    rig.simulator.fault_devices(CudaError::ILLEGAL_ADDRESS);
    assert_eq!(answers.recv().unwrap(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(silence.try_recv().is_err());
}

/// How many host functions run, and the most that have run at a time.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

unsafe extern "C" fn join_crowd(data: *mut c_void) {
    let crowd: &Crowd = unsafe { &*data.cast() };
    let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
    crowd.most.fetch_max(now, Ordering::SeqCst);
    // Time for others to come, where they may.
    (0..100).for_each(|_| std::thread::yield_now());
    crowd.now.fetch_sub(1, Ordering::SeqCst);
}

#[test]
fn host_functions_of_independent_streams_may_run_one_at_a_time() {
    for schedule in [Schedule::Late, Schedule::Random(5)] {
        let crowd = Crowd::default();
        let (gate, opener, _) = gate();
        let rig = Rig::new(schedule);
        let (held, streams) = (rig.stream(1), [(); 8].map(|()| rig.stream(1)));
        let data_of_crowd = ptr::from_ref(&crowd).cast_mut().cast();
        unsafe {
            rig.api.launch_host_func.call(held, Some(wait_for_gate), data(&gate)).unwrap();
            // A question lets it go, and it is not answered before the gate opens.
            assert_eq!(code(rig.api.stream_query.call(held)), CudaError::NOT_READY, "{schedule:?}");
            for stream in streams {
                rig.api.launch_host_func.call(stream, Some(join_crowd), data_of_crowd).unwrap();
                assert_eq!(
                    code(rig.api.stream_query.call(stream)),
                    CudaError::NOT_READY,
                    "{schedule:?}"
                );
            }
            let (free, device) = (rig.stream(1), rig.device(4));
            rig.api.memset_d32_async.call(device, 1, 1, free).unwrap();
            rig.synchronize(free);
            opener.send(()).unwrap();
            for stream in streams {
                rig.synchronize(stream);
            }
            rig.synchronize(held);
        }
        assert_eq!(crowd.most.load(Ordering::SeqCst), 1, "{schedule:?}");
    }
}
