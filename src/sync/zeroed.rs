//! Tables that begin as zeros: the system gives their pages when they are first touched, so a table
//! for a large span costs nothing before the span is used.

#![expect(unsafe_code, reason = "memory of zeros becomes values")]

use std::alloc::{Layout, alloc_zeroed};
use std::ptr;

use super::primitives::atomic::{AtomicU32, AtomicU64};

/// Types of which zeros are a value.
///
/// # Safety
///
/// Bytes of zero are what [`zero`](Self::zero) returns, and there is nothing to drop.
pub(crate) unsafe trait Zeroed: Sized {
    /// The value of which all bytes are zero.
    fn zero() -> Self;
}

// SAFETY: an atomic has the representation of its integer, which needs no drop.
unsafe impl Zeroed for AtomicU32 {
    fn zero() -> Self {
        Self::new(0)
    }
}

// SAFETY: as above.
unsafe impl Zeroed for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }
}

/// A table of zeros; `None` if there is no memory for it, or not so many addresses.
pub(crate) fn zeroed<T: Zeroed>(len: usize) -> Option<Box<[T]>> {
    // The atomics of models are more than their numbers, and a table of nothing has no memory.
    if cfg!(all(test, loom)) || len == 0 {
        return Some((0..len).map(|_| T::zero()).collect());
    }
    let layout = Layout::array::<T>(len).ok()?;
    // SAFETY: the size is not 0: neither the length is, nor the size of an atomic.
    let table = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if table.is_null() {
        return None;
    }
    // SAFETY: allocated above with the layout of such a slice, and zeros are values of the type.
    Some(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(table, len)) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_zeros_and_may_be_empty() {
        let mut table = zeroed::<AtomicU64>(1000).unwrap();
        *table[999].get_mut() = 7;
        let words: Vec<u64> = table.into_iter().map(AtomicU64::into_inner).collect();
        assert!(words.len() == 1000 && words[..999].iter().all(|word| *word == 0));
        assert_eq!(words[999], 7);
        assert!(zeroed::<AtomicU32>(0).unwrap().is_empty());
    }

    #[test]
    fn a_table_that_no_memory_can_hold_is_none() {
        assert!(zeroed::<AtomicU64>(1 << 50).is_none());
        assert!(zeroed::<AtomicU64>(usize::MAX).is_none());
    }
}
