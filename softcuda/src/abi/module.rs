#![expect(unsafe_code, reason = "exports C functions")]
//! Modules: code in a context, and the functions and variables in it.

use core::ffi::{CStr, c_char, c_uint, c_void};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{out_array, out_if_any};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::memory::{Block, Kind};
use crate::module::Image;
use crate::module::image::Variable;

exports! {
    Normal PFN_cuModuleLoad_v2000: cuModuleLoad(module: *mut CUmodule, path: *const c_char) => load;
    Normal PFN_cuModuleLoadData_v2000: cuModuleLoadData(
        module: *mut CUmodule, image: *const c_void,
    ) => load_data;
    Normal PFN_cuModuleLoadDataEx_v2010: cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut CUjit_option,
        values: *mut *mut c_void,
    ) => load_data_ex;
    Normal PFN_cuModuleLoadFatBinary_v2000: cuModuleLoadFatBinary(
        module: *mut CUmodule, image: *const c_void,
    ) => load_data;
    Normal PFN_cuModuleUnload_v2000: cuModuleUnload(module: CUmodule) => unload;
    Normal PFN_cuModuleGetFunction_v2000: cuModuleGetFunction(
        function: *mut CUfunction, module: CUmodule, name: *const c_char,
    ) => get_function;
    Normal PFN_cuModuleGetGlobal_v3020: cuModuleGetGlobal_v2(
        pointer: *mut CUdeviceptr, size: *mut usize, module: CUmodule, name: *const c_char,
    ) => get_global;
    Normal PFN_cuModuleGetFunctionCount_v12040: cuModuleGetFunctionCount(
        count: *mut c_uint, module: CUmodule,
    ) => get_function_count;
    Normal PFN_cuModuleEnumerateFunctions_v12040: cuModuleEnumerateFunctions(
        functions: *mut CUfunction, count: c_uint, module: CUmodule,
    ) => enumerate_functions;
    Early PFN_cuModuleGetLoadingMode_v11070: cuModuleGetLoadingMode(
        mode: *mut CUmoduleLoadingMode,
    ) => get_loading_mode;
}

/// Reads a name or a path.
pub(super) fn text(pointer: *const c_char) -> Status<CString> {
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space; that it is a C string is the program's promise.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_owned())
}

/// Reads an image from memory.
pub(super) fn image(pointer: *const c_void) -> Status<Image> {
    if valid(pointer) { Ok(Image::at(pointer)) } else { Err(CudaError::INVALID_VALUE) }
}

/// Reads an image from a file.
pub(super) fn image_of_file(path: *const c_char) -> Status<Image> {
    let path = text(path)?;
    let bytes = fs::read(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())));
    let bytes = bytes.map_err(|_| CudaError::FILE_NOT_FOUND)?;
    if bytes.is_empty() { Err(CudaError::INVALID_IMAGE) } else { Ok(Image::of_bytes(&bytes)) }
}

fn load(call: Call, module: *mut CUmodule, path: *const c_char) -> Status {
    call.context(&call.lock())?;
    load_image(call, module, image_of_file(path)?)
}

fn load_data(call: Call, module: *mut CUmodule, data: *const c_void) -> Status {
    load_image(call, module, image(data)?)
}

/// Options steer the compiler, which there is none of.
fn load_data_ex(
    call: Call,
    module: *mut CUmodule,
    data: *const c_void,
    _: c_uint,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
) -> Status {
    load_data(call, module, data)
}

fn load_image(call: Call, module: *mut CUmodule, image: Image) -> Status {
    if !valid(module) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let context = call.context(&state)?;
    let handle = state.modules.load(context, image, None);
    out(module, to_pointer(handle))
}

fn unload(call: Call, module: CUmodule) -> Status {
    let mut state = call.lock();
    call.context(&state)?;
    let known = state.modules.modules.get(number(module)).ok_or(CudaError::INVALID_HANDLE)?;
    if known.library.is_some() {
        // "CUDA_ERROR_NOT_PERMITTED": a library's module goes with the library.
        return Err(CudaError::NOT_PERMITTED);
    }
    let variables = state.modules.unload(number(module)).ok_or(CudaError::INVALID_HANDLE)?;
    variables.iter().for_each(|variable| state.release(variable));
    Ok(())
}

fn get_function(
    call: Call,
    function: *mut CUfunction,
    module: CUmodule,
    name: *const c_char,
) -> Status {
    let name = text(name)?;
    if !valid(function) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    call.context(&state)?;
    out(function, to_pointer(state.modules.function(number(module), name)?))
}

fn get_global(
    call: Call,
    pointer: *mut CUdeviceptr,
    size: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> Status {
    let name = text(name)?;
    call.context(&call.lock())?;
    let block = call.variable(number(module), &name)?;
    out_if_any(pointer, block.device)?;
    out_if_any(size, block.size)
}

impl Call<'_> {
    /// A variable's memory in a module, which it gets when it is first asked for.
    pub(super) fn variable(self, module: u64, name: &CStr) -> Status<Arc<Block>> {
        let state = self.lock();
        let known = state.modules.modules.get(module).ok_or(CudaError::INVALID_HANDLE)?;
        if let Some(block) = known.variables.get(name) {
            return Ok(Arc::clone(block));
        }
        let text = name.to_str().ok().filter(|text| !text.is_empty());
        let variable =
            text.and_then(|text| known.image.variable(text)).ok_or(CudaError::NOT_FOUND)?;
        drop(state);
        let block = self.new_variable(&variable)?;
        let mut state = self.lock();
        let Some(known) = state.modules.modules.get_mut(module) else {
            state.release(&block);
            return Err(CudaError::INVALID_HANDLE);
        };
        // Another thread may have asked in the meantime.
        let first = Arc::clone(
            known.variables.entry(name.to_owned()).or_insert_with(|| Arc::clone(&block)),
        );
        if first.id != block.id {
            state.release(&block);
        }
        Ok(first)
    }

    fn new_variable(self, variable: &Variable) -> Status<Arc<Block>> {
        let kind = if variable.is_managed { Kind::Managed { flags: 1 } } else { Kind::Global };
        let block = self.allocate(kind, variable.size)?;
        crate::memory::transfer::fill(&block, 0);
        crate::memory::transfer::write_begin(&block, &variable.initial);
        Ok(block)
    }
}

/// What the image says there is; an opaque one has what was asked for.
fn get_function_count(call: Call, count: *mut c_uint, module: CUmodule) -> Status {
    out(count, c_uint::try_from(functions(call, module)?.len()).unwrap_or(c_uint::MAX))
}

fn enumerate_functions(call: Call, to: *mut CUfunction, count: c_uint, module: CUmodule) -> Status {
    let functions = functions(call, module)?;
    let shown = functions.len().min(count as usize);
    out_array(to, &functions[..shown])
}

fn functions(call: Call, module: CUmodule) -> Status<Vec<CUfunction>> {
    let mut state = call.lock();
    let known = state.modules.modules.get(number(module)).ok_or(CudaError::INVALID_HANDLE)?;
    for name in known.image.kernels().to_vec() {
        let name = CString::new(name).map_err(|_| CudaError::INVALID_IMAGE)?;
        state.modules.function(number(module), name)?;
    }
    let known = state.modules.modules.get(number(module)).ok_or(CudaError::INVALID_HANDLE)?;
    Ok(known.functions.values().map(|handle| to_pointer(*handle)).collect())
}

fn get_loading_mode(_: Call, mode: *mut CUmoduleLoadingMode) -> Status {
    out(mode, CUmoduleLoadingMode::CU_MODULE_LAZY_LOADING)
}
