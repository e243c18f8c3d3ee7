#![expect(unsafe_code, reason = "exports C functions")]
//! Device, pinned, registered and managed memory.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::out_if_any;
use super::{exports, out, valid};
use crate::call::Call;
use crate::config::Schedule;
use crate::errors::Status;
use crate::machine::{ALLOCATED, FREED, State, Work};
use crate::memory::block::READ;
use crate::memory::table::Owner;
use crate::memory::{Block, Kind};

#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuMemHostRegister_v4000 = PFN_cuMemHostRegister_v6050;

exports! {
    Normal PFN_cuMemGetInfo_v3020: cuMemGetInfo_v2(free: *mut usize, total: *mut usize) => get_info;
    Normal PFN_cuMemAlloc_v3020: cuMemAlloc_v2(pointer: *mut CUdeviceptr, size: usize) => alloc;
    Normal PFN_cuMemAllocPitch_v3020: cuMemAllocPitch_v2(
        pointer: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint,
    ) => alloc_pitch;
    Normal PFN_cuMemFree_v3020: cuMemFree_v2(pointer: CUdeviceptr) => free;
    Normal PFN_cuMemGetAddressRange_v3020: cuMemGetAddressRange_v2(
        base: *mut CUdeviceptr, size: *mut usize, pointer: CUdeviceptr,
    ) => get_address_range;
    Normal PFN_cuMemAllocHost_v3020: cuMemAllocHost_v2(
        pointer: *mut *mut c_void, size: usize,
    ) => alloc_host;
    Normal PFN_cuMemFreeHost_v2000: cuMemFreeHost(pointer: *mut c_void) => free_host;
    Normal PFN_cuMemHostAlloc_v2020: cuMemHostAlloc(
        pointer: *mut *mut c_void, size: usize, flags: c_uint,
    ) => host_alloc;
    Normal PFN_cuMemHostGetDevicePointer_v3020: cuMemHostGetDevicePointer_v2(
        device: *mut CUdeviceptr, host: *mut c_void, flags: c_uint,
    ) => host_get_device_pointer;
    Normal PFN_cuMemHostGetFlags_v2030: cuMemHostGetFlags(
        flags: *mut c_uint, pointer: *mut c_void,
    ) => host_get_flags;
    Normal PFN_cuMemHostRegister_v4000: cuMemHostRegister(
        pointer: *mut c_void, size: usize, flags: c_uint,
    ) => host_register;
    Normal PFN_cuMemHostRegister_v6050: cuMemHostRegister_v2(
        pointer: *mut c_void, size: usize, flags: c_uint,
    ) => host_register;
    Normal PFN_cuMemHostUnregister_v4000: cuMemHostUnregister(
        pointer: *mut c_void,
    ) => host_unregister;
    Normal PFN_cuMemAllocManaged_v6000: cuMemAllocManaged(
        pointer: *mut CUdeviceptr, size: usize, flags: c_uint,
    ) => alloc_managed;
}

/// Flags of pinned memory: portable, device-mapped, write-combined.
const HOST_ALLOC_FLAGS: c_uint = 0b0111;
/// Flags of registered memory: portable, device-mapped, I/O memory, read-only.
const REGISTER_FLAGS: c_uint = 0b1111;
/// `CU_MEMHOSTREGISTER_READ_ONLY`: read-only by the device.
const READ_ONLY: c_uint = 8;
/// Device-mapped, which unified addressing implies for both kinds of host memory.
const DEVICE_MAPPED: c_uint = 2;
/// Attach flags of managed memory: to all streams, to the host.
const ATTACH_GLOBAL: c_uint = 1;
const ATTACH_HOST: c_uint = 2;
/// Bytes between rows of a pitched allocation are a multiple of this.
const PITCH: usize = 512;
/// Where the device sees registered memory, relative to the host, on machines with an alias.
const ALIAS: u64 = 1 << 46;

fn get_info(call: Call, free: *mut usize, total: *mut usize) -> Status {
    let state = call.lock();
    let ordinal = call.ordinal(&state)?;
    let all = call.machine.config.device_memory;
    let used = state.memory.used.get(&ordinal).copied().unwrap_or(0);
    let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    out_if_any(free, bytes(all.saturating_sub(used)))?;
    out_if_any(total, bytes(all))
}

