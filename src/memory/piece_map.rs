//! Which granules of a span are committed, and where the device sees them.
//!
//! One word a granule:
//!
//! ```text
//!   63                              12 11    5  4  3   2    1    0
//!  +---------------------------------+---------+------+----+----+---+
//!  | device address, without its low | 0       | tier |first|head| 1 |    committed
//!  +---------------------------------+---------+------+----+----+---+
//!  | 0                                                              |     not committed
//!  +----------------------------------------------------------------+
//! ```
//!
//! `first`: a commit begins at this granule, and is decommitted from here. `head`: a registration
//! or mapping begins at this granule, and the driver is to be called to end it. A device address of
//! 0: the device does not reach the granule.
//!
//! * a granule's: written by its commit and decommit; read by these, by requests for an address and
//!   by the drop. Relaxed: commit, use and decommit of one granule follow each other, and the code
//!   that makes them do so (the lock-free structures of a pool) orders the words as well.

use std::ops::Range;

use super::granule::NO_TABLE;
use crate::error::Error;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::zeroed;

/// The state of a span, granule by granule.
#[derive(Debug)]
pub(crate) struct PieceMap {
    words: Box<[AtomicU64]>,
    granularity: usize,
}

impl PieceMap {
    /// The map of a span of `size` bytes, nothing of which is committed.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: there is no memory for it.
    pub(crate) fn new(size: usize, granularity: usize) -> Result<Self, Error> {
        let words = zeroed(size / granularity).ok_or(NO_TABLE)?;
        Ok(Self { words, granularity })
    }

    /// Marks a range as committed, all or nothing. Returns `false` if a part of it was, or it
    /// leaves the span.
    ///
    /// The first word gets its final value at once: a decommit of the range below reads it.
    pub(crate) fn claim(&self, offset: usize, len: usize) -> bool {
        let Some(words) = self.words.get(self.granules(offset, len)) else { return false };
        let is_taken = |(index, word): (usize, &AtomicU64)| {
            let state = if index == 0 { COMMITTED | FIRST } else { COMMITTED };
            word.compare_exchange(0, state, Relaxed, Relaxed).is_err()
        };
        let taken = words.iter().enumerate().position(is_taken);
        for word in &words[..taken.unwrap_or(0)] {
            word.store(0, Relaxed);
        }
        taken.is_none() && !words.is_empty()
    }

    /// Whether a range is exactly what one call of [`claim`](Self::claim) marked.
    pub(crate) fn is_one_claim(&self, offset: usize, len: usize) -> bool {
        let begins = |word: &AtomicU64| word.load(Relaxed) & FIRST != 0;
        let goes_on = |word: &AtomicU64| word.load(Relaxed) & (COMMITTED | FIRST) == COMMITTED;
        let range = self.granules(offset, len);
        let Some((first, rest)) = self.words_of(offset, len).split_first() else { return false };
        begins(first) && rest.iter().all(goes_on) && !self.words.get(range.end).is_some_and(goes_on)
    }

    /// Marks a range as not committed.
    pub(crate) fn release(&self, offset: usize, len: usize) {
        for word in self.words_of(offset, len) {
            word.store(0, Relaxed);
        }
    }

    /// Whether nothing of a range is claimed.
    pub(crate) fn is_free(&self, offset: usize, len: usize) -> bool {
        self.words_of(offset, len).iter().all(|word| word.load(Relaxed) == 0)
    }

    /// Whether a whole range is committed.
    pub(crate) fn is_committed(&self, offset: usize, len: usize) -> bool {
        let words = self.words_of(offset, len);
        !words.is_empty() && words.iter().all(|word| word.load(Relaxed) & COMMITTED != 0)
    }

    /// Notes that the device sees a claimed range at `device`, and that the driver is to be called
    /// to end that. Returns the bytes in the piece's granules.
    pub(crate) fn begin_piece(&self, offset: usize, len: usize, device: u64) -> usize {
        debug_assert!(
            device & ADDRESS != 0 && device & !ADDRESS == 0,
            "no address of a page: {device:#x}"
        );
        let words = self.words_of(offset, len);
        for (index, word) in words.iter().enumerate() {
            let head = if index == 0 { HEAD } else { 0 };
            let address = device + (index * self.granularity) as u64;
            word.fetch_or(address & ADDRESS | head, Relaxed);
        }
        words.len() * self.granularity
    }

