//! How a span is cut: granules, slices of granules, runs of slices, and the blocks of a run.
//!
//! ```text
//!   span     |    granule    |    granule    |    granule    | ...     committed, 2 MiB each
//!   slices   | | | | | | | | | | | | | | | | | | | | | | | | | ...     256 KiB each
//!   runs     |slab |slab   | |slab |slab     |  large block ...
//!   blocks   |0|1|2|       |0|     |0|1|2|3|4|
//! ```
//!
//! A run lies in one granule or is a whole number of them, so it is part of one commit, and of one
//! registration with the driver. Small slabs are what lets slabs of many classes share the
//! committed granules: the smaller a slab, the sooner all its blocks are free.

use super::number::{GranuleId, SliceCount, SliceId};
use super::size_class::{STEP, SizeClass};
use crate::address::to_usize;
use crate::lockfree::slab_state::MAX_CAPACITY;

/// The class number of a run that is one large block.
pub(crate) const LARGE: u8 = u8::MAX;

/// Slabs are at most this many granules; larger blocks have runs of their own.
pub(crate) const MAX_SLAB_GRANULES: usize = 8;

/// The cut of one span; constant for the life of a pool.
#[derive(Debug)]
pub(crate) struct Geometry {
    base: u64,
    slice_shift: u32,
    granule_shift: u32,
    granules: usize,
    slabs: [SlabShape; SizeClass::COUNT],
}

/// The slabs of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlabShape {
    /// The length of a slab.
    pub(crate) slices: SliceCount,
    /// Blocks in a slab; 0 if the class is too large for this granule.
    pub(crate) capacity: u32,
}

impl Geometry {
    /// Granules that a span may be cut into, in bytes: powers of two in this range.
    pub(crate) const GRANULES: std::ops::RangeInclusive<usize> = 4 << 10..=4 << 20;

    /// Bytes in a slice of granules of `granule` bytes, unless another size is asked for.
    pub(crate) const fn slice_for(granule: usize) -> usize {
        if granule < SLICE { granule } else { SLICE }
    }

    /// The cut of `granules` granules of `granule` bytes from `base` on, with slices of `slice`
    /// bytes: both powers of two, at most [`MOST_SLICES`] slices a granule.
    pub(crate) fn new(base: u64, granule: usize, slice: usize, granules: usize) -> Self {
        let mut slabs = [SlabShape::default(); SizeClass::COUNT];
        for class in SizeClass::all() {
            slabs[class.index()] = SlabShape::new(class.block_size(), slice, granule);
        }
        let (slice_shift, granule_shift) = (slice.trailing_zeros(), granule.trailing_zeros());
        Self { base, slice_shift, granule_shift, granules, slabs }
    }

    /// Bytes in a granule.
    pub(crate) fn granule(&self) -> usize {
        1 << self.granule_shift
    }

    /// Bytes in a slice.
    pub(crate) fn slice(&self) -> usize {
        1 << self.slice_shift
    }

    /// Granules in the span.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    /// Slices in the span.
    pub(crate) fn slices(&self) -> SliceCount {
        self.slices_in(self.granules)
    }

    /// Slices in `granules` granules.
    pub(crate) fn slices_in(&self, granules: usize) -> SliceCount {
        SliceCount::new(granules << self.slices_shift())
    }

    /// Whole granules in a length.
    pub(crate) fn granules_in(&self, len: SliceCount) -> usize {
        len.get() >> self.slices_shift()
    }

    /// The granule that a slice lies in.
    pub(crate) fn granule_of(&self, slice: SliceId) -> GranuleId {
        GranuleId::new(slice.index() >> self.slices_shift())
    }

