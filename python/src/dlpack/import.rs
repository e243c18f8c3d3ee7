//! Tensors of other libraries.

#![expect(unsafe_code, reason = "structures of C, which are given back to their producer")]

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use wharf::Stream;

use super::abi::{
    Managed, ManagedVersioned, NAME, NAME_VERSIONED, Tensor, USED, USED_VERSIONED, VERSION,
};
use super::{CUDA, CUDA_HOST, CUDA_MANAGED};
use crate::array::DeviceArray;
use crate::dtype;
use crate::error::invalid;
use crate::held::Held;
use crate::shape::Shape;
use crate::stream;

/// Takes a tensor of another library, in memory that a device reaches, without a copy.
///
/// The result keeps the tensor. `stream` waits for the tensor's earlier work; without one the
/// legacy default stream does. For memory of the host alone, `numpy.from_dlpack` is the way.
#[pyfunction]
#[pyo3(signature = (tensor, *, stream = None))]
pub(crate) fn from_dlpack(
    tensor: &Bound<'_, PyAny>,
    stream: Option<&Bound<'_, PyAny>>,
) -> PyResult<DeviceArray> {
    let handle = stream.map(stream::raw_of).transpose()?.map(|raw| raw.as_stream().addr());
    match take(tensor, handle)? {
        Some(array) => Ok(array),
        None => {
            Err(PyTypeError::new_err("an object without DLPack's methods, or of the host alone"))
        }
    }
}

/// The array of an object that has a tensor on a device; `None` if it has none.
pub(crate) fn device_array(
    object: &Bound<'_, PyAny>,
    stream: &Arc<Held<Stream>>,
) -> PyResult<Option<DeviceArray>> {
    take(object, Some(stream.as_raw().addr()))
}

fn take(object: &Bound<'_, PyAny>, stream: Option<usize>) -> PyResult<Option<DeviceArray>> {
    let py = object.py();
    let Some(device) = object.getattr_opt(intern!(py, "__dlpack_device__"))? else {
        return Ok(None);
    };
    // An enumeration in some libraries, which is a number.
    let (kind, _ordinal): (i32, i32) = device.call0()?.extract()?;
    if !matches!(kind, CUDA | CUDA_HOST | CUDA_MANAGED) {
        return Ok(None);
    }
    let arguments = PyDict::new(py);
    // A producer of host memory takes no stream.
    if kind != CUDA_HOST {
        arguments.set_item("stream", stream.map(|handle| handle.max(1)))?;
    }
    let plain = arguments.copy()?;
    arguments.set_item("max_version", (VERSION.major, VERSION.minor))?;
    let call = |arguments| object.call_method(intern!(py, "__dlpack__"), (), Some(arguments));
    // Producers from before version 1.0 do not know the argument.
    let capsule = match call(&arguments) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => call(&plain)?,
        made => made?,
    };
    let imported = Imported::of(capsule.cast::<PyCapsule>()?)?;
    let (shape, address) = imported.describe()?;
    Ok(Some(DeviceArray::new(address, shape, Box::new(imported))))
}

/// A tensor that was taken out of its capsule; given back when dropped.
#[derive(Debug)]
enum Imported {
    Plain(NonNull<Managed>),
    Versioned(NonNull<ManagedVersioned>),
}

// SAFETY: the tensor is only read, and may be deleted on any thread (DLPack, Python specification).
unsafe impl Send for Imported {}
// SAFETY: as above.
unsafe impl Sync for Imported {}

impl Imported {
    fn of(capsule: &Bound<'_, PyCapsule>) -> PyResult<Self> {
        if let Ok(pointer) = pointer_of(capsule, NAME_VERSIONED) {
            rename(capsule, USED_VERSIONED)?;
            return Ok(Self::Versioned(pointer.cast()));
        }
        // SAFETY: a capsule, and a C string.
        if unsafe { ffi::PyCapsule_IsValid(capsule.as_ptr(), NAME.as_ptr()) } == 0 {
            let text = "the capsule has no tensor, or another consumer has taken it";
            return Err(PyBufferError::new_err(text));
        }
        let pointer = pointer_of(capsule, NAME)?;
        rename(capsule, USED)?;
        Ok(Self::Plain(pointer.cast()))
    }

