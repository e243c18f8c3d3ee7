#![expect(unsafe_code, reason = "asks the driver about an address")]
//! Where one copy has to end and the next begin.
//!
//! The driver refuses a copy or fill of host memory that begins in one registration and ends in
//! another (`CUDA_ERROR_INVALID_VALUE`). Every copy of this crate that may meet such a border is
//! cut by [`parts`].

use core::ffi::c_void;
use std::ops::Range;

use wharf_sys::bindings::{CUmemorytype, CUpointer_attribute};

use super::Stream;
use crate::error::CudaError;

/// The parts of `size` bytes that may each be copied at once; none if `size` is 0.
///
/// `reach(at, left)` says how many of the `left` bytes from `at` on lie in one piece of the memory,
/// for a copy in one piece of both sides.
pub(crate) fn parts(
    size: usize,
    reach: impl Fn(usize, usize) -> usize,
) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = size - at;
        let start = at;
        at += if left > 0 { reach(at, left).clamp(1, left) } else { 0 };
        (left > 0).then_some(start..at)
    })
}

/// The driver's view of the caller's host memory at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostRange {
    /// Pageable: the driver does not know it.
    Pageable,
    /// Allocated by or registered with the driver, with so many bytes left from the address on.
    Known(usize),
}

impl HostRange {
    /// How many of `left` bytes one copy may take.
    pub(crate) fn reach(self, left: usize) -> usize {
        match self {
            Self::Pageable => left,
            Self::Known(rest) => left.min(rest),
        }
    }
}

impl Stream {
    /// Asks the driver about host memory. In doubt the driver knows it, all of it in one piece.
    pub(crate) fn host_memory(&self, address: u64) -> HostRange {
        let in_doubt = HostRange::Known(usize::MAX);
        let Ok(_scope) = self.context.enter() else { return in_doubt };
        let (mut kind, mut device, mut start, mut size) = (0_u32, 0_u64, 0_u64, 0_usize);
        let mut attributes = [
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
        ];
        let mut values: [*mut c_void; 4] = [
            (&raw mut kind).cast(),
            (&raw mut device).cast(),
            (&raw mut start).cast(),
            (&raw mut size).cast(),
        ];
        let entry = &self.context.driver().api().pointer_get_attributes;
        // SAFETY: four attributes and four places for values of their sizes; the address is only
        // looked up.
        let asked = unsafe { entry.call(4, attributes.as_mut_ptr(), values.as_mut_ptr(), address) };
        match asked {
            // "The attributes are assigned default NULL values" where the driver does not know it.
            Ok(()) if kind == 0 => HostRange::Pageable,
            Err(error) if error.code() == Some(CudaError::INVALID_VALUE) => HostRange::Pageable,
            Ok(()) if kind == CUmemorytype::CU_MEMORYTYPE_HOST.0 => {
                let end = start.checked_add(size as u64);
                let rest = end.and_then(|end| end.checked_sub(device)).filter(|rest| *rest > 0);
                rest.and_then(|rest| usize::try_from(rest).ok()).map_or(in_doubt, HostRange::Known)
            }
            _ => in_doubt,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_either_side_does() {
        let side = |border: usize| move |at: usize, left: usize| left.min(border - at % border);
        let (to, from) = (side(10), side(4));
        let cut =
            |size| parts(size, |at, left| to(at, left).min(from(at + 1, left))).collect::<Vec<_>>();
        assert_eq!(cut(0), []);
        assert_eq!(cut(4), [0..3, 3..4]);
        assert_eq!(cut(12), [0..3, 3..7, 7..10, 10..11, 11..12]);
    }

    #[test]
    fn a_reach_of_nothing_or_of_too_much_ends() {
        assert_eq!(parts(2, |_, _| 0).collect::<Vec<_>>(), [0..1, 1..2]);
        assert_eq!(parts(2, |_, _| usize::MAX).count(), 1);
    }
}
