//! Memory of a device.

#![expect(unsafe_code, reason = "vouches for addresses")]

use super::device_options::{Ask, DeviceOptions, Granted};
use super::mapped_span::MappedSpan;
use super::span::{OwnedSpan, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::{Context, DeviceAttribute};
use crate::error::{CudaError, Error};
use crate::profile::range;

/// Memory of one device, which the host reaches by copies only.
///
/// A span of addresses to which memory is mapped piece by piece; a granule is what the driver
/// recommends, 2 MiB as a rule. Where the device has no virtual memory management, the span is one
/// allocation of its whole size, or of the limit of a pool on it, and up to 4 MiB more for its
/// alignment. It is made with the pool, or when the base is first asked for or memory committed.
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
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
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
    span: OwnedSpan,
}

impl DeviceMemoryResource {
    /// Reserves `size` bytes of addresses, rounded up to whole granules.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: no span can be so large.
    /// * [`Error::Driver`]: the context is lost, or there are not so many addresses. Where the
    ///   device has no virtual memory management, the driver is asked later.
    pub fn new(context: &Context, size: usize) -> Result<Self, Error> {
        Self::with_options(context, size, DeviceOptions::default())
    }

    /// Reserves `size` bytes of addresses, as [`new`](Self::new), for memory that is made as the
    /// options say.
    ///
    /// Where the device has no virtual memory management, peers are let in by
    /// [`Context::enable_peer`], which the caller calls for each context that uses the memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`Error::Driver`] with
    ///
    /// * [`CudaError::PEER_ACCESS_UNSUPPORTED`]: a peer does not reach the device.
    /// * [`CudaError::NOT_SUPPORTED`], or what the driver says: RDMA is required.
    /// * [`CudaError::OUT_OF_MEMORY`]: there is not one granule to try the options on.
    ///
    /// # References
    ///
    /// [Virtual memory
    /// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
    pub fn with_options(
        context: &Context,
        size: usize,
        options: DeviceOptions,
    ) -> Result<Self, Error> {
        let _range = range!("memory::device");
        let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
        let span = if context.device().supports(attribute)? {
            OwnedSpan::new(MappedSpan::new(context, size, &options)?)
        } else if options.rdma == Ask::Required {
            let call = context.driver().api().mem_create.name();
            return Err(Error::Driver { call, code: CudaError::NOT_SUPPORTED });
        } else {
            OwnedSpan::new(WholeSpan::new(context, size, Source::Device)?.for_peers(&options)?)
        };
        Ok(Self { span })
    }

    /// What the memory is made for, as the driver granted it.
    pub fn granted(&self) -> Granted {
        self.span.granted().cloned().unwrap_or_default()
    }
}

resource_of_span!(
    DeviceMemoryResource,
    Device,
    "memory::device::commit",
    "memory::device::decommit"
);
