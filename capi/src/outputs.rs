#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles and structures")]
//! Sets of output buffers: results of steps on their way to the host.

use std::ffi::c_char;

use wharf::staging::{Counts, OutputBuffers, OutputBuffersBuilder, SlotInfo, StaticBuffers};

use crate::args::{Growing, array, array_of, millis, out, sized, text, text_or};
use crate::context::wharf_context;
use crate::inputs::{MOST_BUCKETS, MOST_SLOTS, RING_DEPTH, find};
use crate::results::{ResultsObject, wharf_results};
use crate::slots::{layout_of, wharf_slot};
use crate::status::{Failure, call, fail, wharf_status};
use crate::stream::wharf_stream;
use crate::table::{end, get, handle, insert};

/// The results of an engine's steps: device memory at addresses that never change, for kernels to
/// write, and pinned memory in which the host reads what a fetch has copied.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_outputs {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_outputs, OutputsObject, "outputs");

/// A set of results.
#[derive(Debug)]
pub struct OutputsObject {
    slots: Box<[SlotInfo]>,
    buffers: StaticBuffers,
    set: OutputBuffers,
}

/// What a set of results is to be. Zero it, and set `struct_size`, `slot_size` and `buckets`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wharf_outputs_options {
    /// sizeof(wharf_outputs_options).
    pub struct_size: usize,
    /// sizeof(wharf_slot).
    pub slot_size: usize,
    /// The numbers of tokens whose results are fetched by a graph: those of the step's inputs.
    pub buckets: *const usize,
    /// How many there are, 4096 at most.
    pub bucket_count: usize,
    /// The most tokens of a step; 0 for the largest bucket.
    pub max_tokens: usize,
    /// The most requests of a step; 0 for the largest bucket.
    pub max_requests: usize,
    /// How many fetches may be in use, in flight or held by a wharf_results, 1 to 64; 0 for 3.
    pub ring_depth: usize,
    /// How long wharf_fetch waits for one of them, in milliseconds; 0 for the library's default.
    pub deadline_ms: u64,
    /// Whether each fetch asks the driver whether its stream is being captured.
    pub check_captures: bool,
    /// A wharf_layout.
    pub layout: i32,
    /// The set's name in profilers; may be NULL.
    pub name: *const c_char,
}

// SAFETY: repr(C), and the size comes first.
unsafe impl Growing for wharf_outputs_options {}

/// Makes a set of results of `slot_count` slots, 64 at most, each of `options->slot_size` bytes.
///
/// Thread-safe.
///
/// # Safety
///
/// `options` is NULL or as its `struct_size` says; `slots` has `slot_count` elements, whose sources
/// are memory of the device as long as a fetch may be submitted or is not complete; `outputs` is
/// NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_outputs_create(
    context: wharf_context,
    options: *const wharf_outputs_options,
    slots: *const wharf_slot,
    slot_count: usize,
    outputs: *mut wharf_outputs,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(outputs, "outputs") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { sized(options, "options") }?;
        // SAFETY: as large as the structure, as `sized` found.
        let options = unsafe { *options };
        // SAFETY: the caller's promise.
        let slots = unsafe { array_of(slots, options.slot_size, slot_count, MOST_SLOTS) }?;
        // SAFETY: the caller's promise.
        let context = &unsafe { get(context) }?.context;
        // SAFETY: the caller's promise.
        let mut builder = unsafe { options.apply(OutputBuffers::builder(context)) }?;
        for slot in slots {
            // SAFETY: a slot of the array, as `array_of` found.
            let slot = unsafe { &*slot };
            // SAFETY: the caller's promise.
            let name = unsafe { text(slot.name, "slots->name") }?;
            // SAFETY: the caller's promise.
            builder = unsafe { slot.add_to_outputs(builder, name) }?;
        }
        let set = builder.build()?;
        let (slots, buffers) = (set.slots().collect(), set.static_buffers());
        to.set(insert(OutputsObject { slots, buffers, set })?);
        Ok(())
    })
}

/// Ends a set; does not wait. Results that were not released stay good.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_outputs_destroy(outputs: wharf_outputs) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { end(outputs) })
}

/// Writes the number of the slot with a name.
///
/// Thread-safe.
///
/// # Safety
///
/// `name` is NULL or a string; `slot` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_outputs_slot(
    outputs: wharf_outputs,
    name: *const c_char,
    slot: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(slot, "slot") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name, "name") }?;
        // SAFETY: the caller's promise.
        to.set(unsafe { get(outputs) }?.set.slot(name)?.index);
        Ok(())
    })
}

/// Writes where kernels write a slot of a step of so many tokens and requests: the same address in
/// every step; in a packed layout, in every step of a bucket.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_outputs_address(
    outputs: wharf_outputs,
    slot: usize,
    tokens: usize,
    requests: usize,
    address: *mut u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(outputs) }?;
        let info = find(&object.slots, slot)?;
        let found = object.buffers.address_of(info, Counts { tokens, requests });
        let text = || format!("no bucket holds {tokens} tokens and {requests} requests");
        to.set(found.ok_or_else(|| Failure::new(wharf_status::Invalid, text()))?);
        Ok(())
    })
}

