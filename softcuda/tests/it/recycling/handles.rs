//! Handles that come back.

use std::ptr;

use softcuda::{Config, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_ARRAY_DESCRIPTOR_v2, CUarray_format, CUmemAllocationType, CUmemPoolProps,
    PFN_cuArrayCreate_v3020, PFN_cuArrayDestroy_v2000, PFN_cuLibraryLoadData_v12000,
    PFN_cuLibraryUnload_v12000, PFN_cuLinkCreate_v6050, PFN_cuLinkDestroy_v5050,
    PFN_cuModuleGetFunction_v2000, PFN_cuModuleLoadData_v2000, PFN_cuModuleUnload_v2000,
};

use crate::graph_rig::fill_params;
use crate::memory_rig::GRANULE;
use crate::support::{Rig, code, device_0};

/// Makes an object and destroys it: its handle, and another one that was made with it and is gone
/// as well, if there is one.
type Cycle = fn(&Rig) -> [u64; 2];

const KINDS: [(&str, Cycle); 14] = [
    ("context", context),
    ("stream", stream),
    ("event", event),
    ("graph", graph),
    ("node", node),
    ("executable graph", exec),
    ("memory pool", pool),
    ("physical memory", physical),
    ("user object", user_object),
    ("module and function", module),
    ("library", library),
    ("array", array),
    ("link", link),
    ("per-thread stream of a context", per_thread),
];

fn number<T>(handle: *mut T) -> u64 {
    handle.addr() as u64
}

fn context(rig: &Rig) -> [u64; 2] {
    let mut context = ptr::null_mut();
    unsafe {
        rig.api.ctx_create.call(&raw mut context, 0, 0).unwrap();
        rig.api.ctx_destroy.call(context).unwrap();
        rig.api.ctx_set_current.call(rig.context).unwrap();
    }
    [number(context), 0]
}

fn stream(rig: &Rig) -> [u64; 2] {
    let stream = rig.stream(1);
    unsafe { rig.api.stream_destroy.call(stream) }.unwrap();
    [number(stream), 0]
}

fn event(rig: &Rig) -> [u64; 2] {
    let event = rig.event(2);
    unsafe { rig.api.event_destroy.call(event) }.unwrap();
    [number(event), 0]
}

fn graph(rig: &Rig) -> [u64; 2] {
    let graph = rig.graph();
    let node = rig.add_empty(graph, &[]);
    unsafe { rig.api.graph_destroy.call(graph) }.unwrap();
    [number(graph), number(node)]
}

fn node(rig: &Rig) -> [u64; 2] {
    let graph = rig.graph();
    let node = rig.add_empty(graph, &[]);
    unsafe {
        rig.api.graph_destroy_node.call(node).unwrap();
        let again = rig.add_empty(graph, &[]);
        rig.api.graph_destroy.call(graph).unwrap();
        [number(node), number(again)]
    }
}

fn exec(rig: &Rig) -> [u64; 2] {
    let graph = rig.graph();
    let exec = rig.instantiate(graph);
    unsafe {
        rig.api.graph_exec_destroy.call(exec).unwrap();
        rig.api.graph_destroy.call(graph).unwrap();
    }
    [number(exec), 0]
}

fn pool(rig: &Rig) -> [u64; 2] {
    let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = device_0();
    let mut pool = ptr::null_mut();
    unsafe {
        rig.api.mem_pool_create.call(&raw mut pool, &raw const properties).unwrap();
        rig.api.mem_pool_destroy.call(pool).unwrap();
    }
    [number(pool), 0]
}

fn physical(rig: &Rig) -> [u64; 2] {
    let handle = rig.physical(GRANULE);
    unsafe { rig.api.mem_release.call(handle) }.unwrap();
    [handle, 0]
}

fn user_object(rig: &Rig) -> [u64; 2] {
    extern "C" fn nothing(_: *mut std::ffi::c_void) {}
    let (mut object, null) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        // The only flag there is: no destructor synchronises.
        rig.api.user_object_create.call(&raw mut object, null, Some(nothing), 1, 1).unwrap();
        rig.api.user_object_release.call(object, 1).unwrap();
    }
    [number(object), 0]
}