impl Call<'_> {
    /// Allocates memory of the current context's device.
    pub(crate) fn allocate(self, kind: Kind, size: usize) -> Status<Arc<Block>> {
        if size == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut state = self.lock();
        let owner = Owner { context: self.context(&state)?, ordinal: self.ordinal(&state)? };
        self.forbid_while_capturing(&mut state, None)?;
        // Charged before the allocation, which the host may grant beyond the device's memory.
        self.charge(&mut state, kind, owner.ordinal, size)?;
        let block = match state.memory.allocate(kind, size, owner) {
            Ok(block) => block,
            Err(code) => {
                state.memory.refund(kind, owner.ordinal, size);
                return Err(code);
            }
        };
        drop(state);
        self.machine.poison(&block, ALLOCATED);
        Ok(block)
    }

    /// Takes `size` bytes from what the device, or the host, has.
    pub(crate) fn charge(self, state: &mut State, kind: Kind, ordinal: i32, size: usize) -> Status {
        let limit = self.machine.limit(kind);
        let used = state.memory.account(kind, ordinal);
        let after = used.checked_add(size as u64).ok_or(CudaError::OUT_OF_MEMORY)?;
        if after > limit {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        *used = after;
        Ok(())
    }

    /// Frees the allocation `block`: at once for the table, for its bytes when no operation in
    /// flight uses them. The driver "may synchronise" here; a schedule that runs operations as
    /// late as allowed does not.
    pub(super) fn free_block(self, block: &Arc<Block>) -> Status {
        let mut state = self.lock();
        self.forbid_while_capturing(&mut state, None)?;
        if matches!(self.machine.config.schedule, Schedule::Async | Schedule::Eager) {
            state = self.machine.wait_for_context(state, block.context);
        }
        // Another thread may have freed it in the meantime.
        if block.is_freed() {
            return Err(CudaError::INVALID_VALUE);
        }
        // With no operation in flight, these are the table's reference and the caller's. The lock
        // is held: the addresses may be another's as soon as it is not.
        if Arc::strong_count(block) == 2 {
            self.machine.poison(block, FREED);
        }
        state.release(block);
        Ok(())
    }
}

fn alloc(call: Call, pointer: *mut CUdeviceptr, size: usize) -> Status {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(pointer, call.allocate(Kind::Device, size)?.device)
}

