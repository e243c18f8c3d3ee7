//! The layouts and numbers of NVTX's extension for memory, as in its headers.

use core::ffi::{c_char, c_void};

/// `nvtxExtModuleSegment_t`.
#[repr(C)]
pub(super) struct Segment {
    pub(super) id: usize,
    pub(super) count: usize,
    pub(super) slots: *mut isize,
}

/// `nvtxExtModuleInfo_t`.
#[repr(C)]
pub(super) struct Module {
    pub(super) version: u16,
    pub(super) size: u16,
    pub(super) id: u16,
    pub(super) compat: u16,
    pub(super) segments: usize,
    pub(super) segment: *mut Segment,
    pub(super) export: *const c_void,
    pub(super) info: *const c_void,
}

/// `nvtxMemVirtualRangeDesc_v1`.
#[repr(C)]
pub(super) struct VirtualRange {
    pub(super) size: usize,
    pub(super) start: *const c_void,
}

/// `nvtxMemHeapDesc_v1`.
#[repr(C)]
pub(super) struct HeapDesc {
    pub(super) compat: u16,
    pub(super) size: u16,
    pub(super) reserved: u32,
    pub(super) usage: u32,
    pub(super) memory: u32,
    pub(super) range_size: usize,
    pub(super) range: *const VirtualRange,
    pub(super) category: u32,
    pub(super) message_type: u32,
    pub(super) message: *const c_char,
}

/// `nvtxMemRegionsRegisterBatch_v1`.
#[repr(C)]
pub(super) struct RegisterBatch {
    pub(super) compat: u16,
    pub(super) size: u16,
    pub(super) memory: u32,
    pub(super) heap: *mut c_void,
    pub(super) count: usize,
    pub(super) element: usize,
    pub(super) elements: *const VirtualRange,
    pub(super) handles: *mut *mut c_void,
}

/// `nvtxMemRegionsUnregisterBatch_v1`.
#[repr(C)]
pub(super) struct UnregisterBatch {
    pub(super) compat: u16,
    pub(super) size: u16,
    pub(super) reference: u32,
    pub(super) count: usize,
    pub(super) element: usize,
    pub(super) elements: *const *const c_void,
}

/// `nvtxMemRegionNameDesc_v1`.
#[repr(C)]
pub(super) struct NameDesc {
    pub(super) reference: u32,
    pub(super) name_type: u32,
    pub(super) region: *const c_void,
    pub(super) name: *const c_char,
    pub(super) category: u32,
    pub(super) reserved: u32,
}

/// `nvtxMemRegionsNameBatch_v1`.
#[repr(C)]
pub(super) struct NameBatch {
    pub(super) compat: u16,
    pub(super) size: u16,
    pub(super) reserved: u32,
    pub(super) count: usize,
    pub(super) element: usize,
    pub(super) elements: *const NameDesc,
    pub(super) more: usize,
}

const _: () = {
    assert!(size_of::<Segment>() == 24 && size_of::<Module>() == 40);
    assert!(size_of::<VirtualRange>() == 16 && size_of::<HeapDesc>() == 48);
    assert!(size_of::<RegisterBatch>() == 48 && size_of::<UnregisterBatch>() == 32);
    assert!(size_of::<NameDesc>() == 32 && size_of::<NameBatch>() == 40);
};

/// Of NVTX, of the extension for memory, and its compatibility id.
pub(super) const VERSION: u16 = ::nvtx::sys::NVTX_VERSION.unsigned_abs();
pub(super) const MEMORY: u16 = 1;
pub(super) const COMPAT: u16 = 0x0102;
/// Functions in the extension's table, most of them for later.
pub(super) const SLOTS: usize = 63;
/// The contents of a slot that has no function: this, or 0.
pub(super) const DISABLED: isize = 1;
/// A heap that is cut into regions, of plain addresses, with names in ASCII.
pub(super) const SUB_ALLOCATOR: u32 = 1;
pub(super) const VIRTUAL_ADDRESS: u32 = 1;
pub(super) const BY_POINTER: u32 = 1;
pub(super) const ASCII: u32 = 1;
