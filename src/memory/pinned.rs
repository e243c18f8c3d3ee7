//! Pinned (page-locked) memory of the host.

#![expect(unsafe_code, reason = "vouches for addresses")]

use wharf_sys::bindings::{CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE};

use super::first_touch::FirstTouch;
use super::huge_page::PageTier;
use super::numa::NumaNode;
use super::registered_span::RegisteredSpan;
use super::registration::PIECE_LIMIT;
use super::span::{OwnedSpan, resource_of_span};
use super::whole_span::{Source, WholeSpan};
use crate::driver::{Context, DeviceAttribute};
use crate::error::Error;
use crate::profile::range;

/// Pinned host memory that the device reads and writes, cached by the CPU as any memory.
///
/// Pages are taken near the device, huge where possible, filled before they are pinned, by several
/// threads where they are many ([`PinnedOptions::fill_threads`]), not inherited by forked children,
/// and registered with the driver for every context, at most [`PinnedOptions::piece_limit`] bytes
/// at once. What was obtained is in the
/// [`report`](Self::report). Where the driver cannot register memory, the span is one allocation of
/// its whole size, or of the limit of a pool on it, and up to 4 MiB more for its alignment. It is
/// made with the pool, or when the base is first asked for or memory committed.
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
/// use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let resource = PinnedMemoryResource::new(&context, 1 << 30, PinnedOptions::default())?;
/// // SAFETY: the range is not committed, and nothing else uses this resource.
/// unsafe { resource.commit(0, resource.granularity()) }?;
/// assert_eq!(resource.report().registered, resource.granularity());
/// assert!(resource.device_address(0, 1000).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
#[derive(Debug)]
#[doc(alias = "cuMemHostRegister")]
#[doc(alias = "cuMemHostAlloc")]
pub struct PinnedMemoryResource {
    span: OwnedSpan,
}

impl PinnedMemoryResource {
    /// Reserves `size` bytes of addresses, rounded up to whole granules of 2 MiB.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: the process may not have so many addresses.
    /// * [`Error::Driver`]: the context is lost.
    pub fn new(context: &Context, size: usize, options: PinnedOptions) -> Result<Self, Error> {
        let _range = range!("memory::pinned");
        let device = context.device();
        let span = if device.supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)? {
            let node = options.numa_node.number(device)?;
            let PinnedOptions { page_tier, piece_limit, fill_threads, .. } = options;
            let touch = FirstTouch { node, threads: fill_threads };
            OwnedSpan::new(RegisteredSpan::new(context, size, page_tier, touch, piece_limit)?)
        } else {
            let flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
            OwnedSpan::new(WholeSpan::new(context, size, Source::Host(flags))?)
        };
        Ok(Self { span })
    }
}

resource_of_span!(
    PinnedMemoryResource,
    Pinned,
    "memory::pinned::commit",
    "memory::pinned::decommit"
);

/// Options of a [`PinnedMemoryResource`].
///
/// # Examples
///
/// ```
/// use wharf::memory::{NumaNode, PageTier, PinnedOptions};
///
/// let options = PinnedOptions::default().page_tier(PageTier::Explicit).numa_node(NumaNode::Any);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedOptions {
    page_tier: PageTier,
    numa_node: NumaNode,
    piece_limit: usize,
    fill_threads: usize,
}

impl PinnedOptions {
    /// Sets the best kind of pages to try for. By default [`PageTier::Transparent`].
    #[must_use]
    pub fn page_tier(self, page_tier: PageTier) -> Self {
        Self { page_tier, ..self }
    }

    /// Sets the NUMA node to take pages from. By default the device's.
    #[must_use]
    pub fn numa_node(self, numa_node: NumaNode) -> Self {
        Self { numa_node, ..self }
    }

    /// Limits a registration, in bytes, rounded up to whole granules. By default 256 MiB.
    ///
    /// A longer commit has several registrations. The driver's copies and fills do not cross from
    /// one to the next: those of this crate are cut there, others are to be cut at
    /// [`pieces`](super::MemoryResource::pieces).
    #[must_use]
    pub fn piece_limit(self, piece_limit: usize) -> Self {
        Self { piece_limit, ..self }
    }

    /// Sets how many threads fill a commit at most, each of them 32 MiB or more. By default 8; with
    /// 1 the thread that commits does it.
    ///
    /// They run on the processors of the NUMA node, as far as the committing thread may, are named
    /// `wharf-touch`, and end before the commit returns.
    #[must_use]
    pub fn fill_threads(self, fill_threads: usize) -> Self {
        Self { fill_threads, ..self }
    }
}

impl Default for PinnedOptions {
    fn default() -> Self {
        Self {
            page_tier: PageTier::default(),
            numa_node: NumaNode::default(),
            piece_limit: PIECE_LIMIT,
            fill_threads: FILL_THREADS,
        }
    }
}

/// As many threads as it takes to use what a node's memory can do, or nearly.
const FILL_THREADS: usize = 8;
