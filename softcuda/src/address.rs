//! Addresses as numbers, and back.

use core::ptr;

/// The number as wide as a pointer, which is 64 bits wherever wharf-sys compiles.
#[expect(
    clippy::cast_possible_truncation,
    reason = "wharf-sys refuses targets that are not 64 bits wide"
)]
pub(crate) fn width(address: u64) -> usize {
    address as usize
}

/// The pointer to memory that the program, or this driver, has made known by address.
pub(crate) fn pointer<T>(address: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(width(address))
}