fn module(_: &Rig) -> [u64; 2] {
    let load = entry!("cuModuleLoadData" 2000 PFN_cuModuleLoadData_v2000);
    let function = entry!("cuModuleGetFunction" 2000 PFN_cuModuleGetFunction_v2000);
    let unload = entry!("cuModuleUnload" 2000 PFN_cuModuleUnload_v2000);
    let (mut module, mut kernel) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        assert_eq!(load(&raw mut module, IMAGE.as_ptr().cast()).0, 0);
        assert_eq!(function(&raw mut kernel, module, c"work".as_ptr()).0, 0);
        assert_eq!(unload(module).0, 0);
    }
    [number(module), number(kernel)]
}

fn library(_: &Rig) -> [u64; 2] {
    let load = entry!("cuLibraryLoadData" 12000 PFN_cuLibraryLoadData_v12000);
    let unload = entry!("cuLibraryUnload" 12000 PFN_cuLibraryUnload_v12000);
    let (mut library, null) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        let (none, nothing) = (ptr::null_mut(), ptr::null_mut());
        let image = IMAGE.as_ptr().cast();
        assert_eq!(load(&raw mut library, image, none, nothing, 0, ptr::null_mut(), null, 0).0, 0);
        assert_eq!(unload(library).0, 0);
    }
    [number(library), 0]
}

/// A text that declares a kernel.
const IMAGE: &[u8] =
    b".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry work() { ret; }\0";

fn array(_: &Rig) -> [u64; 2] {
    let create = entry!("cuArrayCreate" 3020 PFN_cuArrayCreate_v3020);
    let destroy = entry!("cuArrayDestroy" 2000 PFN_cuArrayDestroy_v2000);
    let shape = CUDA_ARRAY_DESCRIPTOR_v2 {
        Width: 8,
        Height: 0,
        Format: CUarray_format::CU_AD_FORMAT_FLOAT,
        NumChannels: 1,
    };
    let mut array = ptr::null_mut();
    unsafe {
        assert_eq!(create(&raw mut array, &raw const shape).0, 0);
        assert_eq!(destroy(array).0, 0);
    }
    [number(array), 0]
}

fn link(_: &Rig) -> [u64; 2] {
    let create = entry!("cuLinkCreate" 6050 PFN_cuLinkCreate_v6050);
    let destroy = entry!("cuLinkDestroy" 5050 PFN_cuLinkDestroy_v5050);
    let mut link = ptr::null_mut();
    unsafe {
        assert_eq!(create(0, ptr::null_mut(), ptr::null_mut(), &raw mut link).0, 0);
        assert_eq!(destroy(link).0, 0);
    }
    [number(link), 0]
}

/// The default stream goes with its context, and so its number shows as the next stream's handle.
fn per_thread(rig: &Rig) -> [u64; 2] {
    let before = rig.stream(1);
    let after = unsafe {
        rig.api.stream_destroy.call(before).unwrap();
        let mut context = ptr::null_mut();
        rig.api.ctx_create.call(&raw mut context, 0, 0).unwrap();
        rig.api.stream_query.call(ptr::without_provenance_mut(2)).unwrap();
        rig.api.ctx_destroy.call(context).unwrap();
        rig.api.ctx_set_current.call(rig.context).unwrap();
        let after = rig.stream(1);
        rig.api.stream_destroy.call(after).unwrap();
        after
    };
    [number(before), number(after)]
}

#[test]
fn a_destroyed_handle_of_every_kind_comes_back_at_once_where_the_schedule_is_late_or_random() {
    for schedule in [Schedule::Late, Schedule::Random(3)] {
        let rig = Rig::new(schedule);
        for (kind, cycle) in KINDS {
            assert_eq!(cycle(&rig), cycle(&rig), "{kind}, {schedule:?}");
        }
    }
}

#[test]
fn whether_handles_come_back_can_be_set_for_any_schedule() {
    for (schedule, recycle) in [
        (Schedule::Async, None),
        (Schedule::Eager, None),
        (Schedule::Late, Some(false)),
        (Schedule::Random(3), Some(false)),
    ] {
        let rig = Rig::with(Config { schedule, recycle, ..Rig::config() });
        for (kind, cycle) in KINDS {
            assert_ne!(cycle(&rig)[0], cycle(&rig)[0], "{kind}, {schedule:?}");
        }
    }
    let rig = Rig::with(Config { recycle: Some(true), ..Rig::config() });
    for (kind, cycle) in KINDS {
        assert_eq!(cycle(&rig), cycle(&rig), "{kind}");
    }
}

