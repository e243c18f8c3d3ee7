//! Host functions and stream callbacks.

use std::ffi::c_void;
use std::ptr;
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
    let _ = gate.said.send(result.map_or_else(|error| error.code().unwrap().as_raw(), |()| CUresult(0)));
}

unsafe extern "C" fn say_status(_: CUstream, status: CUresult, data: *mut c_void) {
    let gate: &Gate = unsafe { &*data.cast() };
    let _ = gate.said.send(status);
}

fn gate() -> (&'static Gate, Sender<()>, Receiver<CUresult>) {
    let ((opener, open), (said, answers)) = (channel(), channel());
    (Box::leak(Box::new(Gate { open, said })), opener, answers)
}

fn data(gate: &'static Gate) -> *mut c_void {
    ptr::from_ref(gate).cast_mut().cast()
}

#[test]
fn a_blocked_host_function_holds_its_stream_and_no_other() {
    for schedule in [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(5)] {
        let rig = Rig::new(schedule);
        let mut openers = Vec::new();
        let held: Vec<_> = (0..8)
            .map(|_| {
                let (stream, (gate, opener, _)) = (rig.stream(1), gate());
                unsafe { rig.api.launch_host_func.call(stream, Some(wait_for_gate), data(gate)) }.unwrap();
                openers.push(opener);
                stream
            })
            .collect();
        let (free, device) = (rig.stream(1), rig.device(4));
        unsafe {
            rig.api.memset_d32_async.call(device, 1, 1, free).unwrap();
            rig.synchronize(free);
            for stream in &held {
                assert_eq!(code(rig.api.stream_query.call(*stream)), CudaError::NOT_READY, "{schedule:?}");
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
    let rig = Rig::new(Schedule::Async);
    let (stream, (gate, _opener, answers)) = (rig.stream(1), gate());
    unsafe { rig.api.launch_host_func.call(stream, Some(call_driver), data(gate)) }.unwrap();
    assert_eq!(answers.recv().unwrap(), CUresult::CUDA_ERROR_NOT_PERMITTED);
}

#[test]
fn after_a_fault_a_callback_is_told_and_a_host_function_is_not_called() {
    let rig = Rig::new(Schedule::Async);
    let (stream, word) = (rig.stream(1), rig.device(8));
    let (callback, _opener, answers) = gate();
    let (function, _other, silence) = gate();
    unsafe {
        rig.api.memset_d8.call(word, 0, 8).unwrap();
        rig.api.ctx_synchronize.call().unwrap();
        rig.api.stream_wait_value_64.call(stream, word, 1, 0).unwrap();
        rig.api.launch_host_func.call(stream, Some(call_driver), data(function)).unwrap();
        rig.api.stream_add_callback.call(stream, Some(say_status), data(callback), 0).unwrap();
    }
    rig.simulator.fault_devices(CudaError::ILLEGAL_ADDRESS);
    assert_eq!(answers.recv().unwrap(), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(silence.try_recv().is_err());
}
