#![expect(unsafe_code, reason = "stands for functions of the driver")]
//! A table of the software driver whose launch does nothing but write the completion words of
//! launches before it.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::Release};

use wharf::Driver;
use wharf::sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphNode, CUresult, CUstream,
};

/// The completion words of the ring.
static WORDS: [AtomicPtr<AtomicU64>; DEPTH] = [const { AtomicPtr::new(ptr::null_mut()) }; DEPTH];
/// The words of launches that are not done, the latest last.
static PENDING: [AtomicPtr<AtomicU64>; DEPTH] = [const { AtomicPtr::new(ptr::null_mut()) }; DEPTH];
/// How many launches the device is behind.
pub(crate) static BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Ring slots of the sets here.
pub(crate) const DEPTH: usize = 3;

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

/// The step's word is the one that the host has cleared and no earlier launch is to write.
#[inline(never)]
unsafe extern "C" fn launch(_exec: CUgraphExec, _stream: CUstream) -> CUresult {
    let behind = BEHIND.load(Relaxed);
    let pending: [_; DEPTH] = std::array::from_fn(|at| PENDING[at].load(Relaxed));
    let mut queue: Vec<_> = pending.into_iter().filter(|word| !word.is_null()).collect();
    for word in WORDS.iter().map(|word| word.load(Relaxed)).filter(|word| !word.is_null()) {
        // SAFETY: a completion word of the set, which is alive.
        let is_cleared = unsafe { &*word }.load(Relaxed) == 0;
        if is_cleared && !queue.contains(&word) {
            queue.push(word);
            break;
        }
    }
    while queue.len() > behind {
        // SAFETY: as above.
        unsafe { &*queue.remove(0) }.store(1, Release);
    }
    for (at, place) in PENDING.iter().enumerate() {
        place.store(queue.get(at).copied().unwrap_or(ptr::null_mut()), Relaxed);
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
    let word: *mut AtomicU64 =
        ptr::with_exposed_provenance_mut(usize::try_from(write.address).unwrap());
    let of = |place: &&AtomicPtr<AtomicU64>| [ptr::null_mut(), word].contains(&place.load(Relaxed));
    WORDS.iter().find(of).unwrap().store(word, Relaxed);
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