/// Gives the graph that `stream` is capturing a share of the set's device memory, as
/// wharf_inputs_keep_in_capture.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_outputs_keep_in_capture(
    outputs: wharf_outputs,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(outputs) }?;
        // SAFETY: the caller's promise.
        Ok(object.buffers.keep_alive_in_capture(unsafe { get(stream) }?)?)
    })
}

/// Copies the results of a step to the host, behind what `stream` was given so far: one driver
/// call. Waits for a ring slot until the set's deadline if need be.
///
/// Thread-safe.
///
/// # Safety
///
/// `results` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_fetch(
    outputs: wharf_outputs,
    tokens: usize,
    requests: usize,
    stream: wharf_stream,
    results: *mut wharf_results,
) -> wharf_status {
    // SAFETY: the caller's promise.
    unsafe { fetch(outputs, tokens, requests, stream, results, &Way::USUAL) }
}

/// As wharf_fetch; WHARF_STATUS_WOULD_BLOCK if no ring slot is free.
///
/// Thread-safe.
///
/// # Safety
///
/// `results` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_try_fetch(
    outputs: wharf_outputs,
    tokens: usize,
    requests: usize,
    stream: wharf_stream,
    results: *mut wharf_results,
) -> wharf_status {
    // SAFETY: the caller's promise.
    unsafe {
        fetch(outputs, tokens, requests, stream, results, &Way { sources: &[], waits: false })
    }
}

/// As wharf_fetch, with slots from other memory of the device: `sources` has an address for each
/// slot, or 0 for the slot's own. A source that is another than in the last fetch of a ring slot
/// costs a driver call.
///
/// Thread-safe.
///
/// # Safety
///
/// * `sources` has `source_count` elements; each holds the slot's elements of the padded step until
///   the results are complete, and is written by nothing that is not ordered with the fetch.
/// * `results` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_fetch_from(
    outputs: wharf_outputs,
    tokens: usize,
    requests: usize,
    sources: *const u64,
    source_count: usize,
    stream: wharf_stream,
    results: *mut wharf_results,
) -> wharf_status {
    // SAFETY: the caller's promise.
    match unsafe { array(sources, source_count, MOST_SLOTS, "sources") } {
        Ok(sources) => {
            let way = Way { sources, waits: true };
            // SAFETY: the caller's promise.
            unsafe { fetch(outputs, tokens, requests, stream, results, &way) }
        }
        Err(failure) => fail(failure),
    }
}

/// How slots are fetched.
struct Way<'a> {
    /// Where from; no address, or 0, is where the slot is.
    sources: &'a [u64],
    /// Whether to wait for a ring slot.
    waits: bool,
}

impl Way<'_> {
    const USUAL: Self = Self { sources: &[], waits: true };
}

/// A fetch: one function for all ways, which takes what they are given as they are given it.
///
/// # Safety
///
/// As `wharf_fetch_from`.
unsafe fn fetch(
    outputs: wharf_outputs,
    tokens: usize,
    requests: usize,
    stream: wharf_stream,
    results: *mut wharf_results,
    way: &Way<'_>,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(results, "results") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(outputs) }?;
        // SAFETY: the caller's promise.
        let stream = unsafe { get(stream) }?;
        let mut fetch = match way.waits {
            true => object.set.begin(tokens, requests)?,
            false => object.set.try_begin(tokens, requests)?,
        };
        let sources = way.sources.iter().enumerate();
        for (slot, address) in sources.filter(|(_, address)| **address != 0) {
            let info = find(&object.slots, slot)?;
            // SAFETY: the caller's promise.
            unsafe { fetch.source_raw(info, *address) }?;
        }
        let pending = fetch.submit(stream)?;
        to.set(insert(ResultsObject::new(pending, object.slots.len()))?);
        Ok(())
    })
}

impl wharf_outputs_options {
    /// # Safety
    ///
    /// The pointers are as the fields say.
    unsafe fn apply(&self, builder: OutputBuffersBuilder) -> Result<OutputBuffersBuilder, Failure> {
        // SAFETY: the caller's promise.
        let buckets = unsafe { array(self.buckets, self.bucket_count, MOST_BUCKETS, "buckets") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { text_or(self.name, "options->name", "outputs") }?;
        let depth = if self.ring_depth == 0 { RING_DEPTH } else { self.ring_depth };
        let mut builder = builder.name(name).buckets(buckets.iter().copied()).ring_depth(depth);
        builder = builder.check_captures(self.check_captures).layout(layout_of(self.layout)?);
        if self.max_tokens > 0 {
            builder = builder.max_tokens(self.max_tokens);
        }
        if self.max_requests > 0 {
            builder = builder.max_requests(self.max_requests);
        }
        if self.deadline_ms > 0 {
            builder = builder.deadline(millis(self.deadline_ms));
        }
        Ok(builder)
    }
}
