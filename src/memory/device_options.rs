//! How a device's memory is made: for transports, other processes and other devices.

use std::fmt;
use std::ops::BitOr;

use wharf_sys::bindings::CUmemAllocationHandleType;

use crate::driver::Device;

/// What the memory of a [`DeviceMemoryResource`](super::DeviceMemoryResource) is made for. All of
/// it is decided when the resource is made, for all of its memory: "handle types are fixed at
/// `cuMemCreate`", so no transport can add them later.
///
/// What the device does not advertise is not asked for. What it advertises is tried on one granule,
/// which is mapped and made accessible: a driver may advertise what it then refuses (RDMA under
/// WSL2, FABRIC without an IMEX channel). What was granted is in
/// [`DeviceMemoryResource::granted`](super::DeviceMemoryResource::granted).
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::memory::{Ask, DeviceMemoryResource, DeviceOptions, Handles};
///
/// let options = DeviceOptions::default()
///     .rdma(Ask::IfPossible)
///     .shareable(Handles::FABRIC | Handles::POSIX);
/// let memory = DeviceMemoryResource::with_options(&context, 1 << 30, options)?;
/// // This device has no FABRIC handles, and no RDMA.
/// assert_eq!(memory.granted().handles, Handles::POSIX);
/// assert!(!memory.granted().rdma);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Virtual memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    pub(super) rdma: Ask,
    pub(super) handles: Handles,
    pub(super) peers: Vec<Device>,
}

impl DeviceOptions {
    /// Asks for memory that network cards reach (`gpuDirectRDMACapable`). By default [`Ask::No`].
    ///
    /// # References
    ///
    /// [GPUDirect RDMA](https://docs.nvidia.com/cuda/gpudirect-rdma/)
    #[must_use]
    pub fn rdma(self, rdma: Ask) -> Self {
        Self { rdma, ..self }
    }

    /// Asks for memory that other processes can map by each of `handles`, or by as many of them as
    /// the driver grants. By default none.
    #[must_use]
    pub fn shareable(self, handles: Handles) -> Self {
        Self { handles, ..self }
    }

    /// Maps all memory for these devices too, so that their streams may use it. By default none:
    /// each mapping for a peer costs time, and launches too.
    #[must_use]
    pub fn peers(self, peers: &[Device]) -> Self {
        Self { peers: peers.to_vec(), ..self }
    }

    /// Whether nothing is asked for.
    pub(super) fn is_plain(&self) -> bool {
        self.rdma == Ask::No && self.handles == Handles::NONE && self.peers.is_empty()
    }
}

/// How much something is wanted that a driver may not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ask {
    /// Not at all.
    #[default]
    No,
    /// Where the driver has it.
    IfPossible,
    /// Without it there is an error.
    Required,
}

/// Kinds of handles by which other processes map memory.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Handles(u32);

impl Handles {
    /// None.
    pub const NONE: Self = Self(0);
    /// File descriptors, for processes of one machine, which pass them over a socket.
    pub const POSIX: Self =
        Self(CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.0);
    /// Bytes, for processes of all machines of one fabric of devices.
    pub const FABRIC: Self = Self(CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC.0);

    /// Whether all of `others` are among these.
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These without `others`.
    pub(super) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(super) fn as_raw(self) -> CUmemAllocationHandleType {
        CUmemAllocationHandleType(self.0)
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(Self::POSIX, "POSIX"), (Self::FABRIC, "FABRIC")];
        let mut held = names.iter().filter(|(kind, _)| self.contains(*kind)).map(|it| it.1);
        f.write_str(held.next().unwrap_or("NONE"))?;
        held.try_for_each(|name| write!(f, " | {name}"))
    }
}

impl BitOr for Handles {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What memory was made for, as the driver granted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// The handles by which other processes can map it.
    pub handles: Handles,
    /// Whether network cards reach it.
    pub rdma: bool,
    /// The devices, besides its own, whose streams may use it, by ordinal.
    pub peers: Vec<i32>,
}
