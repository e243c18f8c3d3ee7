//! The symbols of PyTorch's pluggable allocator.
//!
//! `torch.cuda.memory.CUDAPluggableAllocator` loads them from the shared object of this module, and
//! calls them with a device and a stream of that device. PyTorch does not look at the result of
//! an allocation: a failure is a null pointer, and its text is kept for `wharf.torch.last_error`.

#![expect(unsafe_code, reason = "functions that C calls")]

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex};

use pyo3::prelude::*;
use wharf::Stream;
use wharf::sys::bindings::CUstream;

use crate::by_address::ByAddress;
use crate::device::lock;
use crate::pool::Pool;

/// Serves allocations on the pool's device from it.
#[pyfunction]
pub(crate) fn _torch_serve(pool: &Pool) -> i32 {
    let memory = pool.memory();
    let ordinal = memory.device().device().ordinal();
    lock(&SERVED).entry(ordinal).or_insert_with(|| Arc::new(ByAddress::new(Arc::clone(memory))));
    ordinal
}

/// Serves a device no more. Addresses that are held are freed.
#[pyfunction]
pub(crate) fn _torch_stop(ordinal: i32) {
    // Not under the lock: the end of a pool waits for the device.
    let served = lock(&SERVED).remove(&ordinal);
    drop(served);
}

/// The text of the last failure, if there was one.
#[pyfunction]
pub(crate) fn _torch_last_error() -> Option<String> {
    lock(&LAST_ERROR).clone()
}

/// Allocates `size` bytes on `device`, for use on `stream` first. Null after a failure.
///
/// # Safety
///
/// `stream` is null or a stream of the device's primary context, which is not destroyed as long as
/// the process allocates: PyTorch keeps its streams.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn wharf_torch_malloc(
    size: isize,
    device: c_int,
    stream: *mut c_void,
) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        let size = usize::try_from(size).map_err(|_| format!("{size} bytes were asked for"))?;
        if size == 0 {
            return Ok(ptr::null_mut());
        }
        let served = served(device)?;
        // SAFETY: the caller's promise.
        let stream = unsafe { borrow(stream, &served) };
        let _bound = served.memory().pool.machine().bind();
        let address = served.allocate(size, &stream).map_err(|error| error.to_string())?;
        let address = usize::try_from(address).map_err(|error| error.to_string())?;
        Ok(ptr::with_exposed_provenance_mut(address))
    })
}

/// Frees what [`wharf_torch_malloc`] has returned, when `stream` is past what it was given.
///
/// # Safety
///
/// As [`wharf_torch_malloc`]. Any address is allowed: one that is not held is a failure.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn wharf_torch_free(
    pointer: *mut c_void,
    _size: isize,
    device: c_int,
    stream: *mut c_void,
) {
    guarded((), || {
        if pointer.is_null() {
            return Ok(());
        }
        let served = served(device)?;
        // SAFETY: the caller's promise.
        let stream = unsafe { borrow(stream, &served) };
        let _bound = served.memory().pool.machine().bind();
        served.free(pointer.addr() as u64, &stream).map_err(|error| error.to_string())
    });
}

/// Runs what C has called: a failure and a panic end here.
fn guarded<T>(failed: T, call: impl FnOnce() -> Result<T, String>) -> T {
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("a panic".into()));
    outcome.unwrap_or_else(|error| {
        *lock(&LAST_ERROR) = Some(error);
        failed
    })
}

fn served(device: c_int) -> Result<Arc<ByAddress>, String> {
    let served = lock(&SERVED).get(&device).map(Arc::clone);
    served.ok_or_else(|| format!("no pool serves device {device}: call wharf.torch.use"))
}

/// # Safety
///
/// As [`wharf_torch_malloc`].
unsafe fn borrow(stream: *mut c_void, served: &ByAddress) -> Stream {
    let raw: CUstream = stream.cast();
    // SAFETY: the caller's promise.
    unsafe { Stream::borrow_raw(raw, served.memory().device()) }
}

static SERVED: LazyLock<Mutex<HashMap<c_int, Arc<ByAddress>>>> = LazyLock::new(Mutex::default);
static LAST_ERROR: Mutex<Option<String>> = Mutex::new(None);
