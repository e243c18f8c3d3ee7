//! Allocation by address, for libraries that hold addresses only.

#![expect(unsafe_code, reason = "hands out addresses")]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use wharf::Stream;
use wharf::pool::{AllocError, Buffer as Inner};

use crate::device::lock;
use crate::error::{OrRaise, Raise, invalid};
use crate::pool::Memory;
use crate::stream;

/// The buffers of a pool that are known by their addresses.
pub(crate) struct ByAddress {
    held: Mutex<HashMap<u64, Inner<u8>>>,
    memory: Arc<Memory>,
}

/// Why an address was not freed.
#[derive(Debug)]
pub(crate) enum FreeError {
    /// It is not held: never allocated here, or freed before.
    Unknown(u64),
    /// The stream's use could not be noted; the memory is leaked.
    Use(wharf::Error),
}

impl ByAddress {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { held: Mutex::default(), memory }
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Allocates `size` bytes, at least one.
    pub(crate) fn allocate(&self, size: usize, stream: &Stream) -> Result<u64, AllocError> {
        let buffer = self.memory.pool.alloc::<u8>(size.max(1), stream)?;
        // SAFETY: its holder frees the address on a stream that is past its uses, which is noted.
        let address = unsafe { buffer.as_device_ptr() }?;
        lock(&self.held).insert(address, buffer);
        Ok(address)
    }

    /// Frees an address when `stream` is past what it was given.
    pub(crate) fn free(&self, address: u64, stream: &Stream) -> Result<(), FreeError> {
        let buffer = lock(&self.held).remove(&address).ok_or(FreeError::Unknown(address))?;
        buffer.record_use(stream).map_err(FreeError::Use)
    }

    fn len(&self) -> usize {
        lock(&self.held).len()
    }
}

impl Drop for ByAddress {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *lock(&self.held));
        let _bound = self.memory.pool.machine().bind();
        drop(held);
    }
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(address) => {
                write!(f, "the address {address:#x} is not allocated here: freed twice?")
            }
            Self::Use(error) => error.fmt(f),
        }
    }
}

/// Allocation from a pool by address; `Pool.addresses` makes one.
///
/// For libraries whose interface is a pointer, a size and a stream. An address that is not freed
/// when this ends is freed then.
#[pyclass(frozen, module = "wharf")]
pub(crate) struct Addresses(ByAddress);

impl Addresses {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self(ByAddress::new(memory))
    }
}

#[pymethods]
impl Addresses {
    /// Allocates `size` bytes for use on `stream` first, and returns the device's address.
    #[pyo3(signature = (size, *, stream))]
    fn allocate(&self, size: usize, stream: &Bound<'_, PyAny>) -> PyResult<u64> {
        let memory = self.0.memory();
        let on = stream::of(stream, memory.device())?;
        memory.pool.machine().run(stream.py(), || self.0.allocate(size, &on)).or_raise()
    }

    /// Frees an address. `stream` has been given all work that uses it, or waits for that.
    #[pyo3(signature = (address, *, stream))]
    fn deallocate(&self, address: u64, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let memory = self.0.memory();
        let on = stream::of(stream, memory.device())?;
        let freed = memory.pool.machine().run(stream.py(), || self.0.free(address, &on));
        freed.map_err(|error| match error {
            FreeError::Unknown(_) => invalid(error.to_string()),
            FreeError::Use(error) => error.raise(),
        })
    }

    /// The number of addresses that are allocated.
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("Addresses({} allocated)", self.0.len())
    }
}
