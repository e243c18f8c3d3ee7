//! From a request's size to the size of the block that serves it.
//!
//! Steps of 256 bytes up to 1 KiB, then four classes a doubling, as in jemalloc and snmalloc:
//! above 1 KiB a block is at most a quarter larger than the next smaller one, so at most 20 % of
//! it is wasted, and under 9 % on average over sizes spread evenly on a logarithmic scale. Blocks
//! above 128 KiB are runs of slices of their own, and have steps of one slice up to 512 KiB, of two
//! up to 1 MiB. Above there are no classes.
//!
//! ```text
//!   class      0    1    2     3     4     5     6     7     8        31       43       51
//!   bytes    256  512  768  1024  1280  1536  1792  2048  2560  ... 128 Ki   512 Ki    1 Mi
//!                           |<-- 4 << 8 .. 7 << 8 -->|<-- 4 << 9 ...    + 32 Ki  + 64 Ki
//! ```

use std::fmt;

use crate::address::to_usize;

/// The size class of a block: which of the fixed block sizes it has.
///
/// # Examples
///
/// ```
/// use wharf::slab::SizeClass;
///
/// let class = SizeClass::of(5000).unwrap();
/// assert_eq!(class.block_size(), 5120);
/// assert_eq!(SizeClass::of(2 << 20), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeClass(u8);

impl SizeClass {
    /// How many classes there are.
    pub const COUNT: usize = 52;

    /// How many of them have slabs of several blocks; the others' blocks are runs of their own.
    pub(crate) const SHARED: usize = 32;

    /// The smallest class whose blocks hold `size` bytes, `None` above 1 MiB.
    #[inline]
    pub fn of(size: usize) -> Option<Self> {
        // One load instead of about eleven instructions of bit counting. No division that rounds
        // up, which is three more: 0 wraps to a number that has no entry.
        match TABLE.get(size.wrapping_sub(1) / STEP) {
            Some(&class) => Some(Self(class)),
            None => Self::of_none(size),
        }
    }

    /// The class of a size that is in no step of the table.
    #[cold]
    fn of_none(size: usize) -> Option<Self> {
        (size == 0).then_some(Self(0))
    }

    /// The smallest class of which several blocks share a slab, `None` above 128 KiB.
    #[inline]
    pub(crate) fn shared(size: usize) -> Option<Self> {
        Self::of(size).filter(|class| class.index() < Self::SHARED)
    }

    /// The smallest class for `size` bytes of which every block starts at a multiple of
    /// `align`, a power of two, in a slab that does. `None` above 1 MiB.
    pub fn aligned(size: usize, align: usize) -> Option<Self> {
        let mut class = Self::of(size.max(align))?;
        while !class.block_size().is_multiple_of(align) {
            class = class.next()?;
        }
        Some(class)
    }

    /// The size of the class's blocks, in bytes.
    #[inline]
    pub fn block_size(self) -> usize {
        SIZES[usize::from(self.0) % Self::COUNT]
    }

    /// The number of the block that starts `offset` bytes into a slab, or that the byte there lies
    /// in.
    ///
    /// `offset / block_size` without the division: exact for offsets below 2^33, more than a slab
    /// has.
    #[inline]
    pub(super) fn block_at(self, offset: u64) -> usize {
        let steps = offset / STEP as u64;
        // Less than a 2^40th too large for each step, so never a whole block's worth.
        to_usize((steps * RECIPROCALS[usize::from(self.0) % Self::COUNT]) >> RECIPROCAL_BITS)
    }

    /// The class's number, from 0, smallest blocks first.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// All classes, smallest blocks first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).filter_map(Self::from_index)
    }

    /// The class with a number.
    #[inline]
    pub(crate) fn from_index(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|_| index < Self::COUNT).map(Self)
    }

    /// The class's number as state words and block handles store it.
    #[inline]
    pub(crate) fn number(self) -> u8 {
        self.0
    }

    /// The next larger class.
    pub(crate) fn next(self) -> Option<Self> {
        Self::from_index(self.index() + 1)
    }
}

impl fmt::Debug for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SizeClass({} B)", self.block_size())
    }
}

impl fmt::Display for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.block_size())
    }
}

/// The unit of block sizes, and the least alignment of a block.
pub(crate) const STEP: usize = 256;