    /// The first slice of a granule.
    pub(crate) fn first_slice(&self, granule: GranuleId) -> SliceId {
        SliceId::new(granule.index() << self.slices_shift())
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

    /// The offset of a slice in the span, in bytes.
    pub(crate) fn offset(&self, slice: SliceId) -> usize {
        slice.index() << self.slice_shift
    }

    /// A length in bytes.
    pub(crate) fn bytes(&self, len: SliceCount) -> usize {
        len.get() << self.slice_shift
    }

    /// The address of a slice.
    pub(crate) fn address(&self, slice: SliceId) -> u64 {
        self.base + self.offset(slice) as u64
    }

    /// The slice that an address lies in, `None` outside the span.
    pub(crate) fn slice_at(&self, address: u64) -> Option<SliceId> {
        let slice = to_usize(address.checked_sub(self.base)? >> self.slice_shift);
        (slice < self.slices().get()).then(|| SliceId::new(slice))
    }

    /// How many sets sort runs by length: one for each number of slices up to a granule, one for
    /// each number of granules up to the longest slab, and one for all that is longer.
    pub(crate) fn lengths(&self) -> usize {
        self.slices_in(1).get() + MAX_SLAB_GRANULES
    }

    /// The set of runs of `len` slices.
    pub(crate) fn length(&self, len: SliceCount) -> usize {
        let (each, len) = (self.slices_in(1).get(), len.get());
        if len <= each { len.max(1) - 1 } else { (each + len / each - 2).min(self.lengths() - 1) }
    }

    /// Log2 of the slices in a granule.
    fn slices_shift(&self) -> u32 {
        self.granule_shift - self.slice_shift
    }
}

impl SlabShape {
    /// The fewest slices of which at most a sixteenth is left over behind the last block: part of
    /// a granule, or whole granules.
    ///
    /// Eight granules always do for blocks of up to eight: a block is 4, 5, 6 or 7 times a
    /// power of two, and 1, 5, 3 or 7 granules hold a whole number of those that do not fit
    /// sixteen times into one.
    fn new(block: usize, slice: usize, granule: usize) -> Self {
        let each = granule / slice;
        for slices in (1..each).chain((1..=MAX_SLAB_GRANULES).map(|granules| granules * each)) {
            let size = slices * slice;
            if size >= block && size % block <= size / 16 {
                // More blocks than the state word counts stay unused.
                let capacity =
                    u32::try_from(size / block).map_or(MAX_CAPACITY, |n| n.min(MAX_CAPACITY));
                return Self { slices: SliceCount::new(slices), capacity };
            }
        }
        Self::default()
    }
}

/// The blocks in a slab of one slice of the smallest blocks: no slab has more.
pub(crate) fn most_blocks(slice: usize) -> usize {
    slice / STEP
}

/// Runs of 1 to 8 of these hold whole numbers of the blocks from 128 KiB to 1 MiB, mostly one, and
/// are packed well in granules of 16; a slab of smaller blocks has enough of them for a refill down
/// to 8 KiB, and half a one at 16 KiB.
const SLICE: usize = 128 << 10;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slabs_waste_little_and_cover_all_classes_up_to_eight_granules() {
        for granule in [4 << 10, 64 << 10, 2 << 20, 4 << 20] {
            let slice = Geometry::slice_for(granule);
            let geometry = Geometry::new(1 << 40, granule, slice, 100);
            for class in SizeClass::all() {
                let fits = class.block_size() <= MAX_SLAB_GRANULES * granule;
                let Some(shape) = geometry.slab(class) else {
                    assert!(!fits, "{class:?} of {granule}");
                    continue;
                };
                let (size, used) =
                    (geometry.bytes(shape.slices), shape.capacity as usize * class.block_size());
                assert!(fits && used <= size && size - used <= size / 16, "{class:?} {shape:?}");
                assert!(shape.capacity as usize <= most_blocks(slice));
                // Within one granule, or whole granules.
                assert!(size <= granule || size.is_multiple_of(granule), "{class:?} {shape:?}");
            }
        }
    }

    #[test]
    fn addresses_and_slices() {
        let geometry = Geometry::new(3 << 30, 2 << 20, 256 << 10, 4);
        assert_eq!((geometry.slices_in(1).get(), geometry.slices().get()), (8, 32));
        let [last, behind] = [31, 32].map(SliceId::new);
        assert_eq!(geometry.slice_at((3 << 30) - 1), None);
        assert_eq!(geometry.slice_at(geometry.address(last) + 5), Some(last));
        assert_eq!(geometry.slice_at(geometry.address(behind)), None);
        assert_eq!(geometry.granule_of(last), GranuleId::new(3));
        assert_eq!(geometry.first_slice(GranuleId::new(3)), SliceId::new(24));
        assert_eq!(geometry.max_align(), 1 << 30);
    }

    #[test]
    fn lengths_have_sets_of_their_own() {
        let geometry = Geometry::new(1 << 30, 2 << 20, 256 << 10, 100);
        let lengths = (1..=8).chain((2..=9).map(|granules| granules * 8));
        let length = |slices| geometry.length(SliceCount::new(slices));
        assert!(lengths.map(length).eq(0..geometry.lengths()));
        assert_eq!(length(80 * 8), geometry.lengths() - 1);
    }
}
