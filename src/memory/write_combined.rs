//! Pinned memory that the CPU only writes.

#![expect(unsafe_code, reason = "vouches for addresses")]

use wharf_sys::bindings::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_WRITECOMBINED,
};

use super::span::{Span, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::Context;
use crate::error::Error;
use crate::profile::range;

/// Pinned host memory that bypasses the CPU's caches: to be written by the host, in order and never
/// read, and read by the device.
///
/// Reading it is an order of magnitude slower than reading other memory. It is a type of its own, so
/// that nobody gets it by a flag; measure before use, since
/// [`PinnedMemoryResource`](super::PinnedMemoryResource) is as fast on most machines. The span is one
/// allocation by the driver, of its whole size; commit and decommit only keep account.
///
/// It may be shared between threads. Dropped, it gives the allocation back; after an error, or when
/// the context is lost, it leaks it, which counts in [`Context::drop_errors`].
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// use wharf::Context;
/// use wharf::memory::{Backing, WriteCombinedMemoryResource};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let resource = WriteCombinedMemoryResource::new(&context, 16 << 20)?;
/// assert_eq!(resource.report().backing, Backing::Whole);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
#[derive(Debug)]
#[doc(alias = "cuMemHostAlloc")]
#[doc(alias = "CU_MEMHOSTALLOC_WRITECOMBINED")]
pub struct WriteCombinedMemoryResource {
    span: Box<dyn Span>,
}

impl WriteCombinedMemoryResource {
    /// Allocates a span of `size` bytes, rounded up to whole granules of 2 MiB.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the context is lost, or the host cannot pin so much memory.
    /// * [`Error::System`]: no span can be so large.
    pub fn new(context: &Context, size: usize) -> Result<Self, Error> {
        let _range = range!("wharf::memory::write_combined");
        let flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
        Ok(Self { span: Box::new(WholeSpan::new(context, size, Source::Host(flags))?) })
    }
}

resource_of_span!(
    WriteCombinedMemoryResource,
    WriteCombined,
    "wharf::memory::write_combined::commit",
    "wharf::memory::write_combined::decommit"
);
