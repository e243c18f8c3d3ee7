//! DLPack: tensors from one library to another without a copy.
//!
//! `export` gives a buffer to another library, `import` takes a tensor of one. The structures are
//! those of `dlpack.h`, version 1.0, and of the versions before it.
//!
//! <https://dmlc.github.io/dlpack/latest/python_spec.html>

mod abi;
mod export;
mod import;

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use wharf::memory::MemoryKind;

pub(crate) use export::buffer;
pub(crate) use import::{device_array, from_dlpack};

use crate::device::Shared;

/// Device types of `dlpack.h`.
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;

/// The device of memory, as `__dlpack_device__` returns it.
pub(crate) fn device(kind: MemoryKind, device: &Shared) -> (i32, i32) {
    let ordinal = device.device().ordinal();
    match kind {
        MemoryKind::Pinned => (CUDA_HOST, 0),
        MemoryKind::Managed => (CUDA_MANAGED, ordinal),
        _ => (CUDA, ordinal),
    }
}

/// Refuses an export that would need a copy.
pub(crate) fn check(
    wanted: Option<(i32, i32)>,
    own: (i32, i32),
    copy: Option<bool>,
) -> PyResult<()> {
    if wanted.is_some_and(|wanted| wanted != own) {
        let text = format!("the memory is on DLPack device {own:?}: copy it with `copy_from`");
        return Err(PyBufferError::new_err(text));
    }
    if copy == Some(true) {
        return Err(PyBufferError::new_err("no copy is made by an export: use `copy_from`"));
    }
    Ok(())
}
