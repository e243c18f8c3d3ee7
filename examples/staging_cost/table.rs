#![expect(unsafe_code, reason = "stands for functions of the driver")]
//! A table of the software driver whose launch does nothing but say that it is done.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use wharf::Driver;
use wharf::sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphNode, CUresult, CUstream,
};

/// The completion words of the ring.
static WORDS: [AtomicPtr<AtomicU64>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

/// A driver with that table.
pub(crate) fn driver() -> Driver {
    // SAFETY: softcuda's functions and those below have the signatures of the rows and live for
    // ever.
    unsafe {
        Driver::from_fns(|row| match row.name {
            "cuGraphLaunch" => launch as *mut c_void,
            "cuGraphAddBatchMemOpNode" => add_words as *mut c_void,
            _ => softcuda::entry_point(row.name, row.version),
        })
    }
    .unwrap()
}

pub(crate) unsafe extern "C" fn launch(_exec: CUgraphExec, _stream: CUstream) -> CUresult {
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
