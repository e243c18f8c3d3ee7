//! User objects: the destructor runs once, when graph, clones, executable graphs and launches
//! in flight are gone.

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use softcuda::Schedule;
use wharf_sys::bindings::CUuserObject;
use wharf_sys::{Api, CudaError};

use crate::graph_rig::{SCHEDULES, host_call};
use crate::support::{Rig, code};

/// What the destructor sends: whether it may call the driver.
type Told = Result<(), CudaError>;

struct Guard {
    tell: Sender<Told>,
    api: *const Api,
}

/// Tells what a call of the driver gives here, and frees the guard.
extern "C" fn destroy(data: *mut c_void) {
    let guard: Box<Guard> = unsafe { Box::from_raw(data.cast()) };
    let mut count = 0;
    let call = unsafe { (*guard.api).device_get_count.call(&raw mut count) };
    guard.tell.send(call.map_err(|error| error.code().unwrap())).unwrap();
}

impl Rig {
    fn user_object(&self, count: u32) -> (CUuserObject, Receiver<Told>) {
        let (tell, told) = channel();
        let data = Box::into_raw(Box::new(Guard { tell, api: &raw const self.api }));
        let mut object = ptr::null_mut();
        let create = &self.api.user_object_create;
        unsafe { create.call(&raw mut object, data.cast(), Some(destroy), count, 1) }.unwrap();
        (object, told)
    }
}

/// Waits for the one call of the destructor.
fn assert_destroyed(told: &Receiver<Told>) {
    let result = told.recv_timeout(Duration::from_secs(600)).unwrap();
    assert_eq!(result, Err(CudaError::NOT_PERMITTED), "destructors cannot call the driver");
    assert!(told.recv().is_err(), "once");
}

#[test]
fn the_last_reference_of_the_program_destroys() {
    let rig = Rig::new(Schedule::Async);
    let (object, told) = rig.user_object(2);
    unsafe {
        rig.api.user_object_retain.call(object, 3).unwrap();
        rig.api.user_object_release.call(object, 4).unwrap();
        assert!(told.try_recv().is_err());
        assert_eq!(code(rig.api.user_object_release.call(object, 2)), CudaError::INVALID_VALUE);
        assert!(rig.simulator.leaks().iter().any(|line| line.starts_with("user object")));
        rig.api.user_object_release.call(object, 1).unwrap();
    }
    assert_destroyed(&told);
    assert!(!rig.simulator.leaks().iter().any(|line| line.starts_with("user object")));
    assert_eq!(
        code(unsafe { rig.api.user_object_retain.call(object, 1) }),
        CudaError::INVALID_VALUE
    );
}

#[test]
fn a_graph_its_clone_and_its_executable_graph_each_keep_the_object() {
    for last in 0..3 {
        let rig = Rig::new(Schedule::Async);
        let (object, told) = rig.user_object(1);
        let (graph, mut clone) = (rig.graph(), ptr::null_mut());
        unsafe {
            rig.api.graph_retain_user_object.call(graph, object, 1, 1).unwrap();
            rig.api.graph_clone.call(&raw mut clone, graph).unwrap();
        }
        let exec = rig.instantiate(graph);
        let destroy = |which| unsafe {
            match which {
                0 => rig.api.graph_destroy.call(graph).unwrap(),
                1 => rig.api.graph_destroy.call(clone).unwrap(),
                _ => rig.api.graph_exec_destroy.call(exec).unwrap(),
            }
        };
        for which in (0..3).filter(|which| *which != last) {
            destroy(which);
        }
        assert!(told.try_recv().is_err());
        destroy(last);
        assert_destroyed(&told);
    }
}

#[test]
fn a_launch_in_flight_keeps_the_object() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, graph) = (rig.stream(1), rig.graph());
        let (object, told) = rig.user_object(1);
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let block = || gate.lock().unwrap().recv().unwrap();
        let (function, data) = host_call(&block);
        rig.add_host(graph, &[], function, data);
        unsafe { rig.api.graph_retain_user_object.call(graph, object, 1, 1) }.unwrap();
        let exec = rig.instantiate(graph);
        rig.launch(exec, stream);
        unsafe {
            rig.api.graph_destroy.call(graph).unwrap();
            rig.api.graph_exec_destroy.call(exec).unwrap();
            rig.api.stream_destroy.call(stream).unwrap();
        }
        assert!(told.try_recv().is_err());
        open.send(()).unwrap();
        unsafe { rig.api.ctx_synchronize.call() }.unwrap();
        assert_destroyed(&told);
    }
}

#[test]
fn an_update_replaces_the_references_once_earlier_launches_are_done() {
    let rig = Rig::new(Schedule::Async);
    let (stream, old, new) = (rig.stream(1), rig.graph(), rig.graph());
    let (first, first_told) = rig.user_object(1);
    let (second, second_told) = rig.user_object(1);
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let block = || gate.lock().unwrap().recv().unwrap();
    let nothing = || ();
    let (function, data) = host_call(&block);
    rig.add_host(old, &[], function, data);
    let (function, data) = host_call(&nothing);
    rig.add_host(new, &[], function, data);
    unsafe {
        rig.api.graph_retain_user_object.call(old, first, 1, 1).unwrap();
        rig.api.graph_retain_user_object.call(new, second, 1, 1).unwrap();
    }
    let exec = rig.instantiate(old);
    rig.launch(exec, stream);
    let (mut node, mut result) = (ptr::null_mut(), wharf_sys::bindings::CUgraphExecUpdateResult(0));
    unsafe {
        rig.api.graph_exec_update.call(exec, new, &raw mut node, &raw mut result).unwrap();
        rig.api.graph_destroy.call(old).unwrap();
        rig.api.graph_destroy.call(new).unwrap();
    }
    assert!(first_told.try_recv().is_err(), "a launch in flight still uses it");
    open.send(()).unwrap();
    assert_destroyed(&first_told);
    assert!(second_told.try_recv().is_err());
    unsafe { rig.api.graph_exec_destroy.call(exec) }.unwrap();
    assert_destroyed(&second_told);
}

#[test]
fn references_are_counted_and_arguments_checked() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let (object, told) = rig.user_object(1);
    unsafe {
        let retain =
            |count, flags| rig.api.graph_retain_user_object.call(graph, object, count, flags);
        assert_eq!(code(retain(0, 0)), CudaError::INVALID_VALUE);
        assert_eq!(code(retain(1 << 31, 0)), CudaError::INVALID_VALUE);
        assert_eq!(code(retain(1, 2)), CudaError::INVALID_VALUE);
        assert_eq!(code(retain(2, 1)), CudaError::INVALID_VALUE, "the program has one to move");
        retain(2, 0).unwrap();
        rig.api.user_object_release.call(object, 1).unwrap();
        let release = |count| rig.api.graph_release_user_object.call(graph, object, count);
        assert_eq!(code(release(3)), CudaError::INVALID_VALUE);
        release(1).unwrap();
        assert!(told.try_recv().is_err());
        release(1).unwrap();
        assert_eq!(code(release(1)), CudaError::INVALID_VALUE);
        let mut made = ptr::null_mut();
        let create = &rig.api.user_object_create;
        let flags = create.call(&raw mut made, ptr::null_mut(), Some(destroy), 1, 0);
        assert_eq!(code(flags), CudaError::INVALID_VALUE);
    }
    assert_destroyed(&told);
}
