//! Runs of unused granules: the lowest run of a wanted length.
//!
//! The bits are those of a [`Bitmap`], one a granule, 1 = unused. A run inside one word is taken
//! by one compare-and-swap. A longer one is taken word by word, from the lowest up; a thread that
//! finds a bit gone gives back what it took and looks further. Two takers that collide cannot stop
//! each other for good: the one whose words lie higher collides only with threads that got there
//! first, and those are done.
//!
//! * `words[w]`: written by `take`, `give`; read by `take`, `longest`. Those of [`Bitmap`]: the
//!   `Release` of `give` pairs with the `Acquire` of `take_exact`.

use super::bitmap::{AlreadyFree, Bitmap, Bitmaps, Bits, WORD};

/// Which granules are unused.
#[derive(Debug)]
pub(crate) struct RunMap {
    bits: Bitmaps,
    granules: usize,
}

/// Granules `start .. start + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first granule.
    pub(crate) start: usize,
    /// How many granules.
    pub(crate) len: usize,
}

impl RunMap {
    /// `granules` unused granules.
    pub(crate) fn new(granules: usize) -> Self {
        let bits = Bitmaps::new(1, granules);
        bits.get(0).fill(granules);
        Self { bits, granules }
    }

    /// Takes the lowest run of `len` granules (at least 1) whose first is a multiple of `align`.
    ///
    /// `None` if no such run was seen. One that is being given back meanwhile may be missed.
    pub(crate) fn take(&self, len: usize, align: usize) -> Option<Run> {
        let mut from = 0;
        loop {
            let run = self.find(from, len, align)?;
            if self.take_exact(run) {
                return Some(run);
            }
            // Another thread was faster. What lies below was looked at a moment ago.
            from = run.start + align;
        }
    }

    /// Gives a run back. The error names granules that were unused already.
    pub(crate) fn give(&self, run: Run) -> Result<(), AlreadyFree> {
        pieces(run).try_for_each(|bits| self.map().give(bits))
    }

    /// The length of the longest unused run at this moment.
    pub(crate) fn longest(&self) -> usize {
        let (mut longest, mut current) = (0, 0);
        for granule in 0..self.granules {
            current = if self.map().is_free(granule) { current + 1 } else { 0 };
            longest = longest.max(current);
        }
        longest
    }

    /// The lowest run from `from` on that looks unused.
    fn find(&self, from: usize, len: usize, align: usize) -> Option<Run> {
        let mut start = self.map().next(from)?.next_multiple_of(align);
        while start + len <= self.granules {
            match self.last_used(Run { start, len }) {
                None => return Some(Run { start, len }),
                Some(used) => start = self.map().next(used + 1)?.next_multiple_of(align),
            }
        }
        None
    }

    /// The highest used granule of a run: no run that contains it will do.
    fn last_used(&self, run: Run) -> Option<usize> {
        let used = |bits: Bits| Bits { mask: bits.mask & !self.map().word(bits.word), ..bits };
        pieces(run).filter_map(|bits| used(bits).highest()).last()
    }

    /// Takes all granules of a run, or none.
    fn take_exact(&self, run: Run) -> bool {
        let lost = pieces(run).position(|bits| !self.map().take_exact(bits));
        if let Some(lost) = lost {
            for bits in pieces(run).take(lost) {
                // They are ours, so none of them can have been free.
                let given = self.map().give(bits);
                debug_assert!(given.is_ok(), "{given:?}");
            }
        }
        lost.is_none()
    }

    fn map(&self) -> Bitmap<'_> {
        self.bits.get(0)
    }
}

/// The bits of a run, one word at a time, lowest first.
fn pieces(run: Run) -> impl Iterator<Item = Bits> {
    let end = run.start + run.len;
    (run.start / WORD..end.div_ceil(WORD)).map(move |word| {
        let low = run.start.saturating_sub(word * WORD);
        let high = (end - word * WORD).min(WORD);
        Bits { word, mask: (!0 >> (WORD - (high - low))) << low }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_span_words() {
        let map = RunMap::new(200);
        let low = map.take(60, 1).unwrap();
        let long = map.take(130, 1).unwrap();
        assert_eq!(long, Run { start: 60, len: 130 });
        assert_eq!(map.take(11, 1), None);
        assert_eq!(map.longest(), 10);
        map.give(long).unwrap();
        assert_eq!(map.longest(), 140);
        assert!(map.give(long).is_err());
        map.give(low).unwrap();
        assert_eq!(map.take(200, 1), Some(Run { start: 0, len: 200 }));
    }

    #[test]
    fn runs_start_where_asked() {
        let map = RunMap::new(64);
        assert_eq!(map.take(1, 1), Some(Run { start: 0, len: 1 }));
        assert_eq!(map.take(3, 4), Some(Run { start: 4, len: 3 }));
        assert_eq!(map.take(3, 1), Some(Run { start: 1, len: 3 }));
        assert_eq!(map.take(64, 64), None);
    }

    #[test]
    fn holes_are_filled_first() {
        let map = RunMap::new(128);
        let runs: Vec<_> = (0..32).map(|_| map.take(4, 1).unwrap()).collect();
        map.give(runs[17]).unwrap();
        map.give(runs[3]).unwrap();
        assert_eq!(map.take(2, 1), Some(Run { start: 12, len: 2 }));
        assert_eq!(map.take(4, 1), Some(runs[17]));
    }
}
