//! How a span is cut: granules, slices of granules, runs of slices, and the blocks of a run.
//!
//! ```text
//!   span     |    granule    |    granule    |    granule    | ...     committed in whole ones
//!   slices   | | | | | | | | | | | | | | | | | | | | | | | | | ...     32 or 16 KiB each
//!   runs     |slab |slab   | |slab |large block      |slab | |
//!   blocks   |0|1|2|       |0|     |                 |0|1|2|
//! ```
//!
//! A run starts at any slice and goes on over granules. Blocks of up to 128 KiB share slabs, as
//! short as they can be: the shorter a slab, the sooner all its blocks are free. A larger block is
//! a run.

use super::number::{SliceCount, SliceId};
use super::size_class::{STEP, SizeClass};
use crate::address::to_usize;
use crate::lockfree::slab_state::MAX_CAPACITY;

/// The class number of a run that is one block of any length.
pub(crate) const LARGE: u8 = u8::MAX;

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
    /// Blocks in a slab; 0 if the span is too short for one.
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
    /// bytes: both powers of two, a slice not larger than a granule.
    pub(crate) fn new(base: u64, granule: usize, slice: usize, granules: usize) -> Self {
        let mut slabs = [SlabShape::default(); SizeClass::COUNT];
        for class in SizeClass::all() {
            let shape = SlabShape::new(class, slice);
            if shape.slices.get() <= granules * (granule / slice) {
                slabs[class.index()] = shape;
            }
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

    /// The granule that a slice lies in, by its number.
    pub(crate) fn granule_of(&self, slice: SliceId) -> usize {
        slice.index() >> self.slices_shift()
    }

    /// The largest alignment that any block of this span can have.
    pub(crate) fn max_align(&self) -> usize {
        1 << self.base.trailing_zeros()
    }

    /// The slabs of `class`; `None` if its blocks are served by runs of their own.
    pub(crate) fn slab(&self, class: SizeClass) -> Option<SlabShape> {
        Some(self.slabs[class.index()]).filter(|shape| shape.capacity > 0)
    }

    /// Slices that hold `size` bytes.
    pub(crate) fn slices_for(&self, size: usize) -> SliceCount {
        SliceCount::new(size.div_ceil(self.slice()).max(1))
    }

    /// Bytes in the span.
    pub(crate) fn span(&self) -> usize {
        self.granules << self.granule_shift
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

    /// Log2 of the slices in a granule.
    fn slices_shift(&self) -> u32 {
        self.granule_shift - self.slice_shift
    }
}

impl SlabShape {
    /// The fewest slices of which at most a sixteenth is left over behind the last block; for one
    /// block, where the class's blocks are runs of their own.
    fn new(class: SizeClass, slice: usize) -> Self {
        let block = class.block_size();
        let fits = |slices: &usize| {
            let size = slices * slice;
            size >= block && (class.index() >= SizeClass::SHARED || size % block <= size / 16)
        };
        // As many slices as a block has units, if no fewer, hold a whole number of blocks.
        let slices = (1..).find(fits).unwrap_or(1);
        // More blocks than the state word counts stay unused.
        let blocks = u32::try_from(slices * slice / block).unwrap_or(MAX_CAPACITY);
        let most = if class.index() < SizeClass::SHARED { MAX_CAPACITY } else { 1 };
        Self { slices: SliceCount::new(slices), capacity: blocks.min(most) }
    }
}

/// The blocks in a slab of one slice of the smallest blocks: no slab has more.
pub(crate) fn most_blocks(slice: usize) -> usize {
    slice / STEP
}

/// One slice holds a quarter of the largest block that shares a slab, and two blocks of 16 KiB:
/// short enough that what is left at the end of a large block is little.
const SLICE: usize = 32 << 10;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slabs_waste_little_and_cover_all_classes() {
        for granule in [4 << 10, 64 << 10, 2 << 20, 4 << 20] {
            let slice = Geometry::slice_for(granule);
            let geometry = Geometry::new(1 << 40, granule, slice, (1 << 20) / slice);
            for class in SizeClass::all() {
                let shape = geometry.slab(class).unwrap();
                let (size, used) =
                    (geometry.bytes(shape.slices), shape.capacity as usize * class.block_size());
                let is_shared = class.index() < SizeClass::SHARED;
                let waste = if is_shared { size / 16 } else { slice - 1 };
                assert!(used <= size && size - used <= waste, "{class:?} {shape:?}");
                assert!(is_shared || shape.capacity == 1, "{class:?} {shape:?}");
                assert!(shape.capacity as usize <= most_blocks(slice));
            }
        }
        // A span has no slabs that are longer than itself.
        let short = Geometry::new(1 << 40, 4 << 10, 4 << 10, 3);
        let class = |size| SizeClass::of(size).unwrap();
        assert!(short.slab(class(4096)).is_some() && short.slab(class(160 << 10)).is_none());
    }

    #[test]
    fn addresses_and_slices() {
        let geometry = Geometry::new(3 << 30, 2 << 20, 256 << 10, 4);
        assert_eq!((geometry.slices_in(1).get(), geometry.slices().get()), (8, 32));
        let [last, behind] = [31, 32].map(SliceId::new);
        assert_eq!(geometry.slice_at((3 << 30) - 1), None);
        assert_eq!(geometry.slice_at(geometry.address(last) + 5), Some(last));
        assert_eq!(geometry.slice_at(geometry.address(behind)), None);
        assert_eq!(geometry.granule_of(last), 3);
        assert_eq!(geometry.max_align(), 1 << 30);
    }
}
