//! One input of a step: what is written to it, and what the device must then have.

use wharf::element::Element;
use wharf::staging::{Counts, InputBuffers, Len, Pad, SlotError, SlotId, Staged, Step};

/// An input of whatever type.
pub(super) trait Field {
    /// Writes what the input has in the step `number`; how many bytes.
    fn write(&self, step: &mut Step<'_>, number: u64) -> usize;

    /// Its bytes in a step of these counts.
    fn size(&self, counts: Counts) -> usize;

    /// Where the device has it, and how many bytes with padding.
    fn place(&self, staged: &Staged<'_>) -> (u64, usize);

    /// The number of wrong bytes in `found`, which was read from there.
    fn mismatches(&self, found: &[u8], number: u64, counts: Counts, padded: Counts) -> u64;
}

/// An input with elements of type `T`.
pub(super) struct Typed<T> {
    id: SlotId<T>,
    len: Len,
    pad: Pad<T>,
}

/// A type that inputs have.
pub(super) trait Value: Element + Copy + PartialEq + 'static {
    /// Some value for `word`.
    fn of(word: u64) -> Self;
    /// The value with these bytes.
    fn read(bytes: &[u8]) -> Self;
    /// No value: what padding is by default.
    const ZERO: Self;
}

macro_rules! value {
    ($type:ty, $zero:expr, $of:expr) => {
        impl Value for $type {
            fn of(word: u64) -> Self {
                let of: fn(u64) -> Self = $of;
                of(word)
            }

            fn read(bytes: &[u8]) -> Self {
                bytes.try_into().map_or($zero, Self::from_ne_bytes)
            }

            const ZERO: Self = $zero;
        }
    };
}

value!(i32, 0, |word| i32::try_from(word & 0x7fff_ffff).unwrap_or(0));
value!(i64, 0, u64::cast_signed);

impl<T: Value> Typed<T> {
    pub(super) fn new(
        buffers: &InputBuffers,
        name: &str,
        len: Len,
        pad: Pad<T>,
    ) -> Result<Self, SlotError> {
        Ok(Self { id: buffers.slot_id(name)?, len, pad })
    }

    fn value(&self, number: u64, index: usize) -> T {
        T::of(
            (number ^ (self.id.index() as u64) << 48).wrapping_add(index as u64).wrapping_mul(ODD)
                >> 8,
        )
    }
}

impl<T: Value> Field for Typed<T> {
    fn write(&self, step: &mut Step<'_>, number: u64) -> usize {
        let elements = step.write(self.id);
        for (index, element) in elements.iter_mut().enumerate() {
            *element = self.value(number, index);
        }
        size_of_val(elements)
    }

    fn size(&self, counts: Counts) -> usize {
        self.len.of(counts).unwrap_or(0) * size_of::<T>()
    }

    fn place(&self, staged: &Staged<'_>) -> (u64, usize) {
        (staged.device_ptr(self.id), self.size(staged.padded()))
    }

    fn mismatches(&self, found: &[u8], number: u64, counts: Counts, padded: Counts) -> u64 {
        let [len, all] = [counts, padded].map(|counts| self.len.of(counts).unwrap_or(0));
        let tail = match self.pad {
            Pad::Value(value) => Some(value),
            Pad::Zero => Some(T::ZERO),
            Pad::RepeatLast if len > 0 => Some(self.value(number, len - 1)),
            Pad::RepeatLast => Some(T::ZERO),
            // Whatever an earlier step left there is right.
            Pad::Keep => None,
        };
        let wrong =
            found.chunks_exact(size_of::<T>()).take(all).enumerate().filter(|(index, bytes)| {
                let wanted = if *index < len { Some(self.value(number, *index)) } else { tail };
                wanted.is_some_and(|wanted| wanted != T::read(bytes))
            });
        wrong.count() as u64 * size_of::<T>() as u64
    }
}

/// Spreads neighbouring numbers over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
