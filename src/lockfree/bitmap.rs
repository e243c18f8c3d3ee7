//! A two-level atomic bitmap: one bit an index, 1 = free.
//!
//! The summary word above 64 words says which of them may have a free bit, as in the chunk maps
//! of [mimalloc 3](https://github.com/microsoft/mimalloc/blob/dev3/src/bitmap.c) and the bit
//! fields of [LLFree](https://github.com/luhsra/llfree-rs). Bits have no ABA problem: a bit
//! that went and came back really is free. A free is one `fetch_or`, whose old value also
//! tells that the index was free already, so double frees are found at no cost.
//!
//! ```text
//!   summary[0]   bit w: words[w] may have a free bit
//!      |
//!      +-- words[0]   bit i: index i is free
//!      +-- words[1]   bit i: index 64 + i is free
//!      ...
//!      +-- words[63]
//!   summary[1] --- words[64..128]
//! ```
//!
//! * `words[w]`: written by `take` (CAS), `give` (`fetch_or`), `fill`, `drain`; read by
//!   `take`, `clear_hint`. The `Release` of `give` pairs with the `Acquire` of the CAS in `take`:
//!   a thread that takes an index sees all that was done with it before.
//! * `summary[s]`: written by `give` (`fetch_or`), `clear_hint` (`fetch_and`, `fetch_or`); read by
//!   `take`. The `Release` of `give`'s `fetch_or` pairs with the `AcqRel` of `clear_hint`'s
//!   `fetch_and`: a thread that clears a hint after it was set sees the bit that it was set for.
//!
//! The summary is a hint that errs on one side only. It may name an empty word; it never hides a
//! free bit for good: between the `fetch_or`s of `words[w]` and `summary[s]` in one `give`, the
//! bit is hidden, and that `give` is not over.

use crate::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use crate::sync::atomic::{Ordering::Relaxed, Ordering::Release};
use crate::sync::zeroed;

/// Bits in a word.
pub(crate) const WORD: usize = 64;

/// A view of one bitmap; the words live in a [`Bitmaps`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap<'a> {
    words: &'a [AtomicU64],
    summary: &'a [AtomicU64],
}

/// Some bits of one word: what [`Bitmap::take`] got and what [`Bitmap::give`] puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    /// The word's number in its bitmap.
    pub(crate) word: usize,
    /// The bits of that word.
    pub(crate) mask: u64,
}

/// The index was free already: a double free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyFree {
    /// The bits that were free before the call.
    pub(crate) bits: Bits,
}

