#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles")]
//! Blocks of pools, by handle and by address.

use std::ffi::c_void;

use wharf::Stream;
use wharf::graph::keep_alive_in_capture;
use wharf::pool::{Buffer, Pool, RawBuffer};

use crate::args::{Out, millis, out};
use crate::context::wharf_context;
use crate::pool::wharf_pool;
use crate::status::{Failure, call, wharf_status};
use crate::stream::wharf_stream;
use crate::table::get;

/// A block of a pool. It may be copied; when it is freed, every copy is stale.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_buffer {
    /// The pool's number.
    pub pool: u64,
    /// The address of the first byte: the device's, or the host's where they differ, see
    /// wharf_buffer_device_address.
    pub address: u64,
    /// The size, in bytes.
    pub size: usize,
    /// Which life of the block it is.
    pub life: u64,
}

/// Allocates `size` bytes for use on `stream` first, aligned to 256 bytes; their contents are
/// undefined. Where the stream has freed a block of the size before, this takes no lock and makes
/// no driver call. A size that the pool's addresses never hold is WHARF_STATUS_INVALID, one that
/// they do not hold now WHARF_STATUS_OUT_OF_MEMORY.
///
/// Thread-safe.
///
/// # Safety
///
/// `buffer` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_alloc(
    pool: wharf_pool,
    size: usize,
    stream: wharf_stream,
    buffer: *mut wharf_buffer,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(buffer, "buffer") }?;
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        to.set(pool.alloc_raw(size, stream)?.into());
        Ok(())
    })
}

/// Frees a block behind what `stream` was given by now: the stream may have the memory at once,
/// others when the device is past that and past every use that was recorded. A second free is
/// WHARF_STATUS_STALE.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_free(
    pool: wharf_pool,
    buffer: wharf_buffer,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        Ok(pool.free_raw(buffer.into(), stream)?)
    })
}

/// As wharf_alloc, for callers that keep the address only.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_alloc_address(
    pool: wharf_pool,
    size: usize,
    stream: wharf_stream,
    address: *mut *mut c_void,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        to.set(pointer(pool.alloc_address(size, stream)?));
        Ok(())
    })
}

/// As wharf_free, of the block that wharf_alloc_address handed out at `address`. No lock. NULL is
/// WHARF_STATUS_NULL; an address that is not handed out is WHARF_STATUS_STALE.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_free_address(
    pool: wharf_pool,
    address: *mut c_void,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        if address.is_null() {
            return Err(Failure::new(wharf_status::Null, "address is NULL"));
        }
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        Ok(pool.free_address(address.addr() as u64, stream)?)
    })
}

/// As wharf_alloc_address, on a raw stream, a CUstream or cudaStream_t of the context: for callers
/// that have no handle of it. Takes a lock to find what is known of the stream.
///
/// Before the stream is destroyed, call wharf_stream_forget, or close every pool that has seen it.
///
/// Thread-safe.
///
/// # Safety
///
/// * `raw` is NULL, for the legacy default stream, or a stream of the context.
/// * `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_alloc_on(
    pool: wharf_pool,
    size: usize,
    context: wharf_context,
    raw: *mut c_void,
    address: *mut *mut c_void,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let context = unsafe { get(context) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow_raw(raw.cast(), &context.context) };
        to.set(pointer(pool.alloc_address(size, &stream)?));
        Ok(())
    })
}

/// As wharf_free_address, on a raw stream, see wharf_alloc_on.
///
/// Thread-safe.
///
/// # Safety
///
/// `raw` is NULL, for the legacy default stream, or a stream of the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_free_on(
    pool: wharf_pool,
    address: *mut c_void,
    context: wharf_context,
    raw: *mut c_void,
) -> wharf_status {
    call(|| {
        if address.is_null() {
            return Err(Failure::new(wharf_status::Null, "address is NULL"));
        }
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        // SAFETY: the caller's promise.
        let context = unsafe { get(context) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::borrow_raw(raw.cast(), &context.context) };
        Ok(pool.free_address(address.addr() as u64, &stream)?)
    })
}

/// Writes the handle of the block that is handed out at `address`.
///
/// Thread-safe.
///
/// # Safety
///
/// `buffer` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_find_address(
    pool: wharf_pool,
    address: *const c_void,
    buffer: *mut wharf_buffer,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(buffer, "buffer") }?;
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        to.set(pool.find_address(address.addr() as u64)?.into());
        Ok(())
    })
}

/// Notes that work on `stream`, submitted by now, uses the block: for each stream but the one that
/// wharf_free gets.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_buffer_record_use(
    pool: wharf_pool,
    buffer: wharf_buffer,
    stream: wharf_stream,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { shared(pool, buffer) }?.record_use(unsafe { get(stream) }?)?))
}

/// Makes work that `stream` is given from here on wait, on the device, for what earlier owners of
/// the memory have submitted: for each stream but the one that the block was allocated for.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_buffer_acquire(
    pool: wharf_pool,
    buffer: wharf_buffer,
    stream: wharf_stream,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { shared(pool, buffer) }?.acquire(unsafe { get(stream) }?)?))
}

/// Waits until the device is past all uses of the block that were recorded: then the host may read
/// and write pinned and managed memory at its address.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_buffer_wait(
    pool: wharf_pool,
    buffer: wharf_buffer,
    timeout_ms: u64,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { shared(pool, buffer) }?.wait(millis(timeout_ms))?))
}

/// Writes where the device sees a block, which may be elsewhere than the host does.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_buffer_device_address(
    pool: wharf_pool,
    buffer: wharf_buffer,
    address: *mut u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to: Out<u64> = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let shared = unsafe { shared(pool, buffer) }?;
        // SAFETY: nothing is submitted here; the caller orders and records uses, as for every
        // block.
        to.set(unsafe { shared.as_device_ptr() }?);
        Ok(())
    })
}

/// Gives the graph that `stream` is capturing a share of the block: it is not reused as long as the
/// graph, an executable graph of it or a launch lives, also when it is freed before.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_buffer_keep_in_capture(
    pool: wharf_pool,
    buffer: wharf_buffer,
    stream: wharf_stream,
) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(keep_alive_in_capture(unsafe { get(stream) }?, unsafe { shared(pool, buffer) }?)?))
}

/// A buffer beside the caller's handle.
///
/// # Safety
///
/// No thread releases the pool's handle meanwhile.
unsafe fn shared(pool: wharf_pool, buffer: wharf_buffer) -> Result<Buffer<u8>, Failure> {
    // SAFETY: the caller's promise.
    let pool: &Pool = unsafe { get(pool) }?;
    if buffer.life == 0 {
        return Err(Failure::new(wharf_status::Null, "the buffer is {0}"));
    }
    Ok(pool.share_raw(buffer.into())?)
}

/// An address as C has it.
#[inline]
pub(crate) fn pointer(address: u64) -> *mut c_void {
    // Both have 64 bits, which the library demands of its targets.
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}

impl From<RawBuffer> for wharf_buffer {
    #[inline]
    fn from(raw: RawBuffer) -> Self {
        let [pool, address, _, life] = raw.to_words();
        Self { pool, address, size: raw.size(), life }
    }
}

impl From<wharf_buffer> for RawBuffer {
    #[inline]
    fn from(buffer: wharf_buffer) -> Self {
        Self::from_words([buffer.pool, buffer.address, buffer.size as u64, buffer.life])
    }
}
