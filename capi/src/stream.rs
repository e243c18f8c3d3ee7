#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles and streams")]
//! Streams and tickets.

use std::ffi::c_void;

use wharf::Stream;
use wharf::timeline::Ticket;

use crate::args::{millis, out};
use crate::context::wharf_context;
use crate::status::{call, wharf_status};
use crate::table::{end, get, handle, insert};

/// A stream.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_stream {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_stream, Stream, "stream");

/// A point in a stream: whether the device is past it can be asked without a driver call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_ticket {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_ticket, Ticket, "ticket");

/// Creates a stream that does not wait for the legacy default stream.
///
/// Thread-safe.
///
/// # Safety
///
/// `stream` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_create(
    context: wharf_context,
    stream: *mut wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(stream, "stream") }?;
        // SAFETY: the caller's promise.
        let context = unsafe { get(context) }?;
        to.set(insert(Stream::new(&context.context)?)?);
        Ok(())
    })
}

/// Borrows a stream, a CUstream or cudaStream_t. NULL is the legacy default stream. Borrowing the
/// same stream again is cheap, and is the same stream.
///
/// Before the stream is destroyed, call wharf_stream_forget, or release every handle, pool and set
/// that has seen it.
///
/// Thread-safe.
///
/// # Safety
///
/// * `raw` is a stream of the context, and is not destroyed as long as the handle is used.
/// * `stream` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_borrow(
    context: wharf_context,
    raw: *mut c_void,
    stream: *mut wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(stream, "stream") }?;
        // SAFETY: the caller's promise.
        let context = unsafe { get(context) }?;
        // SAFETY: the caller's promise.
        let borrowed = unsafe { Stream::borrow_raw(raw.cast(), &context.context) };
        to.set(insert(borrowed)?);
        Ok(())
    })
}

/// Forgets a borrowed stream that is about to be destroyed: handles of it are refused from here on,
/// and a stream that gets the same raw handle later is another one.
///
/// Thread-safe; no other thread is inside a call with the stream.
///
/// # Safety
///
/// `raw` is a stream of the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_forget(
    context: wharf_context,
    raw: *mut c_void,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe { get(context) }?.context.forget_stream(raw.cast())?;
        Ok(())
    })
}

/// Writes the raw handle, a CUstream.
///
/// Thread-safe.
///
/// # Safety
///
/// `raw` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_raw(
    stream: wharf_stream,
    raw: *mut *mut c_void,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(raw, "raw") }?;
        // SAFETY: the caller's promise.
        to.set(unsafe { get(stream) }?.as_raw().cast());
        Ok(())
    })
}

/// Waits until the device has done all work of the stream.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_synchronize(stream: wharf_stream) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { get(stream) }?.synchronize()?))
}

/// Releases a stream; one that was created here is destroyed, without waiting for its work.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_release(stream: wharf_stream) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { end(stream) })
}

/// Takes a ticket: the point behind all work that the stream was given by now.
///
/// Thread-safe.
///
/// # Safety
///
/// `ticket` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_stream_ticket(
    stream: wharf_stream,
    ticket: *mut wharf_ticket,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(ticket, "ticket") }?;
        // SAFETY: the caller's promise.
        to.set(insert(unsafe { get(stream) }?.ticket()?)?);
        Ok(())
    })
}

/// Writes whether the device is past a ticket; asks the driver if need be, and does not wait.
///
/// Thread-safe.
///
/// # Safety
///
/// `complete` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_ticket_poll(
    ticket: wharf_ticket,
    complete: *mut bool,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(complete, "complete") }?;
        // SAFETY: the caller's promise.
        to.set(unsafe { get(ticket) }?.poll()?);
        Ok(())
    })
}

/// Waits until the device is past a ticket. WHARF_STATUS_TIMED_OUT says how far the stream is.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_ticket_wait(ticket: wharf_ticket, timeout_ms: u64) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { get(ticket) }?.wait(millis(timeout_ms))?))
}

/// Releases a ticket.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_ticket_release(ticket: wharf_ticket) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { end(ticket) })
}
