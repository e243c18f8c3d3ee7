//! What a run needed, so that the next one has it from the start.
//!
//! A pool counts the blocks that it has taken from the slabs, by size, where it takes one and where
//! it gives one back: off the path of blocks that are reused.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `now` | `take`, `give` | `take` | Relaxed: the number itself is the fact |
//! | `most` | `take` | `plan` | Relaxed: a maximum |
//! | a large size | `take`, once (CAS) | all | Relaxed: it never changes again |

use super::record::LARGE_LIST;
use crate::address::to_usize;
use crate::slab::SizeClass;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The most blocks of each size that a pool had at once: what a second run of the same work needs.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::memory::DeviceMemoryResource;
/// use wharf::pool::{Buffer, Pool};
///
/// let first = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let _held: [Buffer<u8>; 2] = [first.alloc(5 << 20, &stream)?, first.alloc(100, &stream)?];
/// let plan = first.plan();
///
/// let second = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// second.reserve(&plan, &stream)?;
/// let _held: [Buffer<u8>; 2] = [second.alloc(5 << 20, &stream)?, second.alloc(100, &stream)?];
/// assert_eq!(second.stats().grown, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The largest first.
    blocks: Vec<BlocksOfSize>,
    /// The most bytes that were committed at once, where that is known.
    reserved: Option<usize>,
}

/// How many blocks of one size a pool needed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlocksOfSize {
    /// The size of each, in bytes.
    pub size: usize,
    /// How many.
    pub count: usize,
}

impl MemoryPlan {
    /// The sizes of blocks, in bytes, each with how many of them there were; the largest first.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = BlocksOfSize> + '_ {
        self.blocks.iter().copied()
    }

    /// The most bytes that the pool had committed at once: less than [`size`](Self::size), since
    /// sizes that are not needed at the same time share memory. Without a pool behind the plan,
    /// all blocks together.
    pub fn reserved(&self) -> usize {
        self.reserved.unwrap_or_else(|| self.size())
    }

    /// The plan for a pool that is to commit so many bytes.
    #[must_use]
    pub fn reserving(self, bytes: usize) -> Self {
        Self { reserved: Some(bytes), ..self }
    }

    /// All blocks together, in bytes.
    pub fn size(&self) -> usize {
        self.blocks()
            .fold(0, |sum, blocks| sum.saturating_add(blocks.size.saturating_mul(blocks.count)))
    }
}

/// The plan of these sizes and counts, as [`MemoryPlan::blocks`] gives them.
impl FromIterator<BlocksOfSize> for MemoryPlan {
    fn from_iter<T: IntoIterator<Item = BlocksOfSize>>(blocks: T) -> Self {
        let mut blocks: Vec<_> =
            blocks.into_iter().filter(|blocks| blocks.size > 0 && blocks.count > 0).collect();
        blocks.sort_unstable_by_key(|blocks| core::cmp::Reverse(blocks.size));
        Self { blocks, reserved: None }
    }
}

/// How many blocks a pool has, by size, and had at most.
#[derive(Debug)]
pub(super) struct Peaks {
    classes: Box<[Peak]>,
    large: Box<[LargePeak]>,
}

#[derive(Debug, Default)]
struct Peak {
    now: AtomicU64,
    most: AtomicU64,
}

#[derive(Debug, Default)]
struct LargePeak {
    size: AtomicUsize,
    peak: Peak,
}

impl Peaks {
    pub(super) fn new() -> Self {
        Self {
            classes: (0..LARGE_LIST).map(|_| Peak::default()).collect(),
            large: (0..LARGE_SIZES).map(|_| LargePeak::default()).collect(),
        }
    }

    /// Counts a block that was taken from the slabs.
    pub(super) fn take(&self, list: usize, size: usize) {
        if let Some(peak) = self.peak(list, size) {
            let now = peak.now.fetch_add(1, Relaxed) + 1;
            peak.most.fetch_max(now, Relaxed);
        }
    }

    /// Counts a block that is given back.
    pub(super) fn give(&self, list: usize, size: usize) {
        if let Some(peak) = self.peak(list, size) {
            peak.now.fetch_sub(1, Relaxed);
        }
    }

    /// The most there were.
    pub(super) fn plan(&self) -> MemoryPlan {
        let most = |peak: &Peak| to_usize(peak.most.load(Relaxed));
        let classes = self.classes.iter().enumerate().filter_map(|(index, peak)| {
            let class = SizeClass::from_index(index)?;
            Some(BlocksOfSize { size: class.block_size(), count: most(peak) })
        });
        let large = self
            .large
            .iter()
            .map(|large| BlocksOfSize { size: large.size.load(Relaxed), count: most(&large.peak) });
        classes.chain(large).collect()
    }

    /// The place of a size; `None` for a large one beyond the first [`LARGE_SIZES`], which no plan
    /// has.
    fn peak(&self, list: usize, size: usize) -> Option<&Peak> {
        if let Some(peak) = self.classes.get(list) {
            return Some(peak);
        }
        let place = self.large.iter().find(|large| {
            let taken = large.size.compare_exchange(0, size, Relaxed, Relaxed);
            taken.is_ok() || taken == Err(size)
        });
        place.map(|large| &large.peak)
    }
}

/// How many sizes above the largest class are told apart.
const LARGE_SIZES: usize = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_most_at_once_is_planned() {
        let peaks = Peaks::new();
        let class = SizeClass::of(1000).unwrap();
        for _ in 0..3 {
            peaks.take(class.index(), class.block_size());
            peaks.take(class.index(), class.block_size());
            peaks.give(class.index(), class.block_size());
        }
        peaks.take(LARGE_LIST, 1 << 30);
        peaks.give(LARGE_LIST, 1 << 30);
        peaks.take(LARGE_LIST, 1 << 31);
        peaks.take(LARGE_LIST, 1 << 30);
        let plan = peaks.plan();
        assert_eq!(
            plan.blocks().collect::<Vec<_>>(),
            [(1 << 31, 1), (1 << 30, 1), (class.block_size(), 4)]
                .map(|(size, count)| BlocksOfSize { size, count })
        );
        assert_eq!(
            (plan.size(), &plan.blocks().collect::<MemoryPlan>()),
            ((3 << 30) + 4 * class.block_size(), &plan)
        );
    }

    #[test]
    fn more_large_sizes_than_places_are_left_out() {
        let peaks = Peaks::new();
        for number in 1..=LARGE_SIZES + 3 {
            peaks.take(LARGE_LIST, number << 24);
            peaks.give(LARGE_LIST, number << 24);
        }
        assert_eq!(peaks.plan().blocks().len(), LARGE_SIZES);
    }
}
