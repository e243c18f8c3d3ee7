#![expect(unsafe_code, reason = "exports C functions")]
//! The linker: an image made of images, all of them opaque.

use core::ffi::{c_char, c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::out_if_any;
use super::module::{image, image_of_file};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::module::Link;

#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuLinkCreate_v5050 = PFN_cuLinkCreate_v6050;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuLinkAddData_v5050 = PFN_cuLinkAddData_v6050;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuLinkAddFile_v5050 = PFN_cuLinkAddFile_v6050;

exports! {
    Normal PFN_cuLinkCreate_v5050: cuLinkCreate(
        count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void, link: *mut CUlinkState,
    ) => create;
    Normal PFN_cuLinkAddData_v5050: cuLinkAddData(
        link: CUlinkState, kind: CUjitInputType, data: *mut c_void, size: usize,
        name: *const c_char, count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void,
    ) => add_data;
    Normal PFN_cuLinkAddFile_v5050: cuLinkAddFile(
        link: CUlinkState, kind: CUjitInputType, path: *const c_char, count: c_uint,
        options: *mut CUjit_option, values: *mut *mut c_void,
    ) => add_file;
    Normal PFN_cuLinkCreate_v6050: cuLinkCreate_v2(
        count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void, link: *mut CUlinkState,
    ) => create;
    Normal PFN_cuLinkAddData_v6050: cuLinkAddData_v2(
        link: CUlinkState, kind: CUjitInputType, data: *mut c_void, size: usize,
        name: *const c_char, count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void,
    ) => add_data;
    Normal PFN_cuLinkAddFile_v6050: cuLinkAddFile_v2(
        link: CUlinkState, kind: CUjitInputType, path: *const c_char, count: c_uint,
        options: *mut CUjit_option, values: *mut *mut c_void,
    ) => add_file;
    Normal PFN_cuLinkComplete_v5050: cuLinkComplete(
        link: CUlinkState, image: *mut *mut c_void, size: *mut usize,
    ) => complete;
    Normal PFN_cuLinkDestroy_v5050: cuLinkDestroy(link: CUlinkState) => destroy;
}

fn create(
    call: Call,
    _: c_uint,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
    link: *mut CUlinkState,
) -> Status {
    if !valid(link) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    call.context(&state)?;
    out(link, to_pointer(state.modules.links.insert(Link::default())))
}

fn check_kind(kind: CUjitInputType) -> Status {
    if kind.0 < CUjitInputType::CU_JIT_NUM_INPUT_TYPES.0 {
        Ok(())
    } else {
        Err(CudaError::INVALID_VALUE)
    }
}

impl Call<'_> {
    /// Adds an input to a link that is not complete.
    fn add_input(self, link: CUlinkState) -> Status {
        let mut state = self.lock();
        let known = state.modules.links.get_mut(number(link)).ok_or(CudaError::INVALID_HANDLE)?;
        if known.image.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        known.inputs += 1;
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "the arguments of the driver API")]
fn add_data(
    call: Call,
    link: CUlinkState,
    kind: CUjitInputType,
    data: *mut c_void,
    size: usize,
    _: *const c_char,
    _: c_uint,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
) -> Status {
    check_kind(kind)?;
    if size == 0 || !valid(data.cast::<u8>()) {
        return Err(CudaError::INVALID_VALUE);
    }
    if !call.lock().modules.links.contains(number(link)) {
        return Err(CudaError::INVALID_HANDLE);
    }
    // The image is checked when it is added, so the error names the right call.
    image(data)?;
    call.add_input(link)
}

fn add_file(
    call: Call,
    link: CUlinkState,
    kind: CUjitInputType,
    path: *const c_char,
    _: c_uint,
    _: *mut CUjit_option,
    _: *mut *mut c_void,
) -> Status {
    check_kind(kind)?;
    image_of_file(path)?;
    call.add_input(link)
}

/// "Pointer to output data is owned by state and freed when state is destroyed."
fn complete(call: Call, link: CUlinkState, image: *mut *mut c_void, size: *mut usize) -> Status {
    if !valid(image) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let known = state.modules.links.get_mut(number(link)).ok_or(CudaError::INVALID_HANDLE)?;
    if known.inputs == 0 {
        return Err(CudaError::INVALID_IMAGE);
    }
    let bytes = known.image.get_or_insert_with(Link::output);
    out(image, bytes.as_ptr().cast_mut().cast())?;
    out_if_any(size, bytes.len())
}

fn destroy(call: Call, link: CUlinkState) -> Status {
    call.lock().modules.links.remove(number(link)).map(|_| ()).ok_or(CudaError::INVALID_HANDLE)
}
