//! Where memory is, or who gets at it.

use wharf_sys::bindings::{CUmemLocation, CUmemLocation_st__bindgen_ty_1, CUmemLocationType};

/// A memory location. The host has one NUMA node, number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Location {
    Device(i32),
    Host,
    HostNuma(i32),
}

impl Location {
    pub(crate) fn is_host(self) -> bool {
        !matches!(self, Self::Device(_))
    }

    /// The device whose memory is charged; any where it is the host's.
    pub(crate) fn ordinal(self) -> i32 {
        if let Self::Device(ordinal) = self { ordinal } else { 0 }
    }

    pub(crate) fn kind(self) -> CUmemLocationType {
        match self {
            Self::Device(_) => CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
            Self::Host => CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST,
            Self::HostNuma(_) => CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA,
        }
    }

    pub(crate) fn id(self) -> i32 {
        match self {
            Self::Device(id) | Self::HostNuma(id) => id,
            Self::Host => 0,
        }
    }

    /// As the driver API spells it.
    pub(crate) fn as_raw(self) -> CUmemLocation {
        let __bindgen_anon_1 = CUmemLocation_st__bindgen_ty_1 { id: self.id() };
        CUmemLocation { type_: self.kind(), __bindgen_anon_1 }
    }
}