impl Bitmap<'_> {
    /// Takes 1 to `want` free indices, the lowest of the first word at or after `from` that
    /// has any, going round. `None` if all are taken.
    pub(crate) fn take(&self, from: usize, want: u32) -> Option<Bits> {
        let spans = self.summary.len();
        let first = (from / WORD).min(spans - 1);
        // The first span is visited twice: from `from` on, and at the end before it.
        if let Some(bits) = self.take_in_span(first, !0 << (from % WORD), want) {
            return Some(bits);
        }
        for span in (first + 1..spans).chain(0..=first) {
            if let Some(bits) = self.take_in_span(span, !0, want) {
                return Some(bits);
            }
        }
        None
    }

    /// Takes from the words of `summary[span]` which `among` names.
    fn take_in_span(&self, span: usize, among: u64, want: u32) -> Option<Bits> {
        loop {
            // Relaxed: a hint; what makes the taken index ours is the CAS on its word.
            let hints = self.summary[span].load(Relaxed) & among;
            if hints == 0 {
                return None;
            }
            let word = span * WORD + index_of_lowest(hints);
            match self.take_in_word(word, want) {
                Some(mask) => return Some(Bits { word, mask }),
                None => self.clear_hint(word),
            }
        }
    }

    /// Takes the lowest `want` free bits of one word.
    #[inline]
    pub(crate) fn take_in_word(&self, word: usize, want: u32) -> Option<u64> {
        let mut seen = self.words[word].load(Relaxed);
        while seen != 0 {
            let rest = without_lowest(seen, want);
            // Acquire: pairs with the Release of `give`.
            match self.words[word].compare_exchange_weak(seen, rest, Acquire, Relaxed) {
                Ok(_) => return Some(seen & !rest),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Takes exactly `bits`, or nothing if one of them is taken.
    pub(crate) fn take_exact(&self, bits: Bits) -> bool {
        let word = &self.words[bits.word];
        let mut seen = word.load(Relaxed);
        while seen & bits.mask == bits.mask {
            // Acquire: pairs with the Release of `give`.
            match word.compare_exchange_weak(seen, seen & !bits.mask, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives `bits` back.
    ///
    /// If some of them were free already, those stay free, the others become free, and the
    /// error names the former.
    pub(crate) fn give(&self, bits: Bits) -> Result<(), AlreadyFree> {
        // Release: pairs with the Acquire of the CAS in `take_in_word`.
        let old = self.words[bits.word].fetch_or(bits.mask, Release);
        if old == 0 {
            // Release: pairs with the AcqRel of `clear_hint`.
            self.summary[bits.word / WORD].fetch_or(1 << (bits.word % WORD), Release);
        }
        match old & bits.mask {
            0 => Ok(()),
            mask => Err(AlreadyFree { bits: Bits { mask, ..bits } }),
        }
    }

    /// Clears the hint of a word found empty, unless an index came back meanwhile.
    fn clear_hint(&self, word: usize) {
        let hint = 1 << (word % WORD);
        let summary = &self.summary[word / WORD];
        // AcqRel: Acquire pairs with the Release of `give`: if its hint is the one cleared here,
        // the load below sees its bit. If its hint comes later, it stands.
        summary.fetch_and(!hint, AcqRel);
        if self.words[word].load(Relaxed) != 0 {
            summary.fetch_or(hint, Release);
        }
    }

    /// Makes indices `0..len` free and the rest taken; for the bitmap's only owner.
    ///
    /// Nothing is published: the caller's Release on another word does that.
    pub(crate) fn fill(&self, len: usize) {
        self.fill_again(len, self.words.len() * WORD);
    }

    /// As [`fill`](Self::fill), where no index from `before` on is free.
    pub(crate) fn fill_again(&self, len: usize, before: usize) {
        let touched = len.max(before).div_ceil(WORD);
        for (word, bits) in self.words.iter().take(touched).enumerate() {
            bits.store(low_bits(len.saturating_sub(word * WORD)), Relaxed);
        }
        let used = len.div_ceil(WORD);
        for (span, hints) in self.summary.iter().take(touched.div_ceil(WORD)).enumerate() {
            hints.store(low_bits(used.saturating_sub(span * WORD)), Relaxed);
        }
    }

    /// Takes 1 to `want` indices of which the caller knows that they are there: it holds a
    /// reservation, counted elsewhere, for each. `None` if they moved while it looked.
    ///
    /// Unlike [`take`](Self::take) this finds a bit even while the `give` that freed another bit
    /// of the same word has not yet set the hint, so a thread that stops there stops no other.
    #[inline]
    pub(crate) fn take_reserved(&self, want: u32) -> Option<Bits> {
        let take = |word| self.take_in_word(word, want).map(|mask| Bits { word, mask });
        // Bitmaps of up to 64 indices have no other word.
        take(0).or_else(|| self.take(0, want)).or_else(|| (0..self.words.len()).find_map(take))
    }

    /// Adds `index` to a set of hints. No error if it is there.
    pub(crate) fn insert(&self, index: usize) {
        // An index that is there already needs nothing done.
        let _ = self.give(Bits::one(index));
    }

    /// Removes `index` from a set of hints; the caller looks again whether it belongs there.
    pub(crate) fn remove(&self, index: usize) {
        let Bits { word, mask } = Bits::one(index);
        // AcqRel: Acquire pairs with the Release of `insert`: a thread that removes a hint sees
        // what it was set for, or the hint is set after this.
        self.words[word].fetch_and(!mask, AcqRel);
    }

    /// The lowest index in the set at or after `from`. Never wraps.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let first = from / WORD;
        // Relaxed: a hint; the state it points at decides.
        let bits = self.words.get(first)?.load(Relaxed) & (!0 << (from % WORD));
        if bits != 0 {
            return Some(first * WORD + index_of_lowest(bits));
        }
        let mut above = !0_u64 << (first % WORD) << 1;
        for span in first / WORD..self.summary.len() {
            // Relaxed: likewise; an index whose insertion is not over may be missed.
            let mut hints = self.summary[span].load(Relaxed) & above;
            while hints != 0 {
                let word = span * WORD + index_of_lowest(hints);
                let bits = self.words[word].load(Relaxed);
                if bits != 0 {
                    return Some(word * WORD + index_of_lowest(bits));
                }
                self.clear_hint(word);
                hints &= hints - 1;
            }
            above = !0;
        }
        None
    }

    /// The bits of one word at this moment.
    pub(crate) fn word(&self, word: usize) -> u64 {
        self.words[word].load(Relaxed)
    }
}

impl Bits {
    /// The bit of one index.
    pub(crate) fn one(index: usize) -> Self {
        Self { word: index / WORD, mask: 1 << (index % WORD) }
    }

    /// How many indices these are.
    pub(crate) fn count(self) -> u32 {
        self.mask.count_ones()
    }

    /// The highest of the indices.
    pub(crate) fn highest(self) -> Option<usize> {
        let last = self.mask.checked_ilog2()?;
        Some(self.word * WORD + last as usize)
    }

    /// The indices, lowest first.
    pub(crate) fn indices(self) -> impl Iterator<Item = usize> {
        let mut mask = self.mask;
        std::iter::from_fn(move || {
            if mask == 0 {
                return None;
            }
            let index = self.word * WORD + index_of_lowest(mask);
            mask &= mask - 1;
            Some(index)
        })
    }
}

/// Equally large bitmaps, all in one piece of memory.
#[derive(Debug)]
pub(crate) struct Bitmaps {
    words: Box<[AtomicU64]>,
    summary: Box<[AtomicU64]>,
    words_each: usize,
    spans_each: usize,
}

impl Bitmaps {
    /// `count` bitmaps of `bits` indices each, all taken; `None` if there is no memory for them.
    pub(crate) fn new(count: usize, bits: usize) -> Option<Self> {
        let words_each = bits.div_ceil(WORD).max(1);
        let spans_each = words_each.div_ceil(WORD);
        Some(Self {
            words: zeroed(count.checked_mul(words_each)?)?,
            summary: zeroed(count.checked_mul(spans_each)?)?,
            words_each,
            spans_each,
        })
    }

    /// The bitmap number `which`.
    pub(crate) fn get(&self, which: usize) -> Bitmap<'_> {
        let (w, s) = (which * self.words_each, which * self.spans_each);
        Bitmap {
            words: &self.words[w..w + self.words_each],
            summary: &self.summary[s..s + self.spans_each],
        }
    }
}

/// The position of the lowest set bit of a word that has one.
fn index_of_lowest(bits: u64) -> usize {
    // At most 64, so it fits any usize.
    bits.trailing_zeros() as usize
}

/// `bits` without its lowest `count` set bits.
fn without_lowest(bits: u64, count: u32) -> u64 {
    let (mut rest, mut count) = (bits, count);
    while rest != 0 && count > 0 {
        rest &= rest - 1;
        count -= 1;
    }
    rest
}

/// The lowest `count` bits set, all 64 if `count` is larger.
fn low_bits(count: usize) -> u64 {
    if count >= WORD { !0 } else { (1 << count) - 1 }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn takes_the_lowest_and_goes_round() {
        let maps = Bitmaps::new(2, 130).unwrap();
        maps.get(1).fill(130);
        let map = maps.get(1);
        assert_eq!(map.take(0, 3), Some(Bits { word: 0, mask: 0b111 }));
        assert_eq!(map.take(2, 15), Some(Bits { word: 2, mask: 0b11 }));
        assert_eq!(map.take(2, 1), Some(Bits { word: 0, mask: 0b1000 }));
        assert_eq!(maps.get(0).take(0, 1), None);
    }

    #[test]
    fn more_than_one_summary_word() {
        let maps = Bitmaps::new(1, 8192).unwrap();
        let map = maps.get(0);
        map.give(Bits::one(5000)).unwrap();
        map.give(Bits::one(8191)).unwrap();
        // From a word of the first span, and from behind the only free one of the second.
        assert_eq!(map.take(3, 1), Some(Bits::one(5000)));
        assert_eq!(map.take(90, 1), Some(Bits::one(8191)));
        assert_eq!(map.take(127, 1), None);
        map.give(Bits::one(64 * 100)).unwrap();
        assert_eq!(map.take(101, 1), Some(Bits::one(64 * 100)));
    }

    #[test]
    fn a_double_free_is_named() {
        let maps = Bitmaps::new(1, 64).unwrap();
        let map = maps.get(0);
        map.give(Bits::one(9)).unwrap();
        let twice = map.give(Bits { word: 0, mask: 0b11 << 9 }).unwrap_err();
        assert_eq!(twice, AlreadyFree { bits: Bits::one(9) });
        assert_eq!(map.take(0, 64), Some(Bits { word: 0, mask: 0b11 << 9 }));
    }

    #[test]
    fn a_set_of_hints() {
        let maps = Bitmaps::new(1, 300).unwrap();
        let set = maps.get(0);
        for index in [0, 77, 77, 299] {
            set.insert(index);
        }
        set.remove(0);
        assert_eq!(set.next(0), Some(77));
        assert_eq!(set.next(78), Some(299));
        assert_eq!(set.next(300), None);
    }
}