    /// Notes that the device no longer sees the piece at `offset`. Returns the bytes in its
    /// granules.
    pub(crate) fn end_piece(&self, offset: usize) -> usize {
        let ended = self.piece(offset).map(|word| word.fetch_and(!(ADDRESS | HEAD), Relaxed));
        ended.count() * self.granularity
    }

    /// The bytes in the granules of the piece at `offset`.
    pub(crate) fn piece_len(&self, offset: usize) -> usize {
        self.piece(offset).count() * self.granularity
    }

    /// The words of the piece at `offset`: up to the next head, or what the device does not see.
    fn piece(&self, offset: usize) -> impl Iterator<Item = &AtomicU64> {
        let words = self.words.get(offset / self.granularity..).unwrap_or_default();
        let goes_on = |(index, word): &(usize, &AtomicU64)| {
            let seen = word.load(Relaxed);
            *index == 0 || seen & ADDRESS != 0 && seen & HEAD == 0
        };
        words.iter().enumerate().take_while(goes_on).map(|(_, word)| word)
    }

    /// The offsets in a range at which pieces begin.
    pub(crate) fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = usize> {
        let heads = self.words_of(offset, len).iter().enumerate();
        let heads = heads.filter(|(_, word)| word.load(Relaxed) & HEAD != 0);
        heads.map(move |(index, _)| offset + index * self.granularity)
    }

    /// The offsets at which pieces begin, in the whole span.
    pub(crate) fn all_pieces(&self) -> impl Iterator<Item = usize> {
        self.pieces(0, self.words.len() * self.granularity)
    }

    /// How many of `len` bytes from `offset` on lie in the same piece as the first, or, like the
    /// first, in none.
    pub(crate) fn reach(&self, offset: usize, len: usize) -> usize {
        let words = self.words_of(offset, len);
        let is_seen = |word: &AtomicU64| word.load(Relaxed) & ADDRESS != 0;
        let Some((first, rest)) = words.split_first() else { return len };
        let goes_on =
            |word: &&AtomicU64| is_seen(word) == is_seen(first) && word.load(Relaxed) & HEAD == 0;
        let granules = 1 + rest.iter().take_while(goes_on).count();
        len.min(granules * self.granularity - offset % self.granularity)
    }

    /// Where the device sees `len` bytes from `offset` on, if it sees them all, in one piece or in
    /// pieces that follow each other.
    pub(crate) fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        let end = offset.checked_add(len.max(1))?;
        let first = offset - offset % self.granularity;
        let words = self.words.get(first / self.granularity..end.div_ceil(self.granularity))?;
        let address = words.first()?.load(Relaxed) & ADDRESS;
        let follows = |(index, word): (usize, &AtomicU64)| {
            let address = address + (index * self.granularity) as u64;
            word.load(Relaxed) & ADDRESS == address
        };
        let is_seen = address != 0 && words.iter().enumerate().all(follows);
        is_seen.then_some(address + (offset - first) as u64)
    }

    /// Notes a number below 4 for the range that was committed at `offset`.
    pub(crate) fn set_tier(&self, offset: usize, tier: u8) {
        for word in self.words_of(offset, self.granularity) {
            word.fetch_or(u64::from(tier) << TIER, Relaxed);
        }
    }

    /// The number noted at `offset`.
    pub(crate) fn tier(&self, offset: usize) -> u8 {
        let word = self.words_of(offset, self.granularity).first();
        word.map_or(0, |word| u8::try_from(word.load(Relaxed) >> TIER & 3).unwrap_or(0))
    }

    fn words_of(&self, offset: usize, len: usize) -> &[AtomicU64] {
        self.words.get(self.granules(offset, len)).unwrap_or_default()
    }

    fn granules(&self, offset: usize, len: usize) -> Range<usize> {
        offset / self.granularity..offset.saturating_add(len).div_ceil(self.granularity)
    }
}

