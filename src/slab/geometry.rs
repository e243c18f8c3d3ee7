//! How a span is cut: granules, runs of granules, and the blocks of each class in a run.
//!
//! ```text
//!   span     | granule | granule | granule | granule | ...     2 MiB each, say
//!   run      |  slab of 320 KiB  |         | large block ...   1 to 8 granules a slab
//!   blocks   |0|1|2|3|4|5|...|31 |
//! ```

use super::size_class::{STEP, SizeClass};
use crate::lockfree::slab_state::MAX_CAPACITY;

/// The class number of a run that is one large block.
pub(crate) const LARGE: u8 = u8::MAX;

/// Slabs are at most this many granules; larger blocks have runs of their own.
pub(crate) const MAX_SLAB_GRANULES: usize = 8;

/// The cut of one span; constant for the life of a pool.
#[derive(Debug)]
pub(crate) struct Geometry {
    base: usize,
    granule_shift: u32,
    granules: usize,
    slabs: [SlabShape; SizeClass::COUNT],
}

/// The slabs of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlabShape {
    /// Granules in a slab.
    pub(crate) granules: usize,
    /// Blocks in a slab; 0 if the class is too large for this granule.
    pub(crate) capacity: u32,
}

impl Geometry {
    /// Granules that a span may be cut into, in bytes: powers of two in this range.
    pub(crate) const GRANULES: std::ops::RangeInclusive<usize> = 4 << 10..=4 << 20;

    /// The cut of `granules` granules of `granule` bytes from `base` on.
    pub(crate) fn new(base: usize, granule: usize, granules: usize) -> Self {
        let mut slabs = [SlabShape::default(); SizeClass::COUNT];
        for class in SizeClass::all() {
            slabs[class.index()] = SlabShape::new(class.block_size(), granule);
        }
        Self { base, granule_shift: granule.trailing_zeros(), granules, slabs }
    }

    /// Bytes in a granule.
    pub(crate) fn granule(&self) -> usize {
        1 << self.granule_shift
    }

    /// Granules in the span.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    /// The largest alignment that any block of this span can have.
    pub(crate) fn max_align(&self) -> usize {
        1 << self.base.trailing_zeros()
    }

    /// The slabs of `class`; `None` if its blocks are served by runs of their own.
    pub(crate) fn slab(&self, class: SizeClass) -> Option<SlabShape> {
        Some(self.slabs[class.index()]).filter(|shape| shape.capacity > 0)
    }

    /// Granules that hold `size` bytes.
    pub(crate) fn granules_for(&self, size: usize) -> usize {
        size.div_ceil(self.granule()).max(1)
    }

    /// The offset of a granule in the span, in bytes; also the length of as many granules.
    pub(crate) fn offset(&self, granule: usize) -> usize {
        granule << self.granule_shift
    }

    /// The address of a granule.
    pub(crate) fn address(&self, granule: usize) -> usize {
        self.base + self.offset(granule)
    }

    /// The granule that an address lies in, `None` outside the span.
    pub(crate) fn granule_at(&self, address: usize) -> Option<usize> {
        let granule = address.checked_sub(self.base)? >> self.granule_shift;
        (granule < self.granules).then_some(granule)
    }
}

impl SlabShape {
    /// The fewest granules of which at most a sixteenth is left over behind the last block.
    ///
    /// Eight always do for blocks of up to eight granules: a block is 4, 5, 6 or 7 times a
    /// power of two, and 1, 5, 3 or 7 granules hold a whole number of those that do not fit
    /// sixteen times into one.
    fn new(block: usize, granule: usize) -> Self {
        for granules in 1..=MAX_SLAB_GRANULES {
            let size = granules * granule;
            if size >= block && size % block <= size / 16 {
                let capacity = u32::try_from(size / block).map_or(MAX_CAPACITY, |n| n.min(MAX_CAPACITY));
                return Self { granules, capacity };
            }
        }
        Self::default()
    }
}

/// The blocks in the largest slab of one granule.
pub(crate) fn most_blocks(granule: usize) -> usize {
    granule / STEP
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slabs_waste_little_and_cover_all_classes_up_to_eight_granules() {
        for granule in [4 << 10, 64 << 10, 2 << 20, 4 << 20] {
            let geometry = Geometry::new(1 << 40, granule, 100);
            for class in SizeClass::all() {
                let fits = class.block_size() <= MAX_SLAB_GRANULES * granule;
                let Some(shape) = geometry.slab(class) else {
                    assert!(!fits, "{class:?} of {granule}");
                    continue;
                };
                let (size, used) = (shape.granules * granule, shape.capacity as usize * class.block_size());
                assert!(fits && used <= size && size - used <= size / 16, "{class:?} {shape:?}");
                assert!(shape.capacity as usize <= most_blocks(granule));
            }
        }
    }

    #[test]
    fn addresses_and_granules() {
        let geometry = Geometry::new(3 << 30, 2 << 20, 4);
        assert_eq!(geometry.granule_at((3 << 30) - 1), None);
        assert_eq!(geometry.granule_at(geometry.address(3) + 5), Some(3));
        assert_eq!(geometry.granule_at(geometry.address(4)), None);
        assert_eq!(geometry.max_align(), 1 << 30);
    }
}
