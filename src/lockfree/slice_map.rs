//! Free slices of granules that several runs share: the run of a wanted length that leaves the
//! least behind.
//!
//! The bits are those of a [`Bitmap`], one a slice, 1 = free. A granule is a few neighbouring bits
//! of one word and a run lies in one granule, so a run is found and taken by one compare-and-swap.
//! A run of 2, 4 or 6 slices starts at a multiple of 2, of 4 at one of 4: as aligned as it is long.
//!
//! ```text
//!   word      | granule 0     | granule 1     |  ...   64 slices
//!   bits      |0|0|0|1|1|0|1|1|1|1|1|1|1|1|1|1|
//!                    run of 2 ^   ^ a granule that is all free: it is taken with all its bits
//! ```
//!
//! * `words[w]`: written by `take`, `take_granule`, `give`; read by all. Those of
//!   [`Bitmap`]: the `Release` of `give` pairs with the `Acquire` of `take` and `take_granule`.

use super::bitmap::{AlreadyFree, Bitmap, Bitmaps, Bits, WORD};

/// Slices in a granule, at most.
pub(crate) const MOST_SLICES: usize = 32;

/// Which slices are free.
#[derive(Debug)]
pub(crate) struct SliceMap {
    bits: Bitmaps,
    each: usize,
    /// By length, the bits of a word at which a run may start.
    starts: [u64; MOST_SLICES + 1],
}

impl SliceMap {
    /// `granules` granules of `each` slices, a power of two; none is free.
    pub(crate) fn new(granules: usize, each: usize) -> Self {
        debug_assert!(each.is_power_of_two() && each <= MOST_SLICES);
        let starts = std::array::from_fn(|len| starts(len, each));
        Self { bits: Bitmaps::new(1, granules * each), each, starts }
    }

    /// Takes a free run of `len` slices, at least 1: the lowest between taken ones, which leaves no
    /// rest, or else the lowest. Its first slice.
    ///
    /// `None` if no such run was seen. One that is being given back meanwhile may be missed.
    pub(crate) fn take(&self, len: usize) -> Option<usize> {
        self.take_fit(len, Fit::Exact).or_else(|| self.take_fit(len, Fit::Any))
    }

    fn take_fit(&self, len: usize, fit: Fit) -> Option<usize> {
        let mut from = 0;
        loop {
            let word = self.map().next(from)? / WORD;
            while let Some(start) = self.find(word, len, fit) {
                if self.map().take_exact(Bits { word, mask: run(start, len) }) {
                    return Some(word * WORD + start);
                }
                // Another thread was faster.
            }
            from = (word + 1) * WORD;
        }
    }

    /// Gives a run back. Returns whether its granule is all free now. The error names slices that
    /// were free already.
    pub(crate) fn give(&self, start: usize, len: usize) -> Result<bool, AlreadyFree> {
        self.map().give(Bits { word: start / WORD, mask: run(start % WORD, len) })?;
        Ok(self.is_free(start / self.each))
    }

    /// Whether all slices of a granule are free at this moment.
    pub(crate) fn is_free(&self, granule: usize) -> bool {
        let Bits { word, mask } = self.granule(granule);
        self.map().word(word) & mask == mask
    }

    /// Takes all slices of a granule, or none.
    pub(crate) fn take_granule(&self, granule: usize) -> bool {
        self.map().take_exact(self.granule(granule))
    }

    /// How many slices are free at this moment.
    pub(crate) fn count(&self) -> usize {
        self.map().snapshot().map(|bits| bits.count() as usize).sum()
    }

    /// Where in a word a run of `len` slices looks free.
    fn find(&self, word: usize, len: usize, fit: Fit) -> Option<usize> {
        let bits = self.map().word(word);
        let mut fits = (1..len).fold(bits, |fits, slice| fits & bits >> slice) & self.starts[len];
        if fit == Fit::Exact {
            // Free slices whose next lower one is of another granule.
            let firsts = bits & self.starts[self.each];
            let (below, above) = (bits << 1 & !self.starts[self.each], (bits & !firsts) >> len);
            fits &= !below & !above;
        }
        (fits != 0).then(|| fits.trailing_zeros() as usize)
    }

    fn granule(&self, granule: usize) -> Bits {
        let start = granule * self.each;
        Bits { word: start / WORD, mask: run(start % WORD, self.each) }
    }

    fn map(&self) -> Bitmap<'_> {
        self.bits.get(0)
    }
}

/// Which free runs will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Those with no free slice of their granule before or after them.
    Exact,
    /// All.
    Any,
}

/// The bits of a run in a word. `len` is less than a word's.
fn run(start: usize, len: usize) -> u64 {
    ((1 << len) - 1) << start
}

/// The bits of a word at which runs of `len` slices start, where a granule has `each`.
fn starts(len: usize, each: usize) -> u64 {
    if len == 0 || len > each {
        return 0;
    }
    let aligned = 1 << len.trailing_zeros();
    let in_granule = (0..=each - len).step_by(aligned).fold(0, |bits, start| bits | 1 << start);
    (0..WORD).step_by(each).fold(0, |bits, granule| bits | in_granule << granule)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_in_their_granule_and_are_aligned() {
        let map = SliceMap::new(20, 8);
        assert_eq!(map.take(1), None);
        for granule in 0..20 {
            assert_eq!(map.give(granule * 8, 8), Ok(true));
        }
        assert_eq!(map.take(5), Some(0));
        // 5 to 7 are free; 4 of them would pass the granule's end, 2 start at an even number.
        assert_eq!(map.take(4), Some(8));
        assert_eq!(map.take(2), Some(6));
        assert_eq!(map.take(1), Some(5));
        // 12 to 15 are the lowest that are free; a hole of the very length goes before.
        assert_eq!((map.take(8), map.give(6, 1)), (Some(16), Ok(false)));
        assert_eq!(map.take(1), Some(6));
        assert_eq!(map.count(), 160 - 20);
        assert_eq!(map.give(5, 2), Ok(false));
        assert!(map.give(4, 3).is_err());
    }

    #[test]
    fn a_granule_is_whole_when_all_of_it_came_back() {
        let map = SliceMap::new(9, 8);
        assert_eq!(map.give(64, 8), Ok(true));
        assert_eq!(map.take(3), Some(64));
        assert!(!map.is_free(8) && !map.take_granule(8));
        assert_eq!(map.give(64, 3), Ok(true));
        assert!(map.take_granule(8) && !map.take_granule(8));
        assert_eq!(map.take(1), None);
    }

    #[test]
    fn granules_of_one_slice() {
        let map = SliceMap::new(3, 1);
        assert_eq!(map.give(2, 1), Ok(true));
        assert_eq!(map.take(1), Some(2));
    }
}
