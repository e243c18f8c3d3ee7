//! Buffers for other libraries.

#![expect(unsafe_code, reason = "structures of C, which their consumer gives back")]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use wharf::Stream;
use wharf::memory::MemoryKind;
use wharf::pool::Buffer as Inner;

use super::abi::{
    DataType, Device, Managed, ManagedVersioned, NAME, NAME_VERSIONED, Tensor, VERSION,
};
use crate::buffer::{Buffer, HostView};
use crate::dtype;
use crate::error::{OrRaise, invalid};
use crate::held::Held;
use crate::pool::Memory;
use crate::shape::Shape;
use crate::stream;

/// A capsule with a buffer's memory, for work on `consumer`.
///
/// The memory stays until the consumer deletes the tensor, and is then free when the device is past
/// what the consumer's stream has been given. Of memory that the host reaches it is a view, as one
/// of the buffer protocol: it waits for the device.
pub(crate) fn buffer<'py>(
    slf: &Bound<'py, Buffer>,
    consumer: Option<isize>,
    max_version: Option<(u32, u32)>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, this) = (slf.py(), slf.get());
    let is_device = this.memory().pool.kind() == MemoryKind::Device;
    let handle = is_device.then(|| this.for_device()).transpose()?;
    let consumer = consumer_stream(slf, consumer, is_device)?;
    if let Some(consumer) = &consumer {
        let last = this.last_stream();
        this.machine().run(py, || stream::follow(consumer, &last)).or_raise()?;
        this.used_by(consumer);
    }
    let view = if is_device { None } else { Some(HostView::open(slf)?) };
    let address = match &view {
        Some(view) => view.address(),
        None => usize::try_from(this.address()?).map_err(|_| invalid("an address of 64 bits"))?,
    };
    let (kind, ordinal) = super::device(this.memory().pool.kind(), this.memory().device());
    let device = Device { kind, ordinal };
    let memory = Arc::clone(this.memory());
    let kept = Kept { handle, consumer, _view: view, memory };
    let exported = Exported::new(this.shape(), address, device, kept);
    exported.into_capsule(max_version.is_some_and(|(major, _)| major >= VERSION.major), py)
}

/// The stream that a consumer names, in the numbers of `__dlpack__` of Python's array API.
fn consumer_stream(
    slf: &Bound<'_, Buffer>,
    consumer: Option<isize>,
    is_device: bool,
) -> PyResult<Option<Arc<Held<Stream>>>> {
    let handle = match consumer {
        // The consumer orders for itself.
        Some(-1) => return Ok(None),
        Some(0) => return Err(invalid("stream=0 is ambiguous: 1 is the legacy default stream")),
        Some(handle) => handle.cast_unsigned(),
        None if is_device => LEGACY,
        None => return Ok(None),
    };
    let number = handle.into_pyobject(slf.py())?.into_any();
    stream::of(&number, slf.get().memory().device()).map(Some)
}

/// What an exported tensor keeps.
struct Kept {
    handle: Option<Inner<u8>>,
    consumer: Option<Arc<Held<Stream>>>,
    _view: Option<HostView>,
    memory: Arc<Memory>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _bound = self.memory.pool.machine().bind();
        if let (Some(handle), Some(consumer)) = (&self.handle, &self.consumer) {
            // The consumer has submitted its work by now. An error leaks the memory, and is
            // counted.
            _ = handle.record_use(consumer);
        }
        self.handle = None;
    }
}

/// A tensor in both forms, with what it points to.
struct Exported {
    managed: Managed,
    versioned: ManagedVersioned,
    _shape: Box<[i64]>,
    _strides: Box<[i64]>,
    _kept: Kept,
}

impl Exported {
    fn new(shape: &Shape, address: usize, device: Device, kept: Kept) -> Box<Self> {
        let signed = |dim: &usize| i64::try_from(*dim).unwrap_or(i64::MAX);
        let mut dims: Box<[i64]> = shape.dims.iter().map(signed).collect();
        let mut strides: Box<[i64]> = shape.strides().into();
        let bits = u8::try_from(shape.dtype.size() * 8).unwrap_or(0);
        let (to_dims, to_strides) = (dims.as_mut_ptr(), strides.as_mut_ptr());
        let tensor = || Tensor {
            data: ptr::with_exposed_provenance_mut(address),
            device,
            ndim: i32::try_from(shape.dims.len()).unwrap_or(0),
            dtype: DataType { code: dtype::dlpack_code(shape.dtype), bits, lanes: 1 },
            shape: to_dims,
            strides: to_strides,
            byte_offset: 0,
        };
        let context = ptr::null_mut();
        let managed = Managed { tensor: tensor(), context, deleter: Some(delete) };
        let versioned = ManagedVersioned {
            version: VERSION,
            context,
            deleter: Some(delete_versioned),
            flags: 0,
            tensor: tensor(),
        };
        Box::new(Self { managed, versioned, _shape: dims, _strides: strides, _kept: kept })
    }

    fn into_capsule(
        self: Box<Self>,
        versioned: bool,
        py: Python<'_>,
    ) -> PyResult<Bound<'_, PyAny>> {
        let this = Box::into_raw(self);
        // SAFETY: made of a box above, which the deleters alone give up.
        let own = unsafe { &mut *this };
        own.managed.context = this.cast();
        own.versioned.context = this.cast();
        let (pointer, name): (NonNull<c_void>, _) = if versioned {
            (NonNull::from(&mut own.versioned).cast(), NAME_VERSIONED)
        } else {
            (NonNull::from(&mut own.managed).cast(), NAME)
        };
        // SAFETY: `end` takes the pointer of a capsule that still has one of the two names.
        let made =
            unsafe { PyCapsule::new_with_pointer_and_destructor(py, pointer, name, Some(end)) };
        made.map(Bound::into_any).inspect_err(|_| {
            // SAFETY: no capsule has it.
            drop(unsafe { Box::from_raw(this) });
        })
    }
}

unsafe extern "C" fn delete(managed: *mut Managed) {
    if managed.is_null() {
        return;
    }
    // SAFETY: the consumer gives back what it was given, once: its context is the box.
    let context = unsafe { (*managed).context };
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(context.cast::<Exported>()) });
}

unsafe extern "C" fn delete_versioned(managed: *mut ManagedVersioned) {
    if managed.is_null() {
        return;
    }
    // SAFETY: as in `delete`.
    let context = unsafe { (*managed).context };
    // SAFETY: as in `delete`.
    drop(unsafe { Box::from_raw(context.cast::<Exported>()) });
}

/// The end of a capsule, which deletes a tensor that no consumer has taken.
unsafe extern "C" fn end(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes the capsule. A consumer has renamed one that it has used.
    if unsafe { ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) } == 1 {
        // SAFETY: it is valid with this name.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()) };
        // SAFETY: made by `into_capsule`, and not taken.
        unsafe { delete(managed.cast()) };
    }
    // SAFETY: as above.
    if unsafe { ffi::PyCapsule_IsValid(capsule, NAME_VERSIONED.as_ptr()) } == 1 {
        // SAFETY: as above.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, NAME_VERSIONED.as_ptr()) };
        // SAFETY: as above.
        unsafe { delete_versioned(managed.cast()) };
    }
}

/// The legacy default stream.
const LEGACY: usize = 1;