    /// The shape and the address of a contiguous tensor.
    fn describe(&self) -> PyResult<(Shape, u64)> {
        if let Self::Versioned(managed) = self {
            // SAFETY: a versioned tensor begins with its version, whatever that is.
            let version = unsafe { managed.as_ref() }.version;
            if version.major != VERSION.major {
                let text = format!("a tensor of DLPack {}.{}", version.major, version.minor);
                return Err(PyBufferError::new_err(format!("{text} is of another layout")));
            }
        }
        let tensor = self.tensor();
        let (code, bits) = (tensor.dtype.code, tensor.dtype.bits);
        let dtype = dtype::of_dlpack(code, bits).filter(|_| tensor.dtype.lanes == 1);
        let dtype = dtype.ok_or_else(|| {
            PyTypeError::new_err(format!("DLPack type {code} of {bits} bits is none of wharf's"))
        })?;
        let ndim = usize::try_from(tensor.ndim).map_err(|_| invalid("a negative ndim"))?;
        // SAFETY: a tensor's shape has `ndim` numbers, where that is not 0.
        let dims = unsafe { numbers(tensor.shape, ndim) };
        let dims: Result<Vec<_>, _> = dims.iter().map(|dim| usize::try_from(*dim)).collect();
        let shape = Shape::new(dims.map_err(|_| invalid("a negative dimension"))?, dtype)?;
        // SAFETY: as above, or null for C order.
        let strides = unsafe { numbers(tensor.strides, ndim) };
        if !tensor.strides.is_null() && !shape.is_contiguous(strides) {
            return Err(invalid("the tensor is not C-contiguous: make a contiguous copy of it"));
        }
        let address = (tensor.data.expose_provenance() as u64).checked_add(tensor.byte_offset);
        Ok((shape, address.ok_or_else(|| invalid("a byte_offset beyond the address space"))?))
    }

    fn tensor(&self) -> &Tensor {
        match self {
            // SAFETY: taken from a valid capsule, and not deleted before this is dropped.
            Self::Plain(managed) => unsafe { &managed.as_ref().tensor },
            // SAFETY: as above; the version was looked at.
            Self::Versioned(managed) => unsafe { &managed.as_ref().tensor },
        }
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        match self {
            Self::Plain(managed) => {
                // SAFETY: as in `tensor`.
                if let Some(deleter) = unsafe { managed.as_ref() }.deleter {
                    // SAFETY: the producer's function, called once with its tensor.
                    unsafe { deleter(managed.as_ptr()) };
                }
            }
            Self::Versioned(managed) => {
                // SAFETY: as in `tensor`; the deleter is where it was in every version.
                if let Some(deleter) = unsafe { managed.as_ref() }.deleter {
                    // SAFETY: as above.
                    unsafe { deleter(managed.as_ptr()) };
                }
            }
        }
    }
}

/// A capsule's pointer, if it has the name.
fn pointer_of(capsule: &Bound<'_, PyCapsule>, name: &CStr) -> PyResult<NonNull<c_void>> {
    // SAFETY: a capsule, and a C string. Null with an exception where the name is another.
    let pointer = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), name.as_ptr()) };
    NonNull::new(pointer).ok_or_else(|| PyErr::fetch(capsule.py()))
}

/// Marks a capsule's tensor as taken.
fn rename(capsule: &Bound<'_, PyCapsule>, name: &'static CStr) -> PyResult<()> {
    // SAFETY: a capsule, and a C string that lives as long as the program.
    match unsafe { ffi::PyCapsule_SetName(capsule.as_ptr(), name.as_ptr()) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(capsule.py())),
    }
}

/// The numbers at an address; none where that is null.
///
/// # Safety
///
/// `at` is null, or valid for reads of `len` numbers as long as the result.
unsafe fn numbers<'a>(at: *const i64, len: usize) -> &'a [i64] {
    if at.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(at, len) }
}
