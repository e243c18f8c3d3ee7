#![expect(unsafe_code, reason = "stands for functions of the driver")]
//! Steps with a table whose launch does nothing but say that it is done.

use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use softcuda::{Config, Simulator};
use wharf::staging::{InputBuffers, Layout, SlotId};
use wharf::sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphNode, CUresult, CUstream,
};
use wharf::{Context, Driver, Stream};

use crate::{ALLOCATIONS, twelve};

/// The completion words of the ring.
static WORDS: [AtomicPtr<AtomicU64>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

/// Runs so many steps in a layout, or of nothing but the loop.
pub(crate) fn run(what: &str, steps: u64) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    // SAFETY: softcuda's functions and those below have the signatures of the rows and live for
    // ever.
    let driver = unsafe {
        Driver::from_fns(|row| match row.name {
            "cuGraphLaunch" => launch as *mut c_void,
            "cuGraphAddBatchMemOpNode" => add_words as *mut c_void,
            _ => softcuda::entry_point(row.name, row.version),
        })
    }
    .unwrap();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let layout = if what == "Packed" { Layout::Packed } else { Layout::PerSlot };
    let (inputs, ids) = twelve(&context, 3, layout);
    println!("{steps} steps begin");
    let before = ALLOCATIONS.get();
    match what {
        "Loop" => only_the_loop(&ids, steps),
        _ => counted_steps(&inputs, &ids, &stream, steps),
    }
    let allocations = ALLOCATIONS.get() - before;
    println!("{steps} steps end");
    assert_eq!(allocations, 0, "a step allocates");
}

/// Callgrind counts in here. The caller writes nothing, and nothing is to be padded.
#[inline(never)]
fn counted_steps(inputs: &InputBuffers, ids: &[SlotId<i32>], stream: &Stream, steps: u64) {
    for _ in 0..steps {
        let mut step = inputs.begin(black_box(64), black_box(64)).unwrap();
        for id in ids {
            black_box(step.write(*id));
        }
        black_box(step.submit(stream).unwrap().device_ptr(ids[0]));
    }
}

/// The same with nothing of the library in it: what the loop itself costs, and the launch that
/// stands for the driver's.
#[inline(never)]
fn only_the_loop(ids: &[SlotId<i32>], steps: u64) {
    let mut memory = [0_i32; 64];
    let call: unsafe extern "C" fn(CUgraphExec, CUstream) -> CUresult = black_box(launch);
    for _ in 0..steps {
        let _counts = (black_box(64), black_box(64));
        for _ in ids {
            black_box(&mut memory[..]);
        }
        // SAFETY: it looks at neither argument.
        let result = unsafe { call(ptr::null_mut(), ptr::null_mut()) };
        black_box(u64::from(result.0));
    }
}

unsafe extern "C" fn launch(_exec: CUgraphExec, _stream: CUstream) -> CUresult {
    for word in &WORDS {
        let word = word.load(Ordering::Relaxed);
        if !word.is_null() {
            // SAFETY: a completion word of the set, which is alive.
            unsafe { &*word }.store(1, Ordering::Release);
        }
    }
    CUresult::CUDA_SUCCESS
}

unsafe extern "C" fn add_words(
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> CUresult {
    // SAFETY: the caller's array of one operation.
    let operations = unsafe { (*params).paramArray };
    // SAFETY: as above.
    let operation = unsafe { *operations };
    // SAFETY: a staging graph has writes only.
    let write = unsafe { operation.writeValue };
    let word = ptr::with_exposed_provenance_mut(usize::try_from(write.address).unwrap());
    for place in &WORDS {
        if place.load(Ordering::Relaxed).is_null() {
            place.store(word, Ordering::Relaxed);
            break;
        }
    }
    type Real = unsafe extern "C" fn(
        *mut CUgraphNode,
        CUgraph,
        *const CUgraphNode,
        usize,
        *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
    ) -> CUresult;
    let real = softcuda::entry_point("cuGraphAddBatchMemOpNode", 11_070);
    // SAFETY: softcuda's function has the signature of the row.
    let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
    // SAFETY: the caller's arguments.
    unsafe { real(node, graph, dependencies, count, params) }
}
