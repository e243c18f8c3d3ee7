//! To and from the handles of the crate `cuda-driver-sys`, for engines that have it.
//!
//! Both crates bind the same driver, so a handle is the same pointer under two types.
//! Device addresses (`CUdeviceptr`), devices (`CUdevice`) and allocation handles
//! (`CUmemGenericAllocationHandle`) are the same integers in both and need no conversion.
//!
//! # Examples
//!
//! ```no_run
//! use wharf::driver::compat::Raw;
//! use wharf::{Context, Driver, Stream};
//!
//! fn adopt(theirs: cuda_driver_sys::CUstream, context: &Context) -> Stream {
//!     // SAFETY: the engine's stream is of this context, and outlives what uses the result.
//!     unsafe { Stream::borrow_raw(Raw::from(theirs).0, context) }
//! }
//!
//! fn lend(ours: &Stream) -> cuda_driver_sys::CUstream {
//!     ours.into()
//! }
//! ```

use core::ffi::c_int;

use wharf_sys::bindings as ours;

use super::{Context, Device, Event, Uuid};

/// A handle in the types of [`wharf_sys`], on its way to or from those of `cuda-driver-sys`.
///
/// # Examples
///
/// ```no_run
/// use wharf::driver::compat::Raw;
///
/// let ours: wharf::sys::bindings::CUevent = std::ptr::null_mut();
/// let theirs: cuda_driver_sys::CUevent = Raw(ours).into();
/// assert_eq!(Raw::from(theirs), Raw(ours));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Raw<T>(pub T);

macro_rules! handles {
    ($($name:ident)+) => {$(
        impl From<cuda_driver_sys::$name> for Raw<ours::$name> {
            fn from(theirs: cuda_driver_sys::$name) -> Self {
                Self(theirs.cast())
            }
        }

        impl From<Raw<ours::$name>> for cuda_driver_sys::$name {
            fn from(ours: Raw<ours::$name>) -> Self {
                ours.0.cast()
            }
        }
    )+};
}

handles! {
    CUcontext
    CUmodule
    CUfunction
    CUarray
    CUmipmappedArray
    CUtexref
    CUsurfref
    CUevent
    CUstream
    CUgraphicsResource
    CUexternalSemaphore
    CUgraph
    CUgraphNode
    CUgraphExec
    CUlinkState
}

macro_rules! exports {
    ($($ours:ident $theirs:ident)+) => {$(
        impl From<cuda_driver_sys::$theirs> for Raw<ours::$ours> {
            fn from(theirs: cuda_driver_sys::$theirs) -> Self {
                Self(ours::$ours { reserved: theirs.reserved })
            }
        }

        impl From<Raw<ours::$ours>> for cuda_driver_sys::$theirs {
            fn from(ours: Raw<ours::$ours>) -> Self {
                Self { reserved: ours.0.reserved }
            }
        }
    )+};
}

exports! {
    CUipcEventHandle_v1 CUipcEventHandle
    CUipcMemHandle_v1 CUipcMemHandle
}

/// A result code; there is no way back, since that crate's enum has no place for codes that it
/// does not know.
impl From<cuda_driver_sys::CUresult> for Raw<ours::CUresult> {
    fn from(theirs: cuda_driver_sys::CUresult) -> Self {
        Self(ours::CUresult(theirs as u32))
    }
}

impl From<cuda_driver_sys::CUuuid> for Uuid {
    fn from(theirs: cuda_driver_sys::CUuuid) -> Self {
        Self::from_bytes(theirs.bytes.map(|byte| byte.to_ne_bytes()[0]))
    }
}

impl From<Uuid> for cuda_driver_sys::CUuuid {
    fn from(ours: Uuid) -> Self {
        Self { bytes: ours.to_bytes().map(|byte| core::ffi::c_char::from_ne_bytes([byte])) }
    }
}

impl From<&Device> for c_int {
    fn from(device: &Device) -> Self {
        device.as_raw()
    }
}

impl From<&Context> for cuda_driver_sys::CUcontext {
    fn from(context: &Context) -> Self {
        Raw(context.as_raw()).into()
    }
}

impl From<&Event> for cuda_driver_sys::CUevent {
    fn from(event: &Event) -> Self {
        Raw(event.as_raw()).into()
    }
}
