#![expect(unsafe_code, reason = "exports C functions")]
//! Start, version, error names, entry point look-up.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::symbols::{Found, find};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors;
use crate::errors::Status;

exports! {
    Early PFN_cuInit_v2000: cuInit(flags: c_uint) => init;
    Early PFN_cuDriverGetVersion_v2020: cuDriverGetVersion(
        version: *mut c_int,
    ) => driver_get_version;
    Early PFN_cuGetErrorName_v6000: cuGetErrorName(
        error: CUresult, text: *mut *const c_char,
    ) => get_error_name;
    Early PFN_cuGetErrorString_v6000: cuGetErrorString(
        error: CUresult, text: *mut *const c_char,
    ) => get_error_string;
    Early PFN_cuGetProcAddress_v11030: cuGetProcAddress(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: cuuint64_t,
    ) => get_proc_address;
    Early PFN_cuGetProcAddress_v12000: cuGetProcAddress_v2(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: cuuint64_t,
        status: *mut CUdriverProcAddressQueryResult,
    ) => get_proc_address_v2;
    Early PFN_cuGetExportTable_v3000: cuGetExportTable(
        table: *mut *const c_void, id: *const CUuuid,
    ) => get_export_table;
}

fn init(call: Call, flags: c_uint) -> Status {
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if call.machine.is_misconfigured {
        // The line that says why was written when the machine was made.
        return Err(CudaError::INVALID_VALUE);
    }
    if call.machine.config.devices == 0 {
        return Err(CudaError::NO_DEVICE);
    }
    call.machine.initialise();
    Ok(())
}

fn driver_get_version(call: Call, version: *mut c_int) -> Status {
    out(version, c_int::try_from(call.machine.config.version).unwrap_or(c_int::MAX))
}

fn get_error_name(_: Call, error: CUresult, text: *mut *const c_char) -> Status {
    explain(text, errors::name(error))
}

fn get_error_string(_: Call, error: CUresult, text: *mut *const c_char) -> Status {
    explain(text, errors::description(error))
}

/// An unknown code gives a null text and `INVALID_VALUE`.
fn explain(text: *mut *const c_char, known: Option<&'static CStr>) -> Status {
    let Some(known) = known else {
        out(text, core::ptr::null())?;
        return Err(CudaError::INVALID_VALUE);
    };
    out(text, known.as_ptr())
}

fn get_proc_address(
    call: Call,
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> Status {
    let found = look_up(call, symbol, function, version, flags)?;
    // Without a status to write, an unknown name is an error (CUDA 11.3's form of the call).
    if matches!(found, Found::At(_)) { Ok(()) } else { Err(CudaError::NOT_FOUND) }
}

fn get_proc_address_v2(
    call: Call,
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    status: *mut CUdriverProcAddressQueryResult,
) -> Status {
    let found = look_up(call, symbol, function, version, flags)?;
    let answer = match found {
        Found::At(_) => CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS,
        Found::TooNew => CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
        Found::Unknown => CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
    };
    super::arguments::out_if_any(status, answer)
}

fn look_up(
    call: Call,
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> Status<Found> {
    let per_thread = flags & 2 != 0;
    let version = u32::try_from(version).map_err(|_| CudaError::INVALID_VALUE)?;
    if !valid(symbol) || flags > 3 || version > call.machine.config.version {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space; that it is a C string is the program's promise.
    let symbol = unsafe { CStr::from_ptr(symbol) };
    let name = symbol.to_str().map_err(|_| CudaError::INVALID_VALUE)?;
    let found = find(name, version, per_thread);
    out(function, if let Found::At(address) = found { address } else { core::ptr::null_mut() })?;
    Ok(found)
}

/// Private tables of NVIDIA's own libraries: none.
fn get_export_table(_: Call, table: *mut *const c_void, id: *const CUuuid) -> Status {
    if !valid(id) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(table, core::ptr::null())?;
    Err(CudaError::NOT_FOUND)
}
