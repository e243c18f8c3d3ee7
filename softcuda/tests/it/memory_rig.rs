//! Mapped memory and machines of two devices, for the tests that need them.

use std::ptr;

use softcuda::{Config, Schedule};
use wharf_sys::bindings::{CUcontext, CUmemAllocationProp_v1, CUmemAllocationType};

use crate::support::{Rig, device_0};

/// The granularity of physical memory, in bytes.
pub(crate) const GRANULE: usize = 2 << 20;

/// Physical memory of the first device.
pub(crate) fn properties() -> CUmemAllocationProp_v1 {
    let mut properties: CUmemAllocationProp_v1 = unsafe { std::mem::zeroed() };
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = device_0();
    properties
}

impl Rig {
    pub(crate) fn reserve(&self, size: usize) -> u64 {
        let mut address = 0;
        unsafe { self.api.mem_address_reserve.call(&raw mut address, size, 0, 0, 0) }.unwrap();
        address
    }

    pub(crate) fn physical(&self, size: usize) -> u64 {
        let (mut handle, properties) = (0, properties());
        unsafe { self.api.mem_create.call(&raw mut handle, size, &raw const properties, 0) }
            .unwrap();
        handle
    }
}

/// Two devices; the context of the first is current.
pub(crate) struct Pair {
    pub(crate) rig: Rig,
    pub(crate) other: CUcontext,
}

impl Pair {
    pub(crate) fn new(schedule: Schedule) -> Self {
        let rig = Rig::with(Config { devices: 2, schedule, ..Rig::config() });
        let mut other = ptr::null_mut();
        unsafe { rig.api.device_primary_ctx_retain.call(&raw mut other, 1) }.unwrap();
        Self { rig, other }
    }

    /// Runs `body` with the second device's context current.
    pub(crate) fn on_other<T>(&self, body: impl FnOnce(&Rig) -> T) -> T {
        unsafe { self.rig.api.ctx_set_current.call(self.other) }.unwrap();
        let result = body(&self.rig);
        unsafe { self.rig.api.ctx_set_current.call(self.rig.context) }.unwrap();
        result
    }
}
