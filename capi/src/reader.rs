#![expect(unsafe_code, reason = "exports symbols; keeps reads beside the set that they borrow")]
//! Reads of a step's inputs on other streams.

use std::sync::Arc;

use wharf::staging::{InputBuffers, Reader};

use crate::args::out;
use crate::status::{call, wharf_status};
use crate::step::wharf_step;
use crate::stream::wharf_stream;
use crate::table::{get, handle, insert, remove};

/// A read of a step's inputs: what a stream is given between wharf_reader_begin and
/// wharf_reader_end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_reader {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_reader, ReaderObject, "reader");

/// A read, and what it borrows.
#[derive(Debug)]
pub struct ReaderObject {
    /// Before the set, which it borrows.
    reader: Reader<'static>,
    /// Whose object it borrows, as long as the handle is good.
    stream: wharf_stream,
    set: Arc<InputBuffers>,
}

/// Begins a read of a submitted step's inputs on `stream`: what that is given from here on waits,
/// on the device, for the inputs. The next step waits for what it is given until wharf_reader_end,
/// and cannot be submitted before.
///
/// There may be several at once, on one stream or on many. As wharf_step_wait_on and
/// wharf_step_consumed_by together, for components that do not know of each other.
///
/// Thread-safe.
///
/// # Safety
///
/// `reader` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_reader_begin(
    step: wharf_step,
    stream: wharf_stream,
    reader: *mut wharf_reader,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(reader, "reader") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(step.inputs) }?;
        // SAFETY: the object stays where it is as long as the handle is good, which
        // `wharf_reader_end` looks at before it uses the reader again.
        let on = unsafe { get(stream) }?;
        let begun = object.cell(step)?.staged()?.reader(on)?;
        to.set(insert(ReaderObject { reader: begun, stream, set: Arc::clone(&object.set) })?);
        Ok(())
    })
}

/// Ends a read: what the stream is given from here on does not read the inputs. Two driver calls.
/// The handle is released in any case.
///
/// WHARF_STATUS_STALE with a stream that was released meanwhile: where that read ends is not known,
/// so no step of the set can be submitted any more.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile, or releases the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_reader_end(reader: wharf_reader) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let ReaderObject { reader, stream, set } = unsafe { remove(reader) }?;
        // SAFETY: the caller's promise.
        if let Err(failure) = unsafe { get(stream) } {
            #[expect(clippy::mem_forget, reason = "its end would use a stream that is gone")]
            std::mem::forget(reader);
            return Err(failure);
        }
        let ended = reader.end();
        drop(set);
        Ok(ended?)
    })
}
