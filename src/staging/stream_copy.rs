#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "stores past the caches"))]
//! Copying into a ring slot.
//!
//! Non-temporal stores keep data that the host never reads again out of the caches. Ordinary stores
//! were measured to be faster up to 1 MiB (`bench/staging.sh`), so only fields of [`STREAMED`]
//! bytes and more, which the caches could not hold in any case, bypass them.

/// Copies `from` to `to`, which are of one length and do not overlap.
#[inline]
pub(super) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    if size_of_val(from) >= STREAMED && to.len() == from.len() {
        stream(to, from);
    } else {
        to.copy_from_slice(from);
    }
}

/// 16 bytes at a time, past the caches.
#[cfg(target_arch = "x86_64")]
fn stream<T: Copy>(to: &mut [T], from: &[T]) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let (size, unit) = (size_of_val(from), size_of::<__m128i>());
    let (source, target) = (from.as_ptr().cast::<u8>(), to.as_mut_ptr().cast::<u8>());
    // Stores go to multiples of 16; slots start at multiples of 256, so there is nothing before.
    let whole = if target.addr().is_multiple_of(unit) { size / unit } else { 0 };
    for at in 0..whole {
        // SAFETY: within `from`; loads need no alignment.
        let value = unsafe { _mm_loadu_si128(source.wrapping_add(at * unit).cast()) };
        // SAFETY: within `to`, and a multiple of 16.
        unsafe { _mm_stream_si128(target.wrapping_add(at * unit).cast(), value) };
    }
    // Without the fence these stores are not ordered before a later store, such as a doorbell.
    // SAFETY: every x86-64 has it.
    unsafe { _mm_sfence() };
    let done = whole * unit;
    let (source, target) = (source.wrapping_add(done), target.wrapping_add(done));
    // SAFETY: the rest of the two slices, which do not overlap: one is borrowed alone.
    unsafe { core::ptr::copy_nonoverlapping(source, target, size - done) };
}

#[cfg(not(target_arch = "x86_64"))]
fn stream<T: Copy>(to: &mut [T], from: &[T]) {
    to.copy_from_slice(from);
}

/// Copies of at least this many bytes bypass the caches.
pub(super) const STREAMED: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_copies_are_copies() {
        for len in [0, 1, 7, STREAMED / 4, STREAMED / 4 + 1, STREAMED / 4 + 3] {
            let from: Vec<u32> = (0..).take(len).collect();
            for shift in 0..4 {
                let mut to = vec![u32::MAX; len + shift];
                copy(&mut to[shift..], &from);
                assert_eq!(to[shift..], from);
            }
        }
    }
}
