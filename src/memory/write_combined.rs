//! Pinned memory that the CPU only writes.

#![expect(unsafe_code, reason = "vouches for addresses")]

use wharf_sys::bindings::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_WRITECOMBINED,
};

use super::span::{OwnedSpan, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::Context;
use crate::error::Error;
use crate::profile::range;

/// Pinned host memory that bypasses the CPU's caches: to be written by the host, in order and never
/// read, and read by the device.
///
/// Reading it is an order of magnitude slower than reading other memory. It is a type of its own,
/// so that it is not chosen by a flag; measure before use, since
/// [`PinnedMemoryResource`](super::PinnedMemoryResource) is as fast on most machines. The span is
/// one allocation by the driver, of its whole size or of the limit of a pool on it, and up to 4 MiB
/// more for its alignment. It is made with the pool, or when the base is first asked for or memory
/// committed; further commits and decommits only keep account.
///
/// It may be shared between threads. Dropped, it gives the allocation back; after an error, or when
/// the context is lost, it leaks it, which counts in [`Context::drop_errors`].
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
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
    span: OwnedSpan,
}

impl WriteCombinedMemoryResource {
    /// Plans a span of `size` bytes, rounded up to whole granules of 2 MiB. It is not allocated
    /// yet.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the context is lost.
    /// * [`Error::System`]: no span can be so large.
    pub fn new(context: &Context, size: usize) -> Result<Self, Error> {
        let _range = range!("memory::write_combined");
        let flags =
            CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
        Ok(Self { span: OwnedSpan::new(WholeSpan::new(context, size, Source::Host(flags))?) })
    }
}

resource_of_span!(
    WriteCombinedMemoryResource,
    WriteCombined,
    "memory::write_combined::commit",
    "memory::write_combined::decommit"
);
