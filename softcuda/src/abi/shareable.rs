#![expect(unsafe_code, reason = "exports C functions")]
//! Physical allocations as file descriptors and as fabric handles: exported to other processes and
//! imported.

use core::ffi::{c_int, c_ulonglong, c_void};
use std::os::fd::IntoRawFd;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::vmm::is_granular;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;
use crate::memory::physical::{Bytes, FABRIC_BYTES};
use crate::vmm::Physical;

exports! {
    Normal PFN_cuMemExportToShareableHandle_v10020: cuMemExportToShareableHandle(
        shareable: *mut c_void, handle: CUmemGenericAllocationHandle,
        kind: CUmemAllocationHandleType, flags: c_ulonglong,
    ) => export_to_shareable_handle;
    Normal PFN_cuMemImportFromShareableHandle_v10020: cuMemImportFromShareableHandle(
        handle: *mut CUmemGenericAllocationHandle, shareable: *mut c_void,
        kind: CUmemAllocationHandleType,
    ) => import_from_shareable_handle;
}

fn export_to_shareable_handle(
    call: Call,
    shareable: *mut c_void,
    handle: CUmemGenericAllocationHandle,
    kind: CUmemAllocationHandleType,
    flags: c_ulonglong,
) -> Status {
    call.require_vmm()?;
    if shareable.is_null() || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let physical = state.vmm.physical(handle)?;
    if !matches!(kind, POSIX | FABRIC) || physical.handle_types & kind.0 == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if kind == FABRIC {
        let bytes = physical.bytes.fabric_handle().ok_or(CudaError::OUT_OF_MEMORY)?;
        return out(shareable.cast::<[u8; FABRIC_BYTES]>(), bytes);
    }
    let shareable = shareable.cast::<c_int>();
    if !valid(shareable) {
        return Err(CudaError::INVALID_VALUE);
    }
    let descriptor = physical.bytes.export().ok_or(CudaError::OUT_OF_MEMORY)?;
    // The program closes it.
    out(shareable, descriptor.into_raw_fd())
}

/// A descriptor is passed as the pointer itself, a fabric handle by its address.
fn import_from_shareable_handle(
    call: Call,
    handle: *mut CUmemGenericAllocationHandle,
    shareable: *mut c_void,
    kind: CUmemAllocationHandleType,
) -> Status {
    call.require_vmm()?;
    if !valid(handle) {
        return Err(CudaError::INVALID_VALUE);
    }
    let bytes = match kind {
        POSIX => {
            let descriptor = c_int::try_from(shareable.addr());
            Bytes::import(descriptor.map_err(|_| CudaError::INVALID_VALUE)?)
        }
        FABRIC => {
            call.handle_types(FABRIC)?;
            Bytes::open(&input(shareable.cast::<[u8; FABRIC_BYTES]>().cast_const())?)
        }
        _ => return Err(CudaError::NOT_SUPPORTED),
    };
    let bytes = bytes.ok_or(CudaError::INVALID_VALUE)?;
    let size = bytes.size();
    if size == 0 || !is_granular(&[usize::try_from(size).unwrap_or(usize::MAX)]) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    // Where it was exported here, this is another reference to the same allocation.
    let identity = bytes.identity();
    let mut handles = state.vmm.physicals.handles().into_iter();
    let known = handles.find(|known| {
        let physical = state.vmm.physicals.get(*known);
        physical.is_some_and(|physical| {
            physical.handle_types != 0 && physical.bytes.identity() == identity
        })
    });
    if let Some(known) = known
        && let Some(physical) = state.vmm.physicals.get_mut(known)
    {
        physical.references += 1;
        return out(handle, known);
    }
    let physical = Physical::new(bytes, Location::Device(0), kind.0, 0, false);
    out(handle, state.vmm.physicals.insert(physical))
}

const POSIX: CUmemAllocationHandleType =
    CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
const FABRIC: CUmemAllocationHandleType = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC;