#[test]
fn a_stream_with_the_handle_of_a_destroyed_one_is_another_stream() {
    let rig = Rig::new(Schedule::Late);
    let device = rig.device(4);
    let id = |stream| {
        let mut id = 0;
        unsafe { rig.api.stream_get_id.call(stream, &raw mut id) }.unwrap();
        id
    };
    let old = rig.stream(1);
    let old_id = id(old);
    rig.fill(device, 1, old);
    unsafe { rig.api.stream_destroy.call(old) }.unwrap();
    let new = rig.stream(1);
    assert_eq!(new, old);
    assert_ne!(id(new), old_id, "\"a unique Id\" (cuStreamGetId)");
    unsafe { rig.api.stream_query.call(new) }.unwrap();
    rig.synchronize(new);
    assert_eq!(rig.simulator.bytes().dtoh, 0);
    unsafe { rig.api.ctx_synchronize.call() }.unwrap();
    assert_eq!(rig.word(device), 1, "the destroyed stream's work was done all the same");
}

#[test]
fn an_event_with_the_handle_of_a_destroyed_one_is_another_event() {
    let rig = Rig::new(Schedule::Late);
    let (writer, waiter, device) = (rig.stream(1), rig.stream(1), rig.device(8));
    let old = rig.event(2);
    let graph = rig.graph();
    let mut node = ptr::null_mut();
    unsafe {
        rig.api
            .graph_add_event_record_node
            .call(&raw mut node, graph, ptr::null(), 0, old)
            .unwrap();
    }
    let exec = rig.instantiate(graph);
    rig.fill(device, 1, writer);
    rig.record(old, writer);
    rig.wait(waiter, old);
    rig.fill(device + 4, 2, waiter);
    unsafe { rig.api.event_destroy.call(old) }.unwrap();
    let new = rig.event(2);
    assert_eq!(new, old);
    unsafe { rig.api.event_query.call(new) }.unwrap();
    rig.synchronize(waiter);
    unsafe { rig.api.stream_query.call(writer) }.unwrap();
    // The graph was told of the destroyed event, and records no other.
    rig.launch(exec, writer);
    unsafe { rig.api.event_query.call(new) }.unwrap();
    rig.synchronize(writer);
    assert_eq!((rig.word(device), rig.word(device + 4)), (1, 2));
}

#[test]
fn a_thread_whose_context_was_destroyed_does_not_get_the_next_one() {
    let rig = Rig::new(Schedule::Late);
    let mut old = ptr::null_mut();
    unsafe { rig.api.ctx_create.call(&raw mut old, 0, 0) }.unwrap();
    let new = rig.elsewhere(|| {
        let mut new = ptr::null_mut();
        unsafe {
            rig.api.ctx_destroy.call(old).unwrap();
            rig.api.ctx_create.call(&raw mut new, 0, 0).unwrap();
        }
        new.addr()
    });
    assert_eq!(new, old.addr());
    let (mut stream, mut current) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        rig.api.ctx_get_current.call(&raw mut current).unwrap();
        assert_eq!(current, old, "the handle is what the thread was told");
        let refused = rig.api.stream_create.call(&raw mut stream, 0);
        assert_eq!(code(refused), CudaError::CONTEXT_IS_DESTROYED);
        rig.api.ctx_set_current.call(current).unwrap();
        rig.api.stream_create.call(&raw mut stream, 0).unwrap();
    }
}

#[test]
fn a_node_with_the_handle_of_a_destroyed_one_is_not_the_executable_graphs() {
    let rig = Rig::new(Schedule::Late);
    let (stream, device) = (rig.stream(1), rig.device(8));
    let old = rig.graph();
    let node = rig.add_fill(old, &[], device, 1);
    let exec = rig.instantiate(old);
    unsafe { rig.api.graph_destroy.call(old) }.unwrap();
    let new = rig.graph();
    assert_eq!((new, rig.add_fill(new, &[], device + 4, 2)), (old, node));
    let params = fill_params(device, 9);
    let set = &rig.api.graph_exec_memset_node_set_params;
    let refused = unsafe { set.call(exec, node, &raw const params, rig.context) };
    assert_eq!(code(refused), CudaError::INVALID_VALUE);
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(device), 1);
}
