//! Memory that another process maps: handles of it, and what such a handle names.

#![expect(unsafe_code, reason = "calls the driver")]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use wharf_sys::bindings::{CUmemRangeHandleType, CUpointer_attribute};

use super::allocation::set_access;
use super::device_options::Handles;
use super::owner::{Owner, Section};
use super::wire::Piece;
use crate::address::to_usize;
use crate::driver::{Context, Device, DeviceAttribute};
use crate::error::{CudaError, Error};

/// Names the memory of a piece to another process, which maps it by [`ImportedPiece::new`].
///
/// The memory lives as long as any process has it mapped. A process that got the handle has the
/// bytes that are there now and later, until the piece is decommitted: then the importer keeps the
/// old memory, and nothing that the owner commits later is in it. So say by other means, such as a
/// [`Descriptor`](super::Descriptor), which generation of a piece a handle is of.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::memory::{
///     DeviceMemoryResource, DeviceOptions, Handles, ImportedPiece, ShareableHandle, WiredResource,
/// };
/// use wharf::pool::{Buffer, Pool};
/// use wharf::Stream;
/// let options = DeviceOptions::default().shareable(Handles::POSIX);
/// let memory = DeviceMemoryResource::with_options(&context, 1 << 30, options)?;
/// let pool = Pool::builder().max_bytes(4 << 20).build(WiredResource::new(memory, ()))?;
/// let stream = Stream::new(&context)?;
/// let block: Buffer<u32> = pool.alloc(4, &stream)?;
/// block.copy_from_slice(&[1, 2, 3, 4], &stream)?;
/// let exported = block.export()?;
/// let piece = exported.piece();
/// let handle = ShareableHandle::export(&context, &piece, Handles::POSIX)?;
/// // It goes over a Unix socket (`sendmsg`), with `piece.len` and the block's descriptor as the
/// // message, and may be dropped here. There:
/// let imported = ImportedPiece::new(&context, &handle, piece.len, &[])?;
/// let address = imported.address() + exported.descriptor().offset;
/// # assert_ne!(address, exported.address());
/// // When the other process says that it is done:
/// exported.complete();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Virtual memory
/// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
#[derive(Debug)]
#[non_exhaustive]
pub enum ShareableHandle {
    /// A file descriptor, to be passed over a Unix socket (`SCM_RIGHTS`).
    Posix(OwnedFd),
    /// Bytes, to be passed by any means to a process of the same fabric.
    Fabric([u8; 64]),
}