/// The difference of classes above 128 KiB: a slice. From 512 KiB on, two.
const WIDE_STEP: usize = 32 << 10;

/// The class of 512 KiB.
const LAST_WIDE: usize = 43;

/// The largest size that has a class.
const TABLE_MAX: usize = 1 << 20;

/// Class by the step in which the last byte is.
static TABLE: [u8; TABLE_MAX / STEP] = {
    let mut table = [0; TABLE_MAX / STEP];
    let mut step = 0;
    while step < table.len() {
        #[expect(clippy::cast_possible_truncation, reason = "a class number below 64")]
        let class = class_of((step + 1) * STEP) as u8;
        table[step] = class;
        step += 1;
    }
    table
};

static SIZES: [usize; SizeClass::COUNT] = {
    let mut sizes = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < sizes.len() {
        sizes[class] = block_size(class);
        class += 1;
    }
    sizes
};

/// 2^40 over the steps in a block, rounded up.
static RECIPROCALS: [u64; SizeClass::COUNT] = {
    let mut reciprocals = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < reciprocals.len() {
        reciprocals[class] = (1_u64 << RECIPROCAL_BITS).div_ceil((block_size(class) / STEP) as u64);
        class += 1;
    }
    reciprocals
};

const RECIPROCAL_BITS: u32 = 40;

/// Above 3 steps: a mantissa of 4 to 7 and an exponent; above 128 KiB, linear.
pub(super) const fn block_size(class: usize) -> usize {
    if class < 3 {
        return (class + 1) * STEP;
    }
    if class > LAST_WIDE {
        return (512 << 10) + (class - LAST_WIDE) * WIDE_STEP * 2;
    }
    if class >= SizeClass::SHARED {
        return (128 << 10) + (class + 1 - SizeClass::SHARED) * WIDE_STEP;
    }
    let (doubling, quarter) = ((class - 3) / 4, (class - 3) % 4);
    (4 + quarter) << (8 + doubling)
}

/// The inverse of `block_size`, rounded up. `size` is at least 1 and at most [`TABLE_MAX`].
const fn class_of(size: usize) -> usize {
    let last = size - 1;
    if last < 4 * STEP {
        return last / STEP;
    }
    if last >= 512 << 10 {
        return LAST_WIDE + 1 + (last - (512 << 10)) / (WIDE_STEP * 2);
    }
    if last >= 128 << 10 {
        return SizeClass::SHARED + (last - (128 << 10)) / WIDE_STEP;
    }
    let exponent = last.ilog2() as usize;
    let quarter = (last >> (exponent - 2)) - 4;
    (exponent - 10) * 4 + quarter + 4
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_class_that_fits() {
        for size in (1..300_000)
            .chain((512 << 10) - 3..(512 << 10) + 300)
            .chain((1 << 20) - 70_000..=1 << 20)
        {
            let class = SizeClass::of(size).unwrap();
            assert!(class.block_size() >= size, "{size}: {class:?}");
            if class.index() > 0 {
                let smaller = SizeClass::from_index(class.index() - 1).unwrap();
                assert!(smaller.block_size() < size, "{size}: {class:?}");
            }
        }
        assert_eq!(SizeClass::of(0), SizeClass::of(1));
        assert_eq!(SizeClass::of((1 << 20) + 1), None);
        assert_eq!(SizeClass::of(usize::MAX), None);
    }

    #[test]
    fn a_block_is_found_by_its_offset() {
        for class in SizeClass::all() {
            let size = class.block_size();
            for block in (0..(8 << 20) / size).step_by(1 + (1 << 18) / size) {
                let start = block * size;
                for offset in [start, start + 1, start + size / 2, start + size - 1] {
                    assert_eq!(class.block_at(offset as u64), block, "{class:?} at {offset}");
                }
            }
        }
    }

    #[test]
    fn blocks_start_at_multiples_of_the_alignment() {
        for align in (0..=20).map(|bits| 1 << bits) {
            for size in [1, 255, 256, 257, 5000, 70_000, 512 << 10] {
                let class = SizeClass::aligned(size, align).unwrap();
                assert!(class.block_size() >= size && class.block_size().is_multiple_of(align));
            }
        }
        assert_eq!(SizeClass::aligned(1, 64 << 20), None);
        assert_eq!(SizeClass::aligned(1300, 512).map(SizeClass::block_size), Some(1536));
    }
}
