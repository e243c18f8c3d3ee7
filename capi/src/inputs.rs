#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles and structures")]
//! Sets of input buffers.

use std::ffi::c_char;
use std::sync::Arc;

use wharf::staging::{Counts, InputBuffers, InputBuffersBuilder, SlotInfo, StaticBuffers};

use crate::args::{Growing, array, array_of, millis, out, sized, text, text_or};
use crate::context::wharf_context;
use crate::slots::{layout_of, wharf_slot};
use crate::status::{Failure, call, wharf_status};
use crate::step::{PLACES, StepCell};
use crate::stream::wharf_stream;
use crate::table::{end, get, handle, insert};

/// The inputs of an engine's steps: host slots to write, and device memory at addresses that
/// never change.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_inputs {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_inputs, InputsObject, "inputs");

/// A set, and the steps that C holds.
#[derive(Debug)]
pub struct InputsObject {
    /// One for each ring slot. Before the set, whose memory they use.
    pub(crate) cells: Box<[StepCell; PLACES]>,
    pub(crate) slots: Box<[SlotInfo]>,
    buffers: StaticBuffers,
    pub(crate) set: Arc<InputBuffers>,
}

/// What a set is to be. Zero it, and set `struct_size`, `slot_size` and `buckets`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wharf_inputs_options {
    /// sizeof(wharf_inputs_options).
    pub struct_size: usize,
    /// sizeof(wharf_slot).
    pub slot_size: usize,
    /// The numbers of tokens that steps are padded to.
    pub buckets: *const usize,
    /// How many there are, 4096 at most.
    pub bucket_count: usize,
    /// The most tokens of a step; 0 for the largest bucket.
    pub max_tokens: usize,
    /// The most requests of a step; 0 for the largest bucket.
    pub max_requests: usize,
    /// How many steps may be in flight, 1 to 64; 0 for 3.
    pub ring_depth: usize,
    /// How long wharf_begin waits for the device, in milliseconds; 0 for the library's default.
    pub deadline_ms: u64,
    /// Whether each step asks the driver whether its stream is being captured.
    pub check_captures: bool,
    /// A wharf_layout.
    pub layout: i32,
    /// The set's name in errors and profilers; may be NULL.
    pub name: *const c_char,
}

// SAFETY: repr(C), and the size comes first.
unsafe impl Growing for wharf_inputs_options {}

/// Makes a set of `slot_count` slots, 64 at most, each of `options->slot_size` bytes.
///
/// Thread-safe.
///
/// # Safety
///
/// `options` is NULL or as its `struct_size` says; `slots` has `slot_count` elements; `inputs` is
/// NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_create(
    context: wharf_context,
    options: *const wharf_inputs_options,
    slots: *const wharf_slot,
    slot_count: usize,
    inputs: *mut wharf_inputs,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(inputs, "inputs") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { sized(options, "options") }?;
        // SAFETY: as large as the structure, as `sized` found.
        let options = unsafe { *options };
        // SAFETY: the caller's promise.
        let slots = unsafe { array_of(slots, options.slot_size, slot_count, MOST_SLOTS) }?;
        // SAFETY: the caller's promise.
        let context = &unsafe { get(context) }?.context;
        let depth = if options.ring_depth == 0 { RING_DEPTH } else { options.ring_depth };
        // SAFETY: the caller's promise.
        let mut builder = unsafe { options.apply(InputBuffers::builder(context)) }?;
        builder = builder.ring_depth(depth);
        for slot in slots {
            // SAFETY: a slot of the array, as `array_of` found.
            let slot = unsafe { &*slot };
            // SAFETY: the caller's promise.
            let name = unsafe { text(slot.name, "slots->name") }?;
            builder = slot.add_to(builder, name)?;
        }
        let set = Arc::new(builder.build()?);
        let cells = Box::new(std::array::from_fn(|_| StepCell::default()));
        let (slots, buffers) = (set.slots().collect(), set.static_buffers());
        to.set(insert(InputsObject { cells, slots, buffers, set })?);
        Ok(())
    })
}

