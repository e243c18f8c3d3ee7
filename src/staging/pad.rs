#![expect(unsafe_code, reason = "bytes of a ring slot are filled as words")]
//! Filling the tail of a slot.

use std::slice;

use super::len::Counts;
use super::plan::Bucket;
use super::spec::Padding;
use super::state::SlotState;
use crate::element::DType;

/// Which tails of a ring slot are filled, with a bit for each slot.
pub(super) struct Dirty {
    /// The slots whose tails are filled.
    pub(super) slots: u64,
    /// Those that the step has written; others are all tail.
    pub(super) written: u64,
    /// Those of which the tail is padding already behind as many elements as a step of `counts`
    /// has, if they are written.
    pub(super) steady: u64,
    pub(super) counts: Counts,
}

impl SlotState {
    /// Fills tails up to the ends that slots have in the bucket, as far as they are not padding.
    pub(super) fn pad(&mut self, bucket: Option<&Bucket>, dirty: &Dirty) {
        let [tokens, requests, ..] = self.counts;
        let steady = dirty.slots & dirty.written & dirty.steady;
        let has_grown = dirty.counts.is_within(Counts { tokens, requests });
        // The longer a step, the shorter are its tails.
        let mut left = if has_grown { dirty.slots & !steady } else { dirty.slots };
        let fields = bucket.map_or(&self.fields, |bucket| &bucket.fields);
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            let is_in = |slots: u64| slots & 1 << slot != 0;
            left &= left - 1;
            let (field, run) = (&fields[slot], self.runs[slot]);
            let end = if is_in(steady) { field.len.of_counts(dirty.counts) } else { usize::MAX };
            let start = if is_in(dirty.written) { run.len() } else { 0 };
            if start >= end {
                continue;
            }
            let width = field.dtype.map_or(1, DType::size);
            let bytes = field.span.size.min(end.saturating_mul(width));
            // SAFETY: the bytes lie in the span, whose offset is a multiple of 256; the claim of
            // the ring slot, which has this state, is borrowed alone.
            let bytes = unsafe { self.memory.elements(field.span, bytes) };
            fill(bytes, width, start, field.pad);
        }
    }
}

/// Fills `bytes` from the `written`-th element on, by the policy.
///
/// `width` is an element's size, 1, 2, 4 or 8; the slot starts at a multiple of 8.
#[inline]
pub(super) fn fill(bytes: &mut [u8], width: usize, written: usize, padding: Padding) {
    let start = written * width;
    if start >= bytes.len() {
        return;
    }
    let bits = match padding {
        Padding::Keep => return,
        Padding::Bits(bits) => bits,
        Padding::RepeatLast if written == 0 => 0,
        Padding::RepeatLast => {
            let mut last = [0; 8];
            last[..width].copy_from_slice(&bytes[start - width..start]);
            u64::from_ne_bytes(last)
        }
    };
    // Words are filled whole: the tail is on the path of every step that is not a bucket's size.
    let tail = &mut bytes[start..];
    let [a, b, c, d, ..] = bits.to_ne_bytes();
    match width {
        1 => tail.fill(a),
        2 => words(tail).fill(u16::from_ne_bytes([a, b])),
        4 => words(tail).fill(u32::from_ne_bytes([a, b, c, d])),
        _ => words(tail).fill(bits),
    }
}

/// Bytes as words; they start at one and are a whole number of them.
fn words<T: Word>(bytes: &mut [u8]) -> &mut [T] {
    debug_assert!(bytes.as_ptr().addr().is_multiple_of(size_of::<T>()));
    let len = bytes.len() / size_of::<T>();
    // SAFETY: so many words lie in the slice, which is borrowed alone; the slot starts at a
    // multiple of 8, and whole words follow. Any bytes are words.
    unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
}

trait Word {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled<const N: usize>(
        start: [u64; N],
        width: usize,
        written: usize,
        padding: Padding,
    ) -> Vec<u8> {
        let mut words = start;
        // SAFETY: the words' own bytes.
        let bytes = unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), 8 * N) };
        fill(bytes, width, written, padding);
        bytes.to_vec()
    }

    #[test]
    fn tails_follow_the_policy() {
        let ones = [u64::MAX; 2];
        assert_eq!(filled(ones, 4, 3, Padding::Bits(0)), [[255; 12].as_slice(), &[0; 4]].concat());
        assert_eq!(filled(ones, 1, 15, Padding::Bits(7)), [[255; 15].as_slice(), &[7]].concat());
        assert_eq!(filled([1, 0], 8, 1, Padding::RepeatLast), filled([1, 1], 8, 2, Padding::Keep));
        assert_eq!(filled([0x201, 5], 2, 1, Padding::RepeatLast)[..6], [1, 2, 1, 2, 1, 2]);
        assert_eq!(filled(ones, 2, 0, Padding::RepeatLast), [0; 16]);
        assert_eq!(filled(ones, 8, 1, Padding::Keep), [255; 16]);
        assert_eq!(filled(ones, 8, 2, Padding::Bits(0)), [255; 16]);
    }
}
