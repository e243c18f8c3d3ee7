#![expect(unsafe_code, reason = "reads a union of the driver API")]
//! Locations as arguments.

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUmemLocation, CUmemLocationType};

use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;

impl Call<'_> {
    /// Reads a location.
    ///
    /// # Errors
    ///
    /// * `INVALID_DEVICE`: a device that does not exist.
    /// * `INVALID_VALUE`: anything else that is no location of this machine.
    pub(crate) fn location(self, raw: &CUmemLocation) -> Status<Location> {
        // SAFETY: every variant of the union is an integer that begins here.
        let id = unsafe { raw.__bindgen_anon_1.id };
        match raw.type_ {
            CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE => {
                self.device(id)?;
                Ok(Location::Device(id))
            }
            CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST => Ok(Location::Host),
            CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA if id == 0 => {
                Ok(Location::HostNuma(0))
            }
            CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT => Ok(Location::HostNuma(0)),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }
}
