#![expect(unsafe_code, reason = "exports C functions")]
//! Prefetches and discards of managed memory in batches.

use core::ffi::c_ulonglong;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::inputs;
use super::exports;
use super::managed::prefetch_to;
use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;
use crate::machine::FREED;
use crate::submit::Return;
use crate::task::{FillTask, Task};

exports! {
    Normal PFN_cuMemPrefetchBatchAsync_v13000: cuMemPrefetchBatchAsync(
        pointers: *mut CUdeviceptr, sizes: *mut usize, count: usize, locations: *mut CUmemLocation,
        first: *mut usize, groups: usize, flags: c_ulonglong, stream: CUstream,
    ) | cuMemPrefetchBatchAsync_ptsz => prefetch_batch;
    Normal PFN_cuMemDiscardBatchAsync_v13000: cuMemDiscardBatchAsync(
        pointers: *mut CUdeviceptr, sizes: *mut usize, count: usize, flags: c_ulonglong,
        stream: CUstream,
    ) | cuMemDiscardBatchAsync_ptsz => discard_batch;
    Normal PFN_cuMemDiscardAndPrefetchBatchAsync_v13000: cuMemDiscardAndPrefetchBatchAsync(
        pointers: *mut CUdeviceptr, sizes: *mut usize, count: usize, locations: *mut CUmemLocation,
        first: *mut usize, groups: usize, flags: c_ulonglong, stream: CUstream,
    ) | cuMemDiscardAndPrefetchBatchAsync_ptsz => discard_and_prefetch_batch;
}

/// The bytes of discarded memory where memory is poisoned.
const DISCARDED: u32 = FREED as u32;

/// Which group each of `count` operations is in, from the index of each group's first one:
/// "the first entry must always be 0 … each entry must be greater than the previous entry and
/// the last entry should be less than `count`".
pub(super) fn groups_of(first: &[usize], count: usize) -> Status<Vec<usize>> {
    let rises = first.windows(2).all(|pair| pair[0] < pair[1]);
    if first.first() != Some(&0) || !rises || first.last().is_some_and(|last| *last >= count) {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok((0..count).map(|index| first.partition_point(|begin| *begin <= index) - 1).collect())
}

/// Reads the ranges of a batch.
fn ranges(
    call: Call,
    pointers: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status<Vec<(u64, usize)>> {
    if flags != 0 || count == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    // "Must not be legacy NULL stream."
    call.forbid_legacy(stream)?;
    Ok(inputs(pointers, count)?.into_iter().zip(inputs(sizes, count)?).collect())
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn prefetch_batch(
    call: Call,
    pointers: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    locations: *mut CUmemLocation,
    first: *mut usize,
    groups: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    if groups == 0 || groups > count {
        return Err(CudaError::INVALID_VALUE);
    }
    let ranges = ranges(call, pointers, sizes, count, flags, stream)?;
    let (locations, first) = (inputs(locations, groups)?, inputs(first, groups)?);
    let group_of = groups_of(&first, count)?;
    // All locations are checked before anything is enqueued.
    let mut targets = Vec::new();
    for ((pointer, size), group) in ranges.into_iter().zip(group_of) {
        targets.push((pointer, size, call.location(&locations[group])?));
    }
    prefetch_to(call, &targets, stream)
}

/// "Reading from a discarded range, without a subsequent write or prefetch to that part of the
/// range, will return an indeterminate value": a pattern, where memory is poisoned.
fn discard_batch(
    call: Call,
    pointers: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    let ranges = ranges(call, pointers, sizes, count, flags, stream)?;
    call.concurrent(Location::Device(0))?;
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, handle)?;
    // All ranges are checked before any is discarded.
    for (pointer, size) in &ranges {
        state.managed(*pointer, *size)?;
    }
    drop(state);
    if !call.machine.config.poisons() {
        return call.submit(stream, &Task::Empty, Return::Enqueued);
    }
    for (address, width) in ranges {
        let fill = FillTask { address, pitch: 0, value: DISCARDED, element: 1, width, height: 1 };
        call.submit(stream, &Task::Fill(fill), Return::Enqueued)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn discard_and_prefetch_batch(
    call: Call,
    pointers: *mut CUdeviceptr,
    sizes: *mut usize,
    count: usize,
    locations: *mut CUmemLocation,
    first: *mut usize,
    groups: usize,
    flags: c_ulonglong,
    stream: CUstream,
) -> Status {
    discard_batch(call, pointers, sizes, count, flags, stream)?;
    prefetch_batch(call, pointers, sizes, count, locations, first, groups, flags, stream)
}
