//! Addresses and lengths: `u64` where the driver, the device or an atomic word holds them, `usize`
//! where Rust does. Both have 64 bits on every platform that this crate supports.

const _: () = assert!(usize::BITS == 64, "addresses and lengths are converted without a check");

/// An address or a length as `usize`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both types have 64 bits, as asserted above")]
pub(crate) const fn to_usize(value: u64) -> usize {
    value as usize
}