fn alloc_pitch(
    call: Call,
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> Status {
    if !valid(pointer)
        || !valid(pitch)
        || !matches!(element, 4 | 8 | 16)
        || width == 0
        || height == 0
    {
        return Err(CudaError::INVALID_VALUE);
    }
    let row = width.checked_next_multiple_of(PITCH).ok_or(CudaError::INVALID_VALUE)?;
    let size = row.checked_mul(height).ok_or(CudaError::OUT_OF_MEMORY)?;
    let block = call.allocate(Kind::Device, size)?;
    out(pitch, row)?;
    out(pointer, block.device)
}

fn free(call: Call, pointer: CUdeviceptr) -> Status {
    if pointer == 0 {
        return Ok(());
    }
    let block = call.lock().memory.at(pointer).cloned().ok_or(CudaError::INVALID_VALUE)?;
    match block.kind {
        Kind::Device | Kind::Managed { .. } => call.free_block(&block),
        Kind::Pool { .. } => call.free_pooled(&block),
        Kind::Graph { .. } => {
            // No stream is named that later launches could be ordered with: none is asked for.
            let kept = Arc::clone(&block);
            let work = Work::Apply(Box::new(move |_| kept.free()));
            call.free_of_graph(&block, core::ptr::null_mut(), work)
        }
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn get_address_range(
    call: Call,
    base: *mut CUdeviceptr,
    size: *mut usize,
    pointer: CUdeviceptr,
) -> Status {
    let state = call.lock();
    call.context(&state)?;
    let block = state.memory.find(pointer).ok_or(CudaError::NOT_FOUND)?;
    out_if_any(base, block.device)?;
    out_if_any(size, block.size)
}

fn alloc_host(call: Call, pointer: *mut *mut c_void, size: usize) -> Status {
    host_alloc(call, pointer, size, 0)
}

fn host_alloc(call: Call, pointer: *mut *mut c_void, size: usize, flags: c_uint) -> Status {
    if !valid(pointer) || flags & !HOST_ALLOC_FLAGS != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if size == 0 {
        // Drivers succeed, as measured on 590.48.01, unlike for device memory: there is nothing to
        // free.
        let state = call.lock();
        call.context(&state)?;
        return out(pointer, core::ptr::null_mut());
    }
    let block = call.allocate(Kind::Pinned { flags: flags | DEVICE_MAPPED }, size)?;
    out(pointer, host_pointer(block.host))
}

fn host_pointer(address: u64) -> *mut c_void {
    crate::address::pointer(address)
}

fn free_host(call: Call, pointer: *mut c_void) -> Status {
    if pointer.is_null() {
        return Ok(());
    }
    let address = pointer.expose_provenance() as u64;
    let block = call.lock().memory.at(address).cloned().ok_or(CudaError::INVALID_VALUE)?;
    match block.kind {
        Kind::Pinned { .. } => call.free_block(&block),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn host_get_device_pointer(
    call: Call,
    device: *mut CUdeviceptr,
    host: *mut c_void,
    flags: c_uint,
) -> Status {
    if !valid(device) || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    call.context(&state)?;
    let address = host.addr() as u64;
    let block = state.memory.find(address).filter(|block| block.kind.is_host());
    // Registered memory may have another address on the device, at the same offset.
    let block = block.ok_or(CudaError::INVALID_VALUE)?;
    out(device, block.device + (address - block.host))
}

fn host_get_flags(call: Call, flags: *mut c_uint, pointer: *mut c_void) -> Status {
    if !valid(flags) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    call.context(&state)?;
    match state.memory.find(pointer.addr() as u64).map(|block| block.kind) {
        Some(Kind::Pinned { flags: known } | Kind::Registered { flags: known }) => {
            out(flags, known)
        }
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn host_register(call: Call, pointer: *mut c_void, size: usize, flags: c_uint) -> Status {
    let address = pointer.expose_provenance() as u64;
    let end = address.checked_add(size as u64).ok_or(CudaError::INVALID_VALUE)?;
    if size == 0 || flags & !REGISTER_FLAGS != 0 || address < 4096 || end > 1 << 47 {
        return Err(CudaError::INVALID_VALUE);
    }
    call.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)?;
    let is_read_only = flags & READ_ONLY != 0;
    if is_read_only {
        call.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED)?;
    }
    let mut state = call.lock();
    let owner = Owner { context: call.context(&state)?, ordinal: call.ordinal(&state)? };
    call.forbid_while_capturing(&mut state, None)?;
    if state.memory.overlaps(address, size) {
        return Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED);
    }
    // "This flag is required in order to register memory mapped to the CPU as read-only."
    let is_writable = is_read_only || crate::memory::maps::is_writable(address, size);
    if !is_writable || !crate::memory::pageable::is_mapped(address, size) {
        return Err(CudaError::INVALID_VALUE);
    }
    let kind = Kind::Registered { flags: flags | DEVICE_MAPPED };
    call.charge(&mut state, kind, owner.ordinal, size)?;
    let device = if call.machine.config.registered_alias { address ^ ALIAS } else { address };
    let block = state.memory.adopt(kind, address, device, size, owner);
    if is_read_only {
        block.set_access(READ, true);
    }
    Ok(())
}

fn host_unregister(call: Call, pointer: *mut c_void) -> Status {
    if pointer.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let address = pointer.addr() as u64;
    let state = call.lock();
    call.context(&state)?;
    let block = state.memory.find(address).cloned().ok_or(CudaError::HOST_MEMORY_NOT_REGISTERED)?;
    drop(state);
    if !matches!(block.kind, Kind::Registered { .. } | Kind::Pinned { .. }) {
        return Err(CudaError::HOST_MEMORY_NOT_REGISTERED);
    }
    // Memory of cuMemHostAlloc is registered, but not by cuMemHostRegister (measured on 590.48.01).
    if block.host != address || matches!(block.kind, Kind::Pinned { .. }) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.free_block(&block)
}

fn alloc_managed(call: Call, pointer: *mut CUdeviceptr, size: usize, flags: c_uint) -> Status {
    if !valid(pointer) || flags != ATTACH_GLOBAL && flags != ATTACH_HOST {
        return Err(CudaError::INVALID_VALUE);
    }
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY;
    let ordinal: c_int = call.ordinal(&call.lock())?;
    if crate::attributes::of(&call.machine.config, attribute, ordinal) == Some(0) {
        return Err(CudaError::NOT_SUPPORTED);
    }
    out(pointer, call.allocate(Kind::Managed { flags }, size)?.device)
}
