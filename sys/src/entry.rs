#![expect(unsafe_code, reason = "calls through C function pointers")]
//! One entry point: its name, its version and, when the driver has it, its address.

use core::ffi::c_void;
use core::fmt;

use crate::bindings::CUresult;
use crate::code::CudaError;
use crate::error::Error;
use crate::process::Home;

/// An entry point of the driver with the signature of `P`, an optional function pointer.
///
/// `call` takes the arguments of the driver API reference and turns the result into a
/// [`Result`]: an entry point that the driver lacks is [`Error::Unsupported`], never a jump
/// through null, and every call of a forked child is [`Error::Forked`] and does not reach the
/// driver.
///
/// # Examples
///
/// ```
/// # fn version(api: &wharf_sys::Api) -> Result<i32, wharf_sys::Error> {
/// let mut version = 0;
/// // SAFETY: `version` is valid for writes for the whole call.
/// unsafe { api.driver_get_version.call(&raw mut version) }?;
/// # Ok(version)
/// # }
/// ```
pub struct Entry<P> {
    name: &'static str,
    introduced: u32,
    function: P,
    home: Home,
}

impl<P: Signature> Entry<P> {
    /// # Safety
    ///
    /// `address` is null or a function with the signature of `P`, callable as long as this.
    pub(crate) unsafe fn new(
        name: &'static str,
        introduced: u32,
        address: *mut c_void,
        home: Home,
    ) -> Self {
        // SAFETY: the caller's promise is the callee's precondition.
        let function = unsafe { P::from_address(address) };
        Self { name, introduced, function, home }
    }

    /// Whether the loaded driver has this entry point at this version.
    pub fn is_available(&self) -> bool {
        self.function.is_available()
    }
}

impl<P> Entry<P> {
    /// The name in the driver API reference.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The CUDA version whose signature this is, as 1000 * major + 10 * minor.
    pub fn introduced(&self) -> u32 {
        self.introduced
    }

    #[cold]
    fn unsupported(&self) -> Error {
        Error::Unsupported { call: self.name, introduced: self.introduced }
    }

    #[inline]
    fn check(&self, result: CUresult) -> Result<(), Error> {
        match CudaError::new(result) {
            None => Ok(()),
            Some(code) => Err(Error::Driver { call: self.name, code }),
        }
    }
}

impl<P: Signature> fmt::Debug for Entry<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_available() { "available" } else { "absent" };
        write!(f, "{} {}: {state}", self.name, self.introduced)
    }
}

/// A driver signature: an optional `unsafe extern "C"` function that returns a [`CUresult`].
///
/// Sealed: implemented for the arities that the driver has.
pub trait Signature: sealed::Sealed + Copy {
    /// Makes the function pointer of `address`.
    ///
    /// # Safety
    ///
    /// `address` is null or a function with this signature.
    unsafe fn from_address(address: *mut c_void) -> Self;
    /// Whether there is a function.
    fn is_available(self) -> bool;
}

mod sealed {
    #[expect(unnameable_types, reason = "the point of a sealed trait")]
    pub trait Sealed {}
}

macro_rules! signatures {
    ($(($($argument:ident)*))+) => {$(
        impl<$($argument),*> sealed::Sealed
            for Option<unsafe extern "C" fn($($argument),*) -> CUresult>
        {
        }

        impl<$($argument),*> Signature
            for Option<unsafe extern "C" fn($($argument),*) -> CUresult>
        {
            unsafe fn from_address(address: *mut c_void) -> Self {
                // SAFETY: an optional function pointer has the size of a pointer and null is
                // `None`; the signature is the caller's promise.
                unsafe { core::mem::transmute::<*mut c_void, Self>(address) }
            }

            fn is_available(self) -> bool {
                self.is_some()
            }
        }

        impl<$($argument),*> Entry<Option<unsafe extern "C" fn($($argument),*) -> CUresult>> {
            /// Calls the driver.
            ///
            /// # Errors
            ///
            /// * [`Error::Driver`]: the driver returned something other than `CUDA_SUCCESS`.
            /// * [`Error::Unsupported`]: the driver has no such entry point.
            /// * [`Error::Forked`]: this process is a fork of the one that loaded the driver.
            ///
            /// # Safety
            ///
            /// * The arguments satisfy what the driver API reference asks of this call:
            ///   pointers are valid for what it reads and writes, and for as long.
            /// * Handles belong to the driver of this table and are not destroyed.
            ///
            /// Null or stale handles that the reference answers with an error code are allowed.
            #[inline]
            #[allow(clippy::allow_attributes, reason = "the short arities need neither of these")]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "named after its type")]
            pub unsafe fn call(&self, $($argument: $argument),*) -> Result<(), Error> {
                let Some(function) = self.function else { return Err(self.unsupported()) };
                self.home.check()?;
                // SAFETY: the caller's promise is the callee's precondition.
                let result = unsafe { function($($argument),*) };
                self.check(result)
            }
        }
    )+};
}

signatures! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
    (A B C D E F G H I)
}
