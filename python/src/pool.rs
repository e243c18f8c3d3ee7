//! Pools.

use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use wharf::memory::{
    DeviceMemoryResource, ManagedMemoryResource, MemoryKind, PinnedMemoryResource, PinnedOptions,
};
use wharf::pool::{Pool as Inner, PoolBuilder};

use crate::buffer::Buffer;
use crate::by_address::Addresses;
use crate::device::{Device, Shared, seconds};
use crate::dtype;
use crate::error::{OrRaise, Raise, class, invalid};
use crate::held::Held;
use crate::shape::Shape;
use crate::stream;

/// Memory that is reused in the order of streams, and never while the device uses it.
///
/// `kind` is `"device"`, `"pinned"` (page-locked host memory) or `"managed"`. The pool takes at
/// most `max_bytes` from the driver, in granules of 2 MiB, as it needs them. `wait` is how many
/// seconds an allocation at the limit may wait for the device. Allocation takes no lock and, once
/// the pool has grown, makes no driver call.
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct Pool(Arc<Memory>);

/// What a pool and its buffers share.
pub(crate) struct Memory {
    pub(crate) pool: Held<Inner>,
    pub(crate) device: Device,
}

impl Memory {
    pub(crate) fn device(&self) -> &Arc<Shared> {
        self.device.shared()
    }
}

impl Pool {
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.0
    }
}

#[pymethods]
impl Pool {
    #[new]
    #[pyo3(signature = (device, max_bytes, kind = "device", *, name = "", wait = 0.002))]
    fn new(
        py: Python<'_>,
        device: &Device,
        max_bytes: usize,
        kind: &str,
        name: &str,
        wait: f64,
    ) -> PyResult<Self> {
        if max_bytes > MOST_BYTES {
            let text = format!("max_bytes={max_bytes} is more than a pool has: {MOST_BYTES}");
            return Err(class::ConfigurationError::new_err(text));
        }
        let builder = Inner::builder().name(name).max_bytes(max_bytes).wait(seconds(wait)?);
        let make: Make = match kind {
            "device" => device_pool,
            "pinned" => pinned_pool,
            "managed" => managed_pool,
            _ => {
                let text = format!("kind={kind:?} is not \"device\", \"pinned\" or \"managed\"");
                return Err(invalid(text));
            }
        };
        let machine = device.shared().machine();
        let pool = machine.run(py, || make(builder, device.shared(), max_bytes))?;
        Ok(Self(Arc::new(Memory { pool: Held::new(pool, machine), device: device.clone() })))
    }

    /// Allocates an array for use on `stream` first, aligned to at least 256 bytes.
    ///
    /// `shape` is a number of elements or a sequence of dimensions. The contents are undefined.
    /// Raises `OutOfMemoryError` where the limit is reached and nothing can be reclaimed.
    #[pyo3(signature = (shape, dtype = None, *, stream))]
    fn alloc(
        &self,
        shape: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        stream: &Bound<'_, PyAny>,
    ) -> PyResult<Buffer> {
        let py = shape.py();
        let dtype = dtype.map_or(Ok(wharf::element::DType::U8), dtype::parse)?;
        let shape = Shape::parse(shape, dtype)?;
        let stream = stream::of(stream, self.0.device())?;
        let (pool, size) = (&self.0.pool, shape.size);
        let made = pool.machine().run(py, || pool.alloc::<u8>(size, &stream)).or_raise()?;
        Ok(Buffer::new(made, shape, stream, Arc::clone(&self.0)))
    }

    /// Allocation by address, for libraries that hold addresses only.
    fn addresses(&self) -> Addresses {
        Addresses::new(Arc::clone(&self.0))
    }

    /// Gives memory back to the driver that has been unused for `idle` seconds, but for `keep`
    /// bytes of it, and returns how many bytes that were. Does not wait for the device.
    #[pyo3(signature = (idle = 0.0, keep = 0))]
    fn trim(&self, py: Python<'_>, idle: f64, keep: usize) -> PyResult<usize> {
        let (pool, idle) = (&self.0.pool, seconds(idle)?);
        let trimmed = pool.machine().run(py, || pool.trim(idle, keep));
        trimmed.error.map_or(Ok(trimmed.released), |error| Err(error.raise()))
    }