const COMMITTED: u64 = 1;
const HEAD: u64 = 2;
const FIRST: u64 = 4;
const TIER: u32 = 3;
const ADDRESS: u64 = !0xfff;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const G: usize = 4096;

    #[test]
    fn a_range_is_claimed_all_or_nothing() {
        let map = PieceMap::new(8 * G, G).unwrap();
        assert!(map.claim(2 * G, 2 * G));
        assert!(!map.claim(0, 3 * G));
        assert!(!map.is_committed(0, G));
        assert!(map.is_committed(2 * G, 2 * G));
        assert!(!map.claim(7 * G, 2 * G));
        assert!(!map.claim(0, 0));
        map.release(2 * G, 2 * G);
        assert!(map.claim(0, 8 * G));
    }

    #[test]
    fn a_part_of_a_claim_is_not_one() {
        let map = PieceMap::new(8 * G, G).unwrap();
        assert!(map.claim(G, 3 * G) && map.claim(4 * G, 2 * G) && !map.claim(3 * G, G));
        assert!(map.is_one_claim(G, 3 * G) && map.is_one_claim(4 * G, 2 * G));
        for (offset, len) in
            [(G, G), (G, 2 * G), (2 * G, 2 * G), (G, 5 * G), (3 * G, 3 * G), (0, G), (G, 0)]
        {
            assert!(!map.is_one_claim(offset, len), "{} of {}", len / G, offset / G);
        }
        map.begin_piece(4 * G, G, 0x10_0000);
        map.end_piece(4 * G);
        assert!(map.is_one_claim(4 * G, 2 * G) && !map.is_one_claim(7 * G, 4 * G));
        map.release(G, 3 * G);
        assert!(!map.is_one_claim(G, 3 * G) && map.claim(0, 4 * G));
    }

    #[test]
    fn pieces_have_addresses_of_their_own() {
        let map = PieceMap::new(8 * G, G).unwrap();
        assert!(map.claim(0, 6 * G));
        map.begin_piece(0, 2 * G, 0x10_0000);
        map.begin_piece(2 * G, 2 * G, 0x10_2000);
        map.begin_piece(4 * G, 2 * G, 0x90_0000);
        assert_eq!(map.all_pieces().collect::<Vec<_>>(), [0, 2 * G, 4 * G]);
        assert_eq!(map.device_address(10, 1), Some(0x10_000a));
        assert_eq!(map.device_address(G, 3 * G), Some(0x10_1000));
        assert_eq!(map.device_address(G, 3 * G + 1), None);
        assert_eq!(map.device_address(5 * G + 7, G - 7), Some(0x90_1007));
        assert_eq!(map.device_address(5 * G, G + 1), None);
        map.end_piece(2 * G);
        assert_eq!(map.all_pieces().collect::<Vec<_>>(), [0, 4 * G]);
        assert_eq!(
            (map.device_address(2 * G, 1), map.device_address(4 * G, 1)),
            (None, Some(0x90_0000))
        );
        assert!(map.is_committed(0, 6 * G));
    }

    #[test]
    fn a_reach_ends_with_the_piece_or_where_one_begins() {
        let map = PieceMap::new(8 * G, G).unwrap();
        assert!(map.claim(0, 7 * G));
        map.begin_piece(2 * G, 2 * G, 0x10_0000);
        map.begin_piece(4 * G, G, 0x10_2000);
        let reach = |offset| map.reach(offset, 8 * G - offset);
        assert_eq!([0, 5, G].map(reach), [2 * G, 2 * G - 5, G]);
        assert_eq!([2 * G, 3 * G + 1, 4 * G, 5 * G - 1].map(reach), [2 * G, G - 1, G, 1]);
        assert_eq!([5 * G, 8 * G - 1].map(reach), [3 * G, 1]);
        assert_eq!(
            (map.reach(2 * G, 7), map.reach(4 * G - 7, 7), map.reach(4 * G - 7, 8)),
            (7, 7, 7)
        );
        assert_eq!(
            (map.reach(9 * G, 3), map.reach(0, 0), map.reach(usize::MAX, usize::MAX)),
            (3, 0, usize::MAX)
        );
    }

    #[test]
    fn a_tier_is_kept_until_the_release() {
        let map = PieceMap::new(2 * G, G).unwrap();
        assert!(map.claim(0, 2 * G));
        map.set_tier(0, 2);
        map.begin_piece(0, 2 * G, 0x1000);
        assert_eq!(map.tier(0), 2);
        map.release(0, 2 * G);
        assert_eq!(map.tier(0), 0);
    }
}
