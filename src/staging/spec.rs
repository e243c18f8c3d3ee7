//! The description of a slot: type, length, padding, policy.

#![expect(unsafe_code, reason = "values become their bytes")]

use crate::element::{DType, Element};

use super::len::{Len, Rule};

/// The contents of a slot behind a step's elements, up to the length of its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pad<T> {
    /// Zeros.
    #[default]
    Zero,
    /// This value, again and again.
    Value(T),
    /// The last element again and again; zeros if the step has none.
    RepeatLast,
    /// Whatever earlier steps left there: for elements that no kernel reads.
    Keep,
}

/// The policy for a slot that a step did not write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forgotten {
    /// The step fails, and the error names the slot.
    #[default]
    Error,
    /// The device keeps what an earlier step put there. Costs a driver call to skip the copy and
    /// one to take it up again, or before CUDA 11.6 the graph: such steps are copied without. Needs
    /// [`Layout::PerSlot`](super::Layout).
    Keep,
    /// It is all padding.
    Pad,
}

/// Where the device finds a slot's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SlotKind {
    /// In device memory, to which each step copies.
    Copied,
    /// In pinned memory, which the device reads where the host wrote it.
    ZeroCopy,
    /// Wherever the step says.
    Dynamic,
    /// In device memory that the device alone writes.
    DeviceOnly,
    /// In device memory that keeps its contents, and of which a step sends what changed.
    Persistent,
}

/// One slot of a set.
#[derive(Clone, Debug)]
pub(super) struct SlotSpec {
    pub(super) name: Box<str>,
    pub(super) dtype: DType,
    /// Its length as the builder was told it.
    pub(super) declared: Len,
    /// How many elements it has in a step.
    pub(super) len: Rule,
    /// The most that it has in a step of some tokens and requests: another rule for counts by name.
    pub(super) most: Rule,
    pub(super) pad: Padding,
    pub(super) forgotten: Option<Forgotten>,
    pub(super) kind: SlotKind,
    /// Where its device memory is, if that is not the set's.
    pub(super) device: Option<u64>,
    /// Its shape, where that is more than a length.
    pub(super) shape: Shape,
}

/// What of a slot is not said by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many rows of its length it has.
    pub(super) rows: usize,
    /// From one row to the next on the device where it is the same in all steps, in bytes.
    pub(super) stride: usize,
    /// How many elements of a persistent table a step may change.
    pub(super) patched: usize,
    /// Which of the tables it is.
    pub(super) table: usize,
    /// Where the device memory starts that no copy covers, in bytes of the set's.
    pub(super) place: usize,
    /// How many bytes there are at its device address, if that is another set's.
    pub(super) room: Option<usize>,
    /// Whether the device overwrites it behind the copy.
    pub(super) is_overwritten: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rows: 1,
            stride: 0,
            patched: 0,
            table: 0,
            place: 0,
            room: None,
            is_overwritten: false,
        }
    }
}

impl Shape {
    /// The elements of a table that a step has room for.
    pub(super) fn area(&self) -> Len {
        Len::Fixed(self.patched)
    }
}

/// A count of a step besides tokens and requests.
#[derive(Clone, Debug)]
pub(super) struct CountSpec {
    pub(super) name: Box<str>,
    /// The most that a step of some size has.
    pub(super) most: Rule,
}

impl SlotSpec {
    /// Whether it has device memory of the set that copies cover.
    pub(super) fn has_device_memory(&self) -> bool {
        self.kind == SlotKind::Copied && self.device.is_none()
    }

    /// Whether a step writes it, or passes it through.
    pub(super) fn is_of_steps(&self) -> bool {
        !matches!(self.kind, SlotKind::DeviceOnly | SlotKind::Persistent)
    }

    /// Whether a step has memory for its elements.
    pub(super) fn is_staged(&self) -> bool {
        matches!(self.kind, SlotKind::Copied | SlotKind::ZeroCopy)
    }
}

/// A padding with its type forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Bits(u64),
    RepeatLast,
    Keep,
}

impl Padding {
    pub(super) fn of<T: Element>(pad: Pad<T>) -> Self {
        match pad {
            Pad::Zero => Self::Bits(0),
            Pad::Value(value) => Self::Bits(bits(value)),
            Pad::RepeatLast => Self::RepeatLast,
            Pad::Keep => Self::Keep,
        }
    }
}

/// The bytes of a value, as the low end of a number in the machine's order.
fn bits<T: Element>(value: T) -> u64 {
    const { assert!(size_of::<T>() <= 8, "element types have 8 bytes at most") };
    let mut bytes = [0; 8];
    // SAFETY: an element has no padding, and at most 8 bytes, of which the array has room for all.
    unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_their_bytes() {
        assert_eq!(
            Padding::of(Pad::Value(-1_i32)),
            Padding::Bits(u64::from_ne_bytes([255, 255, 255, 255, 0, 0, 0, 0]))
        );
        assert_eq!(Padding::of(Pad::Value(1_u64 << 40)), Padding::Bits(1 << 40));
        assert_eq!(Padding::of(Pad::<u8>::Zero), Padding::Bits(0));
    }
}
