#![expect(unsafe_code, reason = "exports C functions")]
//! Advice about managed memory, prefetches, and what is remembered of both.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{inputs, out_array};
use super::{exports, out};
use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;
use crate::machine::State;
use crate::managed::Page;
use crate::memory::Block;
use crate::submit::Return;
use crate::task::Task;

exports! {
    Normal PFN_cuMemAdvise_v8000: cuMemAdvise(
        pointer: CUdeviceptr, size: usize, advice: CUmem_advise, device: CUdevice,
    ) => advise;
    Normal PFN_cuMemAdvise_v12020: cuMemAdvise_v2(
        pointer: CUdeviceptr, size: usize, advice: CUmem_advise, location: CUmemLocation,
    ) => advise_location;
    Normal PFN_cuMemPrefetchAsync_v8000: cuMemPrefetchAsync(
        pointer: CUdeviceptr, size: usize, device: CUdevice, stream: CUstream,
    ) | cuMemPrefetchAsync_ptsz => prefetch;
    Normal PFN_cuMemPrefetchAsync_v12020: cuMemPrefetchAsync_v2(
        pointer: CUdeviceptr, size: usize, location: CUmemLocation, flags: c_uint, stream: CUstream,
    ) | cuMemPrefetchAsync_v2_ptsz => prefetch_location;
    Normal PFN_cuMemRangeGetAttribute_v8000: cuMemRangeGetAttribute(
        data: *mut c_void, size: usize, attribute: CUmem_range_attribute, pointer: CUdeviceptr,
        len: usize,
    ) => range_get_attribute;
    Normal PFN_cuMemRangeGetAttributes_v8000: cuMemRangeGetAttributes(
        data: *mut *mut c_void, sizes: *mut usize, attributes: *mut CUmem_range_attribute,
        count: usize, pointer: CUdeviceptr, len: usize,
    ) => range_get_attributes;
}

/// `CU_DEVICE_CPU`
const CPU: c_int = -1;
/// `CU_DEVICE_INVALID`
const NOWHERE: c_int = -2;

impl Call<'_> {
    /// A device number or `CU_DEVICE_CPU`: the form of locations before CUDA 12.2.
    fn processor(self, device: CUdevice) -> Status<Location> {
        if device == CPU {
            return Ok(Location::Host);
        }
        self.device(device)?;
        Ok(Location::Device(device))
    }

    /// Refuses a device that cannot use managed memory together with the host.
    pub(super) fn concurrent(self, location: Location) -> Status {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS;
        match location {
            Location::Device(_) => {
                self.require_anywhere(attribute).map_err(|_| CudaError::INVALID_DEVICE)
            }
            Location::Host | Location::HostNuma(_) => Ok(()),
        }
    }
}

impl State {
    /// The managed allocation that contains the range.
    pub(super) fn managed(&self, address: u64, size: usize) -> Status<Arc<Block>> {
        let blocks = self.memory.cover(address, size).filter(|_| size > 0);
        let block =
            blocks.and_then(|blocks| blocks.into_iter().next()).ok_or(CudaError::INVALID_VALUE)?;
        if self.is_managed(block.kind) { Ok(block) } else { Err(CudaError::INVALID_VALUE) }
    }
}

fn advise(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> Status {
    let location = if names_location(advice) { Some(call.processor(device)?) } else { None };
    give_advice(call, pointer, size, advice, location)
}

fn advise_location(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    advice: CUmem_advise,
    location: CUmemLocation,
) -> Status {
    let location = if names_location(advice) { Some(call.location(&location)?) } else { None };
    give_advice(call, pointer, size, advice, location)
}

/// Whether the location of an advice has a meaning: for the others it "is ignored".
fn names_location(advice: CUmem_advise) -> bool {
    matches!(
        advice,
        CUmem_advise::CU_MEM_ADVISE_SET_PREFERRED_LOCATION
            | CUmem_advise::CU_MEM_ADVISE_SET_ACCESSED_BY
            | CUmem_advise::CU_MEM_ADVISE_UNSET_ACCESSED_BY
    )
}

fn give_advice(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    advice: CUmem_advise,
    location: Option<Location>,
) -> Status {
    if let Some(location) = location {
        call.concurrent(location)?;
        // Only the preferred location can be a NUMA node of the host.
        let is_access = advice != CUmem_advise::CU_MEM_ADVISE_SET_PREFERRED_LOCATION;
        if is_access && matches!(location, Location::HostNuma(_)) {
            return Err(CudaError::INVALID_VALUE);
        }
    }
    let mut state = call.lock();
    let block = state.managed(pointer, size)?;
    let change: &dyn Fn(&mut Page) = match advice {
        CUmem_advise::CU_MEM_ADVISE_SET_READ_MOSTLY => &|page| page.read_mostly = true,
        CUmem_advise::CU_MEM_ADVISE_UNSET_READ_MOSTLY => &|page| page.read_mostly = false,
        CUmem_advise::CU_MEM_ADVISE_SET_PREFERRED_LOCATION => &|page| page.preferred = location,
        CUmem_advise::CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION => &|page| page.preferred = None,
        CUmem_advise::CU_MEM_ADVISE_SET_ACCESSED_BY => &|page| page.accessed_by.extend(location),
        CUmem_advise::CU_MEM_ADVISE_UNSET_ACCESSED_BY => {
            &|page| page.accessed_by.retain(|processor| Some(*processor) != location)
        }
        _ => return Err(CudaError::INVALID_VALUE),
    };
    state.advice.update(&block, pointer, size, change);
    Ok(())
}

fn prefetch(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    device: CUdevice,
    stream: CUstream,
) -> Status {
    prefetch_to(call, &[(pointer, size, call.processor(device)?)], stream)
}

fn prefetch_location(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    location: CUmemLocation,
    flags: c_uint,
    stream: CUstream,
) -> Status {
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    prefetch_to(call, &[(pointer, size, call.location(&location)?)], stream)
}

impl Call<'_> {
    /// Refuses the legacy default stream for a call that does not take it.
    pub(super) fn forbid_legacy(self, stream: CUstream) -> Status {
        let is_legacy =
            stream == wharf_sys::constants::STREAM_LEGACY || stream.is_null() && !self.per_thread;
        if is_legacy { Err(CudaError::INVALID_VALUE) } else { Ok(()) }
    }
}

