#![expect(unsafe_code, reason = "calls the driver")]
//! One device: what it is and what it can do.

use core::ffi::{c_char, c_int};
use core::fmt;

use wharf_sys::bindings::{CUdevice, CUuuid};

use super::{DeviceAttribute, Driver};
use crate::error::{CudaError, Error};

/// A device of a [`Driver`].
///
/// Cheap to clone. May be used from any thread; nothing here needs a context.
#[derive(Clone)]
pub struct Device {
    driver: Driver,
    ordinal: i32,
    raw: CUdevice,
}

impl Device {
    pub(super) fn new(driver: &Driver, ordinal: i32) -> Result<Self, Error> {
        let mut raw: CUdevice = 0;
        // SAFETY: `raw` is valid for writes for the whole call.
        unsafe { driver.api().device_get.call(&raw mut raw, ordinal) }?;
        Ok(Self { driver: driver.clone(), ordinal, raw })
    }

    /// The device with the handle `raw`.
    pub(super) fn with_raw(driver: &Driver, raw: CUdevice) -> Result<Self, Error> {
        let devices = driver.devices()?;
        let found = devices.into_iter().find(|device| device.raw == raw);
        found.ok_or(Error::Driver {
            call: driver.api().device_get.name(),
            code: CudaError::INVALID_DEVICE,
        })
    }

    /// The driver that has this device.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The device's number, counted from 0.
    pub fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// The driver's handle.
    pub fn as_raw(&self) -> CUdevice {
        self.raw
    }

    /// The name, such as `NVIDIA H100 80GB HBM3`, shortened to 255 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceGetName")]
    pub fn name(&self) -> Result<String, Error> {
        let mut text: [c_char; 256] = [0; 256];
        // SAFETY: `text` is valid for writes of the 256 bytes that are announced.
        unsafe { self.driver.api().device_get_name.call(text.as_mut_ptr(), 256, self.raw) }?;
        let bytes: Vec<u8> =
            text.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether anything in the process, of this crate's or of other code's, retains the primary
    /// context.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Primary contexts][contexts]
    ///
    /// [contexts]: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html
    #[doc(alias = "cuDevicePrimaryCtxGetState")]
    pub fn is_primary_active(&self) -> Result<bool, Error> {
        let (mut flags, mut active) = (0, 0);
        let call = &self.driver.api().device_primary_ctx_get_state;
        // SAFETY: both are valid for writes for the whole call.
        unsafe { call.call(self.raw, &raw mut flags, &raw mut active) }?;
        Ok(active != 0)
    }

    /// The identifier that stays the same whatever the ordinals.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceGetUuid")]
    pub fn uuid(&self) -> Result<Uuid, Error> {
        let mut raw = CUuuid { bytes: [0; 16] };
        // SAFETY: `raw` is valid for writes for the whole call.
        unsafe { self.driver.api().device_get_uuid.call(&raw mut raw, self.raw) }?;
        Ok(Uuid(raw.bytes.map(|byte| byte.to_ne_bytes()[0])))
    }

    /// The device's memory in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceTotalMem")]
    pub fn total_memory(&self) -> Result<usize, Error> {
        let mut size: usize = 0;
        // SAFETY: `size` is valid for writes for the whole call.
        unsafe { self.driver.api().device_total_mem.call(&raw mut size, self.raw) }?;
        Ok(size)
    }

    /// The value of `attribute`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_VALUE`]: the driver does not know
    /// `attribute`.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceGetAttribute")]
    pub fn attribute(&self, attribute: DeviceAttribute) -> Result<i32, Error> {
        let mut value: c_int = 0;
        // SAFETY: `value` is valid for writes for the whole call.
        unsafe {
            self.driver.api().device_get_attribute.call(
                &raw mut value,
                attribute.as_raw(),
                self.raw,
            )
        }?;
        Ok(value)
    }

    /// Whether the device has `attribute`: its value is not 0.
    ///
    /// A driver that does not know `attribute` is older than the feature, so the answer is no.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    pub fn supports(&self, attribute: DeviceAttribute) -> Result<bool, Error> {
        match self.attribute(attribute) {
            Ok(value) => Ok(value != 0),
            Err(error) if error.code() == Some(CudaError::INVALID_VALUE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this device can be given access to memory of `other`. A device can to its own.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Peer access](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PEER__ACCESS.html)
    #[doc(alias = "cuDeviceCanAccessPeer")]
    pub fn can_access(&self, other: &Self) -> Result<bool, Error> {
        if self == other {
            return Ok(true);
        }
        let (mut can, entry) = (0, &self.driver.api().device_can_access_peer);
        // SAFETY: `can` is valid for writes for the whole call.
        unsafe { entry.call(&raw mut can, self.raw, other.raw) }?;
        Ok(can != 0)
    }

    /// The compute capability.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    pub fn compute_capability(&self) -> Result<ComputeCapability, Error> {
        Ok(ComputeCapability {
            major: self.attribute(DeviceAttribute::COMPUTE_CAPABILITY_MAJOR)?,
            minor: self.attribute(DeviceAttribute::COMPUTE_CAPABILITY_MINOR)?,
        })
    }
}

/// What code a device runs, such as 9.0; the higher runs all that the lower does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// The number before the point: the architecture.
    pub major: i32,
    /// The number behind the point.
    pub minor: i32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.ordinal).finish_non_exhaustive()
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.driver.api(), other.driver.api()) && self.raw == other.raw
    }
}

impl Eq for Device {}

/// The identifier of a device, 16 bytes.
///
/// Printed as `nvidia-smi` prints it.
///
/// # Examples
///
/// ```
/// let uuid = wharf::driver::Uuid::from_bytes([0xab; 16]);
/// assert_eq!(uuid.to_string(), "GPU-abababab-abab-abab-abab-abababababab");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The identifier with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order in which they are printed.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU")?;
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
