#![expect(unsafe_code, reason = "exports symbols; takes the caller's streams")]
//! PyTorch's pluggable allocator: `torch.cuda.memory.CUDAPluggableAllocator(libwharf,
//! "wharf_torch_malloc", "wharf_torch_free")`.
//!
//! PyTorch frees with the stream that it allocated for, and keeps its streams for the life of the
//! process. There is one pool for each device, over its primary context, of as many bytes as the
//! device has.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use wharf::memory::DeviceMemoryResource;
use wharf::pool::Pool;
use wharf::{Context, Stream};

use crate::buffer::pointer;
use crate::context::driver;
use crate::status::{Failure, call, wharf_status};

/// Allocates `size` bytes of a device for use on `stream`, a cudaStream_t; NULL if that fails,
/// which the log is told of.
///
/// Thread-safe.
///
/// # Safety
///
/// `stream` is NULL or a stream of the device's primary context that is never destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_torch_malloc(
    size: isize,
    device: c_int,
    stream: *mut c_void,
) -> *mut c_void {
    let mut address = 0;
    let status = call(|| {
        let text = || format!("{size} is no size");
        let size =
            usize::try_from(size).map_err(|_| Failure::new(wharf_status::Invalid, text()))?;
        // SAFETY: the caller's promise.
        let (pool, stream) = unsafe { of(device, stream) }?;
        address = pool.alloc_address(size, &stream)?;
        Ok(())
    });
    debug_assert!(status == wharf_status::Ok || address == 0);
    pointer(address)
}

/// Frees what wharf_torch_malloc returned, behind what `stream` was given by now. An address that
/// is not handed out is told to the log, and nothing is freed.
///
/// Thread-safe.
///
/// # Safety
///
/// As wharf_torch_malloc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_torch_free(
    address: *mut c_void,
    size: isize,
    device: c_int,
    stream: *mut c_void,
) {
    // The pool knows the size.
    let _ = size;
    if address.is_null() {
        return;
    }
    call(|| {
        // SAFETY: the caller's promise.
        let (pool, stream) = unsafe { of(device, stream) }?;
        Ok(pool.free_address(address.addr() as u64, &stream)?)
    });
}

/// A device's context and pool.
struct Device {
    context: Context,
    pool: Pool,
}

/// The pool of a device, and the stream of a raw handle.
///
/// # Safety
///
/// `raw` is null or a stream of the device's primary context that is never destroyed.
unsafe fn of(device: c_int, raw: *mut c_void) -> Result<(&'static Pool, Stream), Failure> {
    let Device { context, pool } = get(device)?;
    // SAFETY: the caller's promise.
    Ok((pool, unsafe { Stream::borrow_raw(raw.cast(), context) }))
}

/// The device with a number, made at its first use.
fn get(ordinal: c_int) -> Result<&'static Device, Failure> {
    static DEVICES: [OnceLock<Device>; MOST] = [const { OnceLock::new() }; MOST];
    static MAKING: Mutex<()> = Mutex::new(());
    let place = usize::try_from(ordinal).ok().and_then(|ordinal| DEVICES.get(ordinal));
    let Some(place) = place else {
        return Err(Failure::new(wharf_status::Invalid, format!("there is no device {ordinal}")));
    };
    if let Some(device) = place.get() {
        return Ok(device);
    }
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = place.get() {
        return Ok(device);
    }
    let found = driver()?.device(ordinal)?;
    let (context, size) = (Context::retain(&found)?, found.total_memory()?);
    let resource = DeviceMemoryResource::new(&context, size)?;
    let pool = Pool::builder().name("torch").build(resource)?;
    Ok(place.get_or_init(|| Device { context, pool }))
}

/// Devices of a process, at most.
const MOST: usize = 64;