/// Enqueues a point in the stream: the memory is where it is.
pub(super) fn prefetch_to(
    call: Call,
    ranges: &[(u64, usize, Location)],
    stream: CUstream,
) -> Status {
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, handle)?;
    // The stream's device needs the attribute too.
    call.concurrent(Location::Device(0))?;
    let mut blocks = Vec::new();
    for (pointer, size, location) in ranges {
        call.concurrent(*location)?;
        blocks.push(state.managed(*pointer, *size)?);
    }
    for ((pointer, size, location), block) in ranges.iter().zip(&blocks) {
        state.advice.update(block, *pointer, *size, |page| page.prefetched = Some(*location));
    }
    drop(state);
    call.submit(stream, &Task::Empty, Return::Enqueued)
}

fn range_get_attribute(
    call: Call,
    data: *mut c_void,
    size: usize,
    attribute: CUmem_range_attribute,
    pointer: CUdeviceptr,
    len: usize,
) -> Status {
    let state = call.lock();
    let block = state.managed(pointer, len)?;
    write_attribute(&state.advice.pages(&block, pointer, len), data, size, attribute)
}

fn range_get_attributes(
    call: Call,
    data: *mut *mut c_void,
    sizes: *mut usize,
    attributes: *mut CUmem_range_attribute,
    count: usize,
    pointer: CUdeviceptr,
    len: usize,
) -> Status {
    if count == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let (data, sizes, attributes) =
        (inputs(data, count)?, inputs(sizes, count)?, inputs(attributes, count)?);
    let state = call.lock();
    let block = state.managed(pointer, len)?;
    let pages = state.advice.pages(&block, pointer, len);
    for ((data, size), attribute) in data.into_iter().zip(sizes).zip(attributes) {
        write_attribute(&pages, data, size, attribute)?;
    }
    Ok(())
}

fn write_attribute(
    pages: &[Page],
    data: *mut c_void,
    size: usize,
    attribute: CUmem_range_attribute,
) -> Status {
    let data = data.cast::<c_int>();
    if attribute == CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY {
        if size == 0 || !size.is_multiple_of(size_of::<c_int>()) {
            return Err(CudaError::INVALID_VALUE);
        }
        return out_array(data, &accessed_by(pages, size / size_of::<c_int>()));
    }
    // Pages of a range can differ: then there is no single location.
    let preferred = common(pages.iter().map(|page| page.preferred));
    let prefetched = common(pages.iter().map(|page| page.prefetched));
    let value = match attribute {
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY => {
            c_int::from(pages.iter().all(|page| page.read_mostly))
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION => {
            processor_number(preferred)
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION => {
            processor_number(prefetched)
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE => {
            location_type(preferred)
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID => {
            location_id(preferred)
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE => {
            location_type(prefetched)
        }
        CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID => {
            location_id(prefetched)
        }
        _ => return Err(CudaError::INVALID_VALUE),
    };
    if size == size_of::<c_int>() { out(data, value) } else { Err(CudaError::INVALID_VALUE) }
}

/// The location that all pages have in common.
fn common(mut locations: impl Iterator<Item = Option<Location>>) -> Option<Location> {
    let first = locations.next()??;
    locations.all(|location| location == Some(first)).then_some(first)
}

fn processor_number(location: Option<Location>) -> c_int {
    match location {
        Some(Location::Device(ordinal)) => ordinal,
        Some(Location::Host | Location::HostNuma(_)) => CPU,
        None => NOWHERE,
    }
}

fn location_type(location: Option<Location>) -> c_int {
    location.map_or(CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID, Location::kind).0.cast_signed()
}

fn location_id(location: Option<Location>) -> c_int {
    location.map_or(NOWHERE, Location::id)
}

/// The processors that the advice names for all pages, devices first, and nothing in the rest.
fn accessed_by(pages: &[Page], len: usize) -> Vec<c_int> {
    let first = pages.first().map(|page| page.accessed_by.clone()).unwrap_or_default();
    let everywhere = first
        .into_iter()
        .filter(|processor| pages.iter().all(|page| page.accessed_by.contains(processor)))
        .map(|processor| processor_number(Some(processor)));
    everywhere.chain(core::iter::repeat(NOWHERE)).take(len).collect()
}