impl ShareableHandle {
    /// Makes a handle of one kind for a piece of a
    /// [`DeviceMemoryResource`](super::DeviceMemoryResource).
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::NOT_SUPPORTED`]: the memory was not made for handles
    ///   of that kind, see [`DeviceOptions::shareable`](super::DeviceOptions::shareable), or `kind`
    ///   is not one kind.
    /// * [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: no mapped memory is there.
    /// * [`Error::Unsupported`]: the driver has no such call.
    ///
    /// # References
    ///
    /// [Virtual memory
    /// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
    #[doc(alias = "cuMemRetainAllocationHandle")]
    #[doc(alias = "cuMemExportToShareableHandle")]
    pub fn export(context: &Context, piece: &Piece, kind: Handles) -> Result<Self, Error> {
        if kind != Handles::POSIX && kind != Handles::FABRIC {
            return Err(NO_HANDLE);
        }
        let owner = Owner::new(context);
        let section = owner.enter()?;
        let mut allowed = 0_u64;
        section.call(|api| {
            let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES;
            let data = (&raw mut allowed).cast();
            // SAFETY: `allowed` is valid for writes of the eight bytes of this attribute.
            unsafe { api.pointer_get_attribute.call(data, attribute, piece.address) }
        })?;
        if allowed & u64::from(kind.as_raw().0) == 0 {
            return Err(NO_HANDLE);
        }
        let mut memory = 0;
        let address = ptr::with_exposed_provenance_mut::<c_void>(to_usize(piece.address));
        section.call(|api| {
            // SAFETY: `memory` is valid for writes; an address without a mapping is an error.
            unsafe { api.mem_retain_allocation_handle.call(&raw mut memory, address) }
        })?;
        let handle = Self::of(&section, memory, kind);
        // SAFETY: retained above, and only this call knows it.
        let released = section.call(|api| unsafe { api.mem_release.call(memory) });
        let handle = handle?;
        released.map(|()| handle)
    }

    fn of(section: &Section<'_>, memory: u64, kind: Handles) -> Result<Self, Error> {
        let mut bytes = [0_u8; 64];
        section.call(|api| {
            let (entry, to) = (&api.mem_export_to_shareable_handle, bytes.as_mut_ptr().cast());
            // SAFETY: 64 bytes are as much as any handle has.
            unsafe { entry.call(to, memory, kind.as_raw(), 0) }
        })?;
        if kind == Handles::FABRIC {
            return Ok(Self::Fabric(bytes));
        }
        let [a, b, c, d, ..] = bytes;
        let descriptor = i32::from_ne_bytes([a, b, c, d]);
        // SAFETY: a descriptor that the driver has just made for the caller.
        Ok(Self::Posix(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    fn kind(&self) -> Handles {
        match self {
            Self::Posix(_) => Handles::POSIX,
            Self::Fabric(_) => Handles::FABRIC,
        }
    }
}

/// A descriptor of a piece's memory for other subsystems of the kernel (dma-buf), such as a network
/// card's driver.
///
/// # Errors
///
/// * [`Error::Driver`] with [`CudaError::NOT_SUPPORTED`]: the device has no dma-buf
///   ([`DeviceAttribute::DMA_BUF_SUPPORTED`]).
/// * [`Error::Driver`]: the driver refused.
/// * [`Error::Unsupported`]: the driver is older than CUDA 11.7.
///
/// # References
///
/// [Memory
/// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
#[doc(alias = "cuMemGetHandleForAddressRange")]
pub fn dma_buf(context: &Context, piece: &Piece) -> Result<OwnedFd, Error> {
    let owner = Owner::new(context);
    let section = owner.enter()?;
    let entry = &owner.api().mem_get_handle_for_address_range;
    if !context.device().supports(DeviceAttribute::DMA_BUF_SUPPORTED)? {
        return Err(Error::Driver { call: entry.name(), code: CudaError::NOT_SUPPORTED });
    }
    let mut descriptor = -1_i32;
    section.call(|_| {
        let kind = CUmemRangeHandleType::CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
        let to = (&raw mut descriptor).cast();
        // SAFETY: this kind of handle is an int; a range that is not mapped is an error.
        unsafe { entry.call(to, piece.address, piece.len, kind, 0) }
    })?;
    // SAFETY: a descriptor that the driver has just made for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Memory of another process, mapped for a device of this one. Its drop unmaps it.
///
/// It may be used from any thread. Nothing tells what the owner does with it meanwhile: the two
/// processes agree by messages. The owner may end; the memory stays.
#[derive(Debug)]
pub struct ImportedPiece {
    address: u64,
    len: usize,
    is_mapped: bool,
    owner: Owner,
}

impl ImportedPiece {
    /// Maps `len` bytes of the memory that a handle names, which is all of it, for the context's
    /// device and `peers`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: such as [`CudaError::INVALID_VALUE`], if the handle names no memory any
    /// more or less than `len` bytes; [`CudaError::NOT_PERMITTED`] and
    /// [`CudaError::NOT_SUPPORTED`], if this process may not import such handles. Nothing is
    /// mapped then.
    ///
    /// # References
    ///
    /// [Virtual memory
    /// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VA.html)
    #[doc(alias = "cuMemImportFromShareableHandle")]
    pub fn new(
        context: &Context,
        handle: &ShareableHandle,
        len: usize,
        peers: &[Device],
    ) -> Result<Self, Error> {
        let owner = Owner::new(context);
        let section = owner.enter()?;
        let memory = import(&section, handle)?;
        let mut address = 0;
        let reserved = section.call(|api| {
            // SAFETY: `address` is valid for writes for the whole call.
            unsafe { api.mem_address_reserve.call(&raw mut address, len, 0, 0, 0) }
        });
        let mapped = reserved.and_then(|()| {
            // SAFETY: the range was just reserved, and nothing is mapped there.
            section.call(|api| unsafe { api.mem_map.call(address, len, 0, memory, 0) })
        });
        // SAFETY: imported above, and only this call knows it. A mapping keeps the memory.
        let released = section.call(|api| unsafe { api.mem_release.call(memory) });
        let is_mapped = mapped.is_ok();
        let outcome = mapped.and(released).and_then(|()| {
            let ordinals = peers.iter().map(Device::ordinal);
            set_access(&section, address, len, [owner.ordinal()].into_iter().chain(ordinals))
        });
        drop(section);
        if reserved.is_err() {
            return Err(outcome.err().unwrap_or(NO_HANDLE));
        }
        // Its drop gives back what there is, if access could not be had.
        let imported = Self { address, len, is_mapped, owner };
        outcome.map(|()| imported)
    }

    /// The address of the first byte, for this process's devices.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Unmaps the memory. No device may use it any more.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused. The addresses stay reserved then.
    pub fn close(mut self) -> Result<(), Error> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), Error> {
        if self.len == 0 {
            return Ok(());
        }
        let (address, len) = (self.address, std::mem::take(&mut self.len));
        let section = self.owner.enter()?;
        if self.is_mapped {
            // SAFETY: mapped once with this length, and unmapped once.
            section.call(|api| unsafe { api.mem_unmap.call(address, len) })?;
        }
        // SAFETY: reserved with this length, and nothing is mapped there any more.
        section.call(|api| unsafe { api.mem_address_free.call(address, len) })
    }
}

impl Drop for ImportedPiece {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.owner.note(outcome);
    }
}

/// The memory that a handle names.
fn import(section: &Section<'_>, handle: &ShareableHandle) -> Result<u64, Error> {
    let mut memory = 0;
    section.call(|api| {
        let (entry, kind) = (&api.mem_import_from_shareable_handle, handle.kind().as_raw());
        match handle {
            ShareableHandle::Posix(descriptor) => {
                // "The operating system handle" is passed as the pointer itself.
                let number = descriptor.as_raw_fd().unsigned_abs() as usize;
                // SAFETY: `memory` is valid for writes, and the descriptor is open.
                unsafe { entry.call(&raw mut memory, ptr::without_provenance_mut(number), kind) }
            }
            ShareableHandle::Fabric(bytes) => {
                let bytes = bytes.as_ptr().cast_mut().cast();
                // SAFETY: `memory` is valid for writes, and the 64 bytes for reads.
                unsafe { entry.call(&raw mut memory, bytes, kind) }
            }
        }
    })?;
    Ok(memory)
}

/// The memory was not made for such handles.
const NO_HANDLE: Error = Error::Driver {
    call: "export of memory that was not made shareable",
    code: CudaError::NOT_SUPPORTED,
};
