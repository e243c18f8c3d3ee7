#![expect(unsafe_code, reason = "C structures start as zeros")]
//! Parameters of nodes: copies of one row, fills of one row, memory operations on words.

use crate::address::to_usize;
use core::ffi::c_void;
use core::fmt;

use wharf_sys::bindings::{
    CUDA_MEMCPY3D_v2, CUDA_MEMSET_NODE_PARAMS_v1, CUdeviceptr, CUmemorytype,
    CUstreamBatchMemOpParams, CUstreamBatchMemOpType, CUstreamWaitValue_flags,
};

use super::direction::Direction;
use super::error::GraphError;

/// A copy of one row of bytes, the only shape that an executable graph can change later.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Copy1d {
    pub(super) direction: Direction,
    pub(super) destination: u64,
    pub(super) source: u64,
    pub(super) size: usize,
}

impl Copy1d {
    /// `size` bytes from the host to the device.
    pub fn htod(destination: CUdeviceptr, source: *const c_void, size: usize) -> Self {
        Self {
            direction: Direction::Htod,
            destination,
            source: source.expose_provenance() as u64,
            size,
        }
    }

    /// `size` bytes from the device to the host.
    pub fn dtoh(destination: *mut c_void, source: CUdeviceptr, size: usize) -> Self {
        Self {
            direction: Direction::Dtoh,
            destination: destination.expose_provenance() as u64,
            source,
            size,
        }
    }

    /// `size` bytes on the device.
    pub fn dtod(destination: CUdeviceptr, source: CUdeviceptr, size: usize) -> Self {
        Self { direction: Direction::Dtod, destination, source, size }
    }

    /// From where to where it goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// How many bytes it copies.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where the copy goes, and from where.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        (self.destination, self.source)
    }

    pub(super) fn check(&self) -> Result<(), GraphError> {
        if self.size == 0 { Err(GraphError::ZeroLength) } else { Ok(()) }
    }

    pub(super) fn raw(&self) -> CUDA_MEMCPY3D_v2 {
        // The driver reads either the host or the device field of a side, by its memory type.
        // SAFETY: a structure of integers, pointers and enumerations that are integers.
        let mut raw = unsafe { core::mem::zeroed::<CUDA_MEMCPY3D_v2>() };
        let host =
            |address: u64| core::ptr::with_exposed_provenance_mut::<c_void>(to_usize(address));
        (raw.srcMemoryType, raw.dstMemoryType) =
            (CUmemorytype::CU_MEMORYTYPE_DEVICE, CUmemorytype::CU_MEMORYTYPE_DEVICE);
        match self.direction {
            Direction::Htod => {
                raw.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
                (raw.srcHost, raw.dstDevice) = (host(self.source), self.destination);
            }
            Direction::Dtoh => {
                raw.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_HOST;
                (raw.srcDevice, raw.dstHost) = (self.source, host(self.destination));
            }
            Direction::Dtod => (raw.srcDevice, raw.dstDevice) = (self.source, self.destination),
        }
        (raw.WidthInBytes, raw.Height, raw.Depth) = (self.size, 1, 1);
        raw
    }
}

impl fmt::Debug for Copy1d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, destination, source, size } = self;
        write!(f, "{direction} {size} bytes, {source:#x} to {destination:#x}")
    }
}

/// A copy of rows of bytes, each a distance behind the one before on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copy2d {
    /// The copy of the first row.
    pub row: Copy1d,
    /// How many rows.
    pub rows: usize,
    /// From one row to the next at the destination, in bytes; no less than the row's size.
    pub destination_pitch: usize,
    /// The same at the source.
    pub source_pitch: usize,
}

impl Copy2d {
    pub(super) fn check(&self) -> Result<(), GraphError> {
        if self.rows == 0 { Err(GraphError::ZeroLength) } else { self.row.check() }
    }

    pub(super) fn raw(&self) -> CUDA_MEMCPY3D_v2 {
        let mut raw = self.row.raw();
        (raw.Height, raw.srcPitch, raw.dstPitch) =
            (self.rows, self.source_pitch, self.destination_pitch);
        raw
    }
}

/// The value that a fill repeats; its width is the unit of the fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FillValue {
    /// Bytes.
    D8(u8),
    /// 16-bit words.
    D16(u16),
    /// 32-bit words.
    D32(u32),
}

impl FillValue {
    /// The width, in bytes, and the bits.
    fn parts(self) -> (u32, u32) {
        match self {
            Self::D8(value) => (1, value.into()),
            Self::D16(value) => (2, value.into()),
            Self::D32(value) => (4, value),
        }
    }
}

/// A fill of one row of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fill {
    /// Where it starts, a multiple of the value's width.
    pub destination: CUdeviceptr,
    /// The value that it repeats.
    pub value: FillValue,
    /// How often, in units of the value.
    pub len: usize,
}

impl Fill {
    pub(super) fn check(&self) -> Result<(), GraphError> {
        let (width, _) = self.value.parts();
        match self.len {
            0 => Err(GraphError::ZeroLength),
            _ if !self.destination.is_multiple_of(width.into()) => {
                Err(GraphError::Misaligned { address: self.destination, align: width })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn raw(&self) -> CUDA_MEMSET_NODE_PARAMS_v1 {
        let (width, value) = self.value.parts();
        CUDA_MEMSET_NODE_PARAMS_v1 {
            dst: self.destination,
            pitch: 0,
            value,
            elementSize: width,
            width: self.len,
            height: 1,
        }
    }
}

/// A stream memory operation on a word that the device reaches.
///
/// Order that is made by it is invisible to CUDA: device work that waits for device work needs an
/// edge or an event besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemOp {
    /// Writes 64 bits, behind a memory barrier.
    Write64 {
        /// Where, a multiple of 8.
        address: CUdeviceptr,
        /// The value.
        value: u64,
    },
    /// Waits until 64 bits, as a number, are at least `value`.
    WaitAtLeast64 {
        /// Where, a multiple of 8.
        address: CUdeviceptr,
        /// The least number.
        value: u64,
    },
}

impl MemOp {
    /// "The maximum count is 256" (Driver API, cuStreamBatchMemOp).
    pub(super) const MAX_COUNT: usize = 256;

    pub(super) fn check(&self) -> Result<(), GraphError> {
        let (Self::Write64 { address, .. } | Self::WaitAtLeast64 { address, .. }) = *self;
        if address.is_multiple_of(8) {
            Ok(())
        } else {
            Err(GraphError::Misaligned { address, align: 8 })
        }
    }

    pub(super) fn raw(self) -> CUstreamBatchMemOpParams {
        // SAFETY: a union of structures of integers.
        let mut raw = unsafe { core::mem::zeroed::<CUstreamBatchMemOpParams>() };
        match self {
            Self::Write64 { address, value } => {
                raw.writeValue.operation = CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_64;
                // SAFETY: the variant that the line above chose; plain integers.
                let write = unsafe { &mut raw.writeValue };
                write.address = address;
                write.__bindgen_anon_1.value64 = value;
            }
            Self::WaitAtLeast64 { address, value } => {
                raw.waitValue.operation = CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_64;
                // SAFETY: as above.
                let wait = unsafe { &mut raw.waitValue };
                wait.address = address;
                wait.__bindgen_anon_1.value64 = value;
                wait.flags = CUstreamWaitValue_flags::CU_STREAM_WAIT_VALUE_GEQ.0;
            }
        }
        raw
    }
}
