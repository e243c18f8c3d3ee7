#![expect(unsafe_code, reason = "exports C functions")]
//! Libraries: code in all contexts, and the kernels in it.

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{out_array, out_if_any};
use super::module::{image, image_of_file, text};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::memory::Kind;
use crate::module::{Image, Library};

exports! {
    Normal PFN_cuLibraryLoadData_v12000: cuLibraryLoadData(
        library: *mut CUlibrary, code: *const c_void, jit_options: *mut CUjit_option,
        jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut CUlibraryOption,
        values: *mut *mut c_void, count: c_uint,
    ) => load_data;
    Normal PFN_cuLibraryLoadFromFile_v12000: cuLibraryLoadFromFile(
        library: *mut CUlibrary, path: *const c_char, jit_options: *mut CUjit_option,
        jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut CUlibraryOption,
        values: *mut *mut c_void, count: c_uint,
    ) => load_from_file;
    Normal PFN_cuLibraryUnload_v12000: cuLibraryUnload(library: CUlibrary) => unload;
    Normal PFN_cuLibraryGetKernel_v12000: cuLibraryGetKernel(
        kernel: *mut CUkernel, library: CUlibrary, name: *const c_char,
    ) => get_kernel;
    Normal PFN_cuLibraryGetKernelCount_v12040: cuLibraryGetKernelCount(
        count: *mut c_uint, library: CUlibrary,
    ) => get_kernel_count;
    Normal PFN_cuLibraryEnumerateKernels_v12040: cuLibraryEnumerateKernels(
        kernels: *mut CUkernel, count: c_uint, library: CUlibrary,
    ) => enumerate_kernels;
    Normal PFN_cuLibraryGetModule_v12000: cuLibraryGetModule(
        module: *mut CUmodule, library: CUlibrary,
    ) => get_module;
    Normal PFN_cuLibraryGetGlobal_v12000: cuLibraryGetGlobal(
        pointer: *mut CUdeviceptr, size: *mut usize, library: CUlibrary, name: *const c_char,
    ) => get_global;
    Normal PFN_cuLibraryGetManaged_v12000: cuLibraryGetManaged(
        pointer: *mut CUdeviceptr, size: *mut usize, library: CUlibrary, name: *const c_char,
    ) => get_managed;
    Normal PFN_cuKernelGetFunction_v12000: cuKernelGetFunction(
        function: *mut CUfunction, kernel: CUkernel,
    ) => kernel_get_function;
    Normal PFN_cuKernelGetLibrary_v12050: cuKernelGetLibrary(
        library: *mut CUlibrary, kernel: CUkernel,
    ) => kernel_get_library;
    Normal PFN_cuKernelGetName_v12030: cuKernelGetName(
        name: *mut *const c_char, kernel: CUkernel,
    ) => kernel_get_name;
    Normal PFN_cuKernelGetAttribute_v12000: cuKernelGetAttribute(
        value: *mut c_int, attribute: CUfunction_attribute, kernel: CUkernel, device: CUdevice,
    ) => kernel_get_attribute;
    Normal PFN_cuKernelSetAttribute_v12000: cuKernelSetAttribute(
        attribute: CUfunction_attribute, value: c_int, kernel: CUkernel, device: CUdevice,
    ) => kernel_set_attribute;
    Normal PFN_cuKernelSetCacheConfig_v12000: cuKernelSetCacheConfig(
        kernel: CUkernel, config: CUfunc_cache, device: CUdevice,
    ) => kernel_set_cache_config;
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn load_data(
    call: Call,
    library: *mut CUlibrary,
    code: *const c_void,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
    _: c_uint,
    _: *mut CUlibraryOption,
    _: *mut *mut c_void,
    _: c_uint,
) -> Status {
    load_image(call, library, image(code)?)
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn load_from_file(
    call: Call,
    library: *mut CUlibrary,
    path: *const c_char,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
    _: c_uint,
    _: *mut CUlibraryOption,
    _: *mut *mut c_void,
    _: c_uint,
) -> Status {
    load_image(call, library, image_of_file(path)?)
}

fn load_image(call: Call, library: *mut CUlibrary, image: Image) -> Status {
    if !valid(library) {
        return Err(CudaError::INVALID_VALUE);
    }
    let made = Library { image, kernels: BTreeMap::new(), modules: HashMap::new() };
    out(library, to_pointer(call.lock().modules.libraries.insert(made)))
}

fn unload(call: Call, library: CUlibrary) -> Status {
    let mut state = call.lock();
    let variables = state.modules.unload_library(number(library));
    variables.ok_or(CudaError::INVALID_HANDLE)?.iter().for_each(|variable| state.release(variable));
    Ok(())
}

fn get_kernel(
    call: Call,
    kernel: *mut CUkernel,
    library: CUlibrary,
    name: *const c_char,
) -> Status {
    let name = text(name)?;
    if !valid(kernel) {
        return Err(CudaError::INVALID_VALUE);
    }
    let handle = call.lock().modules.kernel(number(library), name)?;
    out(kernel, to_pointer(handle))
}

fn kernels(call: Call, library: CUlibrary) -> Status<Vec<CUkernel>> {
    let mut state = call.lock();
    let known = state.modules.libraries.get(number(library)).ok_or(CudaError::INVALID_HANDLE)?;
    for name in known.image.kernels().to_vec() {
        let name = CString::new(name).map_err(|_| CudaError::INVALID_IMAGE)?;
        state.modules.kernel(number(library), name)?;
    }
    let known = state.modules.libraries.get(number(library)).ok_or(CudaError::INVALID_HANDLE)?;
    Ok(known.kernels.values().map(|handle| to_pointer(*handle)).collect())
}

fn get_kernel_count(call: Call, count: *mut c_uint, library: CUlibrary) -> Status {
    out(count, c_uint::try_from(kernels(call, library)?.len()).unwrap_or(c_uint::MAX))
}

fn enumerate_kernels(call: Call, to: *mut CUkernel, count: c_uint, library: CUlibrary) -> Status {
    let kernels = kernels(call, library)?;
    let shown = kernels.len().min(count as usize);
    out_array(to, &kernels[..shown])
}

impl Call<'_> {
    /// The library's module in the current context.
    fn instance(self, library: CUlibrary) -> Status<u64> {
        let mut state = self.lock();
        let context = self.context(&state)?;
        state.modules.instance(number(library), context)
    }
}

fn get_module(call: Call, module: *mut CUmodule, library: CUlibrary) -> Status {
    if !valid(module) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(module, to_pointer(call.instance(library)?))
}

fn get_global(
    call: Call,
    pointer: *mut CUdeviceptr,
    size: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Status {
    let name = text(name)?;
    let block = call.variable(call.instance(library)?, &name)?;
    out_if_any(pointer, block.device)?;
    out_if_any(size, block.size)
}

/// "Managed memory is available across all contexts": a variable that is not managed is not
/// found.
fn get_managed(
    call: Call,
    pointer: *mut CUdeviceptr,
    size: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> Status {
    let name = text(name)?;
    let block = call.variable(call.instance(library)?, &name)?;
    if !matches!(block.kind, Kind::Managed { .. }) {
        return Err(CudaError::NOT_FOUND);
    }
    out_if_any(pointer, block.device)?;
    out_if_any(size, block.size)
}

/// A kernel is the function of every context.
fn kernel_get_function(call: Call, function: *mut CUfunction, kernel: CUkernel) -> Status {
    let state = call.lock();
    call.context(&state)?;
    if !state.modules.functions.contains(number(kernel)) {
        return Err(CudaError::INVALID_HANDLE);
    }
    out(function, kernel.cast())
}

fn kernel_get_library(call: Call, library: *mut CUlibrary, kernel: CUkernel) -> Status {
    let state = call.lock();
    let known = state.modules.functions.get(number(kernel)).ok_or(CudaError::INVALID_HANDLE)?;
    if !state.modules.libraries.contains(known.owner) {
        return Err(CudaError::INVALID_HANDLE);
    }
    out(library, to_pointer(known.owner))
}

fn kernel_get_name(call: Call, name: *mut *const c_char, kernel: CUkernel) -> Status {
    super::function::get_name(call, name, kernel.cast())
}

fn kernel_get_attribute(
    call: Call,
    value: *mut c_int,
    attribute: CUfunction_attribute,
    kernel: CUkernel,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    super::function::get_attribute(call, value, attribute, kernel.cast())
}

fn kernel_set_attribute(
    call: Call,
    attribute: CUfunction_attribute,
    value: c_int,
    kernel: CUkernel,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    super::function::set_attribute(call, kernel.cast(), attribute, value)
}

fn kernel_set_cache_config(
    call: Call,
    kernel: CUkernel,
    config: CUfunc_cache,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    super::function::set_cache_config(call, kernel.cast(), config)
}
