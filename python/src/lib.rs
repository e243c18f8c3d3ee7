//! wharf for Python.
//!
//! ```text
//!   Python            wharf/__init__.py, numba.py, torch.py, cuda_core.py, errors.py
//!   ------------------------------------------------------------------------------
//!   classes           Device, Stream, Pool, Buffer, InputBuffers, Step, Staged, OutputBuffers, ...
//!   protocols         buffer (`view`), `__cuda_array_interface__` (`interface`), DLPack (`dlpack`)
//!   lifetimes         `held`: the end of a value; `owned`: steps with their set
//!   wharf             the library
//! ```
//!
//! # Rules
//!
//! * A call that may wait for the device or for a lock of the driver releases the GIL. No lock of
//!   this crate is held while the GIL is taken again, and none is taken twice by a thread.
//! * Classes are frozen: what changes is behind a mutex, which is held for moments.
//! * Every argument is checked: no call panics. Errors are the classes of `wharf/errors.py`.

mod array;
mod buffer;
mod by_address;
mod copy;
mod device;
mod dlpack;
mod dtype;
mod error;
mod export;
mod held;
mod inputs;
mod interface;
mod outputs;
mod owned;
mod pool;
mod reader;
mod results;
mod scalar;
mod shape;
mod simulator;
mod slot;
mod staged;
mod step;
mod stream;
mod torch;
mod view;

use pyo3::prelude::*;

/// The extension module behind the package `wharf`.
#[pymodule]
fn _wharf(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<device::Device>()?;
    module.add_class::<device::Captures>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<pool::Pool>()?;
    module.add_class::<buffer::Buffer>()?;
    module.add_class::<array::DeviceArray>()?;
    module.add_class::<slot::Length>()?;
    module.add("TOKENS", slot::Length::TOKENS)?;
    module.add("REQUESTS", slot::Length::REQUESTS)?;
    module.add_class::<slot::Slot>()?;
    module.add_class::<inputs::InputBuffers>()?;
    module.add_class::<step::Step>()?;
    module.add_class::<view::SlotView>()?;
    module.add_class::<staged::Staged>()?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<outputs::OutputBuffers>()?;
    module.add_class::<results::Results>()?;
    module.add_class::<results::ResultView>()?;
    module.add_class::<simulator::Simulator>()?;
    module.add_class::<simulator::Violation>()?;
    module.add_class::<by_address::Addresses>()?;
    module.add_function(wrap_pyfunction!(dlpack::from_dlpack, module)?)?;
    module.add_function(wrap_pyfunction!(torch::_torch_serve, module)?)?;
    module.add_function(wrap_pyfunction!(torch::_torch_stop, module)?)?;
    module.add_function(wrap_pyfunction!(torch::_torch_last_error, module)?)
}