    /// Waits at most `timeout` seconds for the device to finish with what was freed, gives memory
    /// back, and raises `LeakError` if buffers are alive or memory is in use. Buffers stay valid.
    #[pyo3(signature = (timeout = 10.0))]
    fn check(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let limit = seconds(timeout)?;
        let pool = &self.0.pool;
        // A clone: the pool goes with the last of its owners.
        pool.machine().run(py, || Inner::clone(pool).close(limit)).or_raise()
    }

    /// The bytes that the pool holds, by what they are: `limit`, `reserved`, `peak_reserved`,
    /// `live`, `cached`, `retired`.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let pool = &self.0.pool;
        let (stats, retired) = pool.machine().run(py, || (pool.slab_stats(), pool.retired()));
        let out = PyDict::new(py);
        out.set_item("limit", stats.limit)?;
        out.set_item("reserved", stats.reserved)?;
        out.set_item("peak_reserved", stats.peak_reserved)?;
        // Retired blocks count as live in the slabs.
        out.set_item("live", stats.live.saturating_sub(retired))?;
        out.set_item("cached", stats.cached)?;
        out.set_item("retired", retired)?;
        Ok(out)
    }

    /// Free and total bytes of the device's memory, as the driver tells; `None` where not known.
    #[getter]
    fn physical_memory(&self, py: Python<'_>) -> Option<(usize, usize)> {
        let pool = &self.0.pool;
        let memory = pool.machine().run(py, || pool.physical_memory())?;
        Some((memory.free, memory.total))
    }

    /// The number of buffers that are alive.
    #[getter]
    fn live(&self, py: Python<'_>) -> usize {
        let pool = &self.0.pool;
        let blocks = pool.machine().run(py, || pool.blocks());
        blocks.iter().filter(|block| block.handles > 0).count()
    }

    /// The kind of memory.
    #[getter]
    fn kind(&self) -> &'static str {
        kind_name(self.0.pool.kind())
    }

    /// The name that the pool was given.
    #[getter]
    fn name(&self) -> &str {
        self.0.pool.name()
    }

    /// The device.
    #[getter]
    fn device(&self) -> Device {
        self.0.device.clone()
    }

    /// The first address of the pool's memory and its length in bytes.
    #[getter]
    fn span(&self) -> (u64, u64) {
        let span = self.0.pool.span();
        (span.start, span.end - span.start)
    }

    fn __repr__(&self) -> String {
        let (device, kind, name) = (&self.0.device, self.kind(), self.name());
        format!("Pool({device:?}, kind={kind:?}, name={name:?})")
    }
}

/// The name of a kind of memory.
pub(crate) fn kind_name(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Device => "device",
        MemoryKind::Pinned => "pinned",
        MemoryKind::Managed => "managed",
        _ => "other",
    }
}

/// The longest span: its bookkeeping is made with the pool, and an allocation of the host's that is
/// refused ends the process.
const MOST_BYTES: usize = 4 << 40;

/// Makes a pool of one kind of memory.
type Make = fn(PoolBuilder, &Shared, usize) -> PyResult<Inner>;

fn device_pool(builder: PoolBuilder, context: &Shared, size: usize) -> PyResult<Inner> {
    builder.build(DeviceMemoryResource::new(context, size).or_raise()?).or_raise()
}

fn pinned_pool(builder: PoolBuilder, context: &Shared, size: usize) -> PyResult<Inner> {
    let resource = PinnedMemoryResource::new(context, size, PinnedOptions::default());
    builder.build(resource.or_raise()?).or_raise()
}

fn managed_pool(builder: PoolBuilder, context: &Shared, size: usize) -> PyResult<Inner> {
    builder.build(ManagedMemoryResource::new(context, size).or_raise()?).or_raise()
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}
