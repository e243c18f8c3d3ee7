//! Memory of a device.

#![expect(unsafe_code, reason = "vouches for addresses")]

use super::mapped_span::MappedSpan;
use super::span::{Span, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::{Context, DeviceAttribute};
use crate::error::Error;
use crate::profile::range;

/// Memory of one device, which the host reaches by copies only.
///
/// A span of addresses to which memory is mapped piece by piece; a granule is what the driver
/// recommends, 2 MiB as a rule. Where the device has no virtual memory management, the span is one
/// allocation of its whole size.
///
/// It may be shared between threads. Dropped, it gives everything back; after an error, or when the
/// context is lost, it leaks what the device may still use, which counts in
/// [`Context::drop_errors`].
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// use wharf::Context;
/// use wharf::memory::{DeviceMemoryResource, MemoryKind, MemoryResource};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let resource = DeviceMemoryResource::new(&context, 1 << 30)?;
/// assert_eq!((resource.kind(), resource.ordinal()), (MemoryKind::Device, Some(0)));
/// assert_eq!(resource.report().committed, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Virtual memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
#[derive(Debug)]
#[doc(alias = "cuMemAddressReserve")]
#[doc(alias = "cuMemCreate")]
#[doc(alias = "cuMemAlloc")]
pub struct DeviceMemoryResource {
    span: Box<dyn Span>,
}

impl DeviceMemoryResource {
    /// Reserves `size` bytes of addresses, rounded up to whole granules.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: no span can be so large.
    /// * [`Error::Driver`]: the context is lost, there are not so many addresses, or, where the
    ///   device has no virtual memory management, not so much memory.
    pub fn new(context: &Context, size: usize) -> Result<Self, Error> {
        let _range = range!("wharf::memory::device");
        let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
        let span: Box<dyn Span> = if context.device().supports(attribute)? {
            Box::new(MappedSpan::new(context, size)?)
        } else {
            Box::new(WholeSpan::new(context, size, Source::Device)?)
        };
        Ok(Self { span })
    }
}

resource_of_span!(
    DeviceMemoryResource,
    Device,
    "wharf::memory::device::commit",
    "wharf::memory::device::decommit"
);
