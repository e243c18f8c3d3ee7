//! Managed memory: one address for host and device.

#![expect(unsafe_code, reason = "vouches for addresses; calls the driver")]

use wharf_sys::bindings::{
    CUdevice, CUmem_advise, CUmemLocation, CUmemLocation_st__bindgen_ty_1, CUmemLocationType,
};
use wharf_sys::constants::DEVICE_CPU;

use super::span::{OwnedSpan, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::{Context, Device, DeviceAttribute};
use crate::error::{CudaError, Error};
use crate::profile::range;
use crate::stream::Stream;

/// Managed memory, which the driver moves to the processor that uses it.
///
/// The span is one allocation, of its whole size or of the limit of a pool on it, and up to 4 MiB
/// more for its alignment. It is made with the pool, or when the base is first asked for, memory
/// committed or a range advised. It gets memory page by page when it is touched or prefetched, so
/// commit and decommit only keep account: a decommit gives the addresses back, and the driver the
/// memory where it is short of it.
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
/// use wharf::memory::{Advice, Location, ManagedMemoryResource};
/// use wharf::{Context, Stream};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let resource = ManagedMemoryResource::new(&context, 1 << 30)?;
/// resource.advise(0, 1 << 20, Advice::PreferredLocation(Location::Device(context.device())))?;
/// let stream = Stream::new(&context)?;
/// resource.prefetch(0, 1 << 20, Location::Host, &stream)?;
/// stream.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Unified addressing](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__UNIFIED.html)
#[derive(Debug)]
#[doc(alias = "cuMemAllocManaged")]
pub struct ManagedMemoryResource {
    span: OwnedSpan,
}

impl ManagedMemoryResource {
    /// Plans a span of `size` bytes, rounded up to whole granules of 2 MiB, which any stream of any
    /// device may use. It is not allocated yet.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::NOT_SUPPORTED`]: the device has no managed memory.
    /// * [`Error::Driver`]: the context is lost.
    /// * [`Error::System`]: no span can be so large.
    pub fn new(context: &Context, size: usize) -> Result<Self, Error> {
        let _range = range!("memory::managed");
        if !context.device().supports(DeviceAttribute::MANAGED_MEMORY)? {
            let call = context.driver().api().mem_alloc_managed.name();
            return Err(Error::Driver { call, code: CudaError::NOT_SUPPORTED });
        }
        Ok(Self { span: OwnedSpan::new(WholeSpan::new(context, size, Source::Managed)?) })
    }

    /// Tells the driver how `len` bytes from `offset` of the span on will be used.
    ///
    /// An advice changes where the bytes are and how fast they are reached, never what they are. It
    /// stays until its opposite is given, over decommits too.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: the range is empty or not in the
    ///   span.
    /// * [`Error::Driver`] with [`CudaError::OUT_OF_MEMORY`]: the span could not be allocated.
    /// * [`Error::Driver`] with [`CudaError::INVALID_DEVICE`]: the device cannot use managed memory
    ///   at the same time as the host.
    /// * [`Error::Unsupported`]: a node of the host is named, and the driver is older than 12.2.
    ///
    /// # References
    ///
    /// [Unified addressing](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__UNIFIED.html)
    #[doc(alias = "cuMemAdvise")]
    pub fn advise(&self, offset: usize, len: usize, advice: Advice<'_>) -> Result<(), Error> {
        let address = self.address(offset, len, self.span.owner().api().mem_advise.name())?;
        let (kind, location) = advice.parts();
        let section = self.span.owner().enter()?;
        section.call(|api| match location.as_device() {
            Some(device) if !api.mem_advise_v12020.is_available() => {
                // SAFETY: the range lies in this span, and an advice does not change its bytes.
                unsafe { api.mem_advise.call(address, len, kind, device) }
            }
            // SAFETY: as above.
            _ => unsafe { api.mem_advise_v12020.call(address, len, kind, location.as_raw()) },
        })
    }

    /// Moves `len` bytes from `offset` of the span on to `location`, in stream order.
    ///
    /// The bytes may be used meanwhile; the move then waits or is done in vain.
    ///
    /// # Errors
    ///
    /// As [`advise`](Self::advise).
    ///
    /// # References
    ///
    /// [Unified addressing](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__UNIFIED.html)
    #[doc(alias = "cuMemPrefetchAsync")]
    pub fn prefetch(
        &self,
        offset: usize,
        len: usize,
        location: Location<'_>,
        stream: &Stream,
    ) -> Result<(), Error> {
        let address =
            self.address(offset, len, self.span.owner().api().mem_prefetch_async.name())?;
        let section = self.span.owner().enter()?;
        section.call(|api| match location.as_device() {
            Some(device) if !api.mem_prefetch_async_v12020.is_available() => {
                // SAFETY: the range lies in this span, and a prefetch does not change its bytes;
                // the stream is alive.
                unsafe { api.mem_prefetch_async.call(address, len, device, stream.as_raw()) }
            }
            _ => {
                let entry = &api.mem_prefetch_async_v12020;
                // SAFETY: as above.
                unsafe { entry.call(address, len, location.as_raw(), 0, stream.as_raw()) }
            }
        })
    }

    /// The address of a range, which must lie in the span.
    fn address(&self, offset: usize, len: usize, call: &'static str) -> Result<u64, Error> {
        let end = offset.checked_add(len).filter(|end| len > 0 && *end <= self.span.size());
        end.ok_or(Error::Driver { call, code: CudaError::INVALID_VALUE })?;
        Ok(self.span.try_base()? + offset as u64)
    }
}

resource_of_span!(
    ManagedMemoryResource,
    Managed,
    "memory::managed::commit",
    "memory::managed::decommit"
);

/// How managed memory will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice<'a> {
    /// It is mostly read: each processor that reads it may have a copy.
    ReadMostly,
    /// The opposite of [`Advice::ReadMostly`].
    NotReadMostly,
    /// It should stay at a location, unless another processor needs it.
    PreferredLocation(Location<'a>),
    /// The opposite of [`Advice::PreferredLocation`].
    NoPreferredLocation,
    /// A processor will use it where it is, and should have it in its page tables.
    AccessedBy(Location<'a>),
    /// The opposite of [`Advice::AccessedBy`].
    NotAccessedBy(Location<'a>),
}

impl<'a> Advice<'a> {
    fn parts(self) -> (CUmem_advise, Location<'a>) {
        match self {
            Self::ReadMostly => (CUmem_advise::CU_MEM_ADVISE_SET_READ_MOSTLY, Location::Host),
            Self::NotReadMostly => (CUmem_advise::CU_MEM_ADVISE_UNSET_READ_MOSTLY, Location::Host),
            Self::PreferredLocation(place) => {
                (CUmem_advise::CU_MEM_ADVISE_SET_PREFERRED_LOCATION, place)
            }
            Self::NoPreferredLocation => {
                (CUmem_advise::CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, Location::Host)
            }
            Self::AccessedBy(by) => (CUmem_advise::CU_MEM_ADVISE_SET_ACCESSED_BY, by),
            Self::NotAccessedBy(by) => (CUmem_advise::CU_MEM_ADVISE_UNSET_ACCESSED_BY, by),
        }
    }
}

/// A place where managed memory can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location<'a> {
    /// A device's memory.
    Device(&'a Device),
    /// The host's memory.
    Host,
    /// The memory of the host's NUMA node with this number. Needs a driver of 12.2 or later.
    HostNode(i32),
}

impl Location<'_> {
    /// The number that stood for the place before there were nodes.
    fn as_device(self) -> Option<CUdevice> {
        match self {
            Self::Device(device) => Some(device.as_raw()),
            Self::Host => Some(DEVICE_CPU),
            Self::HostNode(_) => None,
        }
    }

    fn as_raw(self) -> CUmemLocation {
        let (type_, id) = match self {
            Self::Device(device) => {
                (CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, device.ordinal())
            }
            Self::Host => (CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST, 0),
            Self::HostNode(node) => (CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA, node),
        };
        CUmemLocation { type_, __bindgen_anon_1: CUmemLocation_st__bindgen_ty_1 { id } }
    }
}