/// Ends a set when the device has read every step that was submitted; waits for that until the
/// set's deadline. On WHARF_STATUS_TIMED_OUT the set is as before. Steps that are open are
/// abandoned.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle or its steps meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_destroy(inputs: wharf_inputs) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe { get(inputs) }?.set.wait()?;
        // SAFETY: the caller's promise.
        unsafe { end(inputs) }
    })
}

/// Waits until the device has read every step that was submitted, until the set's deadline.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_wait(inputs: wharf_inputs) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { get(inputs) }?.set.wait()?))
}

/// Writes the number of the slot with a name.
///
/// Thread-safe.
///
/// # Safety
///
/// `name` is NULL or a string; `slot` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_slot(
    inputs: wharf_inputs,
    name: *const c_char,
    slot: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(slot, "slot") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { text(name, "name") }?;
        // SAFETY: the caller's promise.
        to.set(unsafe { get(inputs) }?.set.slot(name)?.index);
        Ok(())
    })
}

/// Writes where the device finds a slot in every step.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_address(
    inputs: wharf_inputs,
    slot: usize,
    address: *mut u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let info = unsafe { get(inputs) }?.slot(slot)?;
        let text = || format!("slot {:?} has another address in each step", info.name);
        to.set(info.address.ok_or_else(|| Failure::new(wharf_status::Invalid, text()))?);
        Ok(())
    })
}

/// Writes where the device finds a slot in the steps of the bucket that holds so many tokens and
/// requests: for packed layouts, in which that depends on the bucket.
///
/// Thread-safe.
///
/// # Safety
///
/// `address` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_address_in(
    inputs: wharf_inputs,
    slot: usize,
    tokens: usize,
    requests: usize,
    address: *mut u64,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(address, "address") }?;
        // SAFETY: the caller's promise.
        let object = unsafe { get(inputs) }?;
        let info = object.slot(slot)?;
        let found = object.buffers.address_of(info, Counts { tokens, requests });
        let text = || format!("slot {:?} has no place in a bucket of that size", info.name);
        to.set(found.ok_or_else(|| Failure::new(wharf_status::Invalid, text()))?);
        Ok(())
    })
}

/// Gives the graph that `stream` is capturing a share of the set's device memory: the addresses
/// stay good as long as the graph, an executable graph of it or a launch lives.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread releases the handles meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_inputs_keep_in_capture(
    inputs: wharf_inputs,
    stream: wharf_stream,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let object = unsafe { get(inputs) }?;
        // SAFETY: the caller's promise.
        Ok(object.buffers.keep_alive_in_capture(unsafe { get(stream) }?)?)
    })
}

impl InputsObject {
    /// A slot by its number.
    #[inline]
    pub(crate) fn slot(&self, slot: usize) -> Result<&SlotInfo, Failure> {
        find(&self.slots, slot)
    }
}

/// A slot of a set by its number.
#[inline]
pub(crate) fn find(slots: &[SlotInfo], slot: usize) -> Result<&SlotInfo, Failure> {
    slots.get(slot).ok_or_else(|| no_slot(slot, slots.len()))
}

/// The failure of a slot that a set of so many does not have.
#[cold]
pub(crate) fn no_slot(slot: usize, slots: usize) -> Failure {
    let text = format!("there is no slot {slot}: the set has {slots}");
    Failure::new(wharf_status::Invalid, text)
}

impl wharf_inputs_options {
    /// # Safety
    ///
    /// The pointers are as the fields say.
    unsafe fn apply(&self, builder: InputBuffersBuilder) -> Result<InputBuffersBuilder, Failure> {
        // SAFETY: the caller's promise.
        let buckets = unsafe { array(self.buckets, self.bucket_count, MOST_BUCKETS, "buckets") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { text_or(self.name, "options->name", "inputs") }?;
        let mut builder = builder.name(name).buckets(buckets.iter().copied());
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

pub(crate) const RING_DEPTH: usize = 3;
pub(crate) const MOST_SLOTS: usize = 64;
pub(crate) const MOST_BUCKETS: usize = 4096;
