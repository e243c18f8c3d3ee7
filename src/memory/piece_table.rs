//! The pieces of a resource that a transport has registered, and the leases on them.
//!
//! ```text
//!   words[granule]   of a piece that begins there: see `lockfree::piece_word`
//!   lens[granule]    its granules
//!   heads[granule]   one more than the granule at which the piece around this one begins
//! ```
//!
//! * `heads`: written by the thread that attaches, before `open`; read by all. Relaxed: a reader
//!   has its address from that thread, and what it finds is looked up in the other two tables.
//! * `lens`: as `heads`. The `Release` of `begin` pairs with the `Acquire` of `find`: a reader that
//!   finds the length of a later piece finds the word of that piece too, and sees another
//!   generation.

use std::ops::Range;

use crate::lockfree::piece_word::{PieceFault, PieceWord};
use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::zeroed;

/// The pieces of one span.
#[derive(Debug)]
pub(crate) struct PieceTable {
    words: Box<[AtomicU64]>,
    heads: Box<[AtomicU32]>,
    lens: Box<[AtomicU32]>,
    granularity: usize,
}

/// A piece by its place in the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The granule at which it begins.
    pub(crate) index: u32,
    pub(crate) generation: u32,
    /// Offset and length in bytes.
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl PieceTable {
    /// The table of a span of `size` bytes, which has no pieces. Where there is no memory for it,
    /// it has no places either: no piece [begins](Self::begin).
    pub(crate) fn new(size: usize, granularity: usize) -> Self {
        let of = |granules| Some((zeroed(granules)?, zeroed(granules)?, zeroed(granules)?));
        let (words, heads, lens) = of(size / granularity).unwrap_or_default();
        Self { words, heads, lens, granularity }
    }

    /// Claims the place of a piece, which nothing finds before it is [opened](Self::open).
    ///
    /// The range is the caller's: no other piece lies in it, and no other call claims one there.
    pub(crate) fn begin(&self, offset: usize, len: usize) -> Result<Place, PieceFault> {
        let index = self.index(offset);
        let generation = self.word(index).ok_or(PieceFault::State)?.begin()?;
        let granules = self.granules(offset, len);
        // Release: pairs with the Acquire of `find`.
        self.lens[granules.start].store(self.index(len), Release);
        for head in &self.heads[granules] {
            head.store(index + 1, Relaxed);
        }
        Ok(Place { index, generation, offset, len })
    }

    /// The piece is attached, and may be leased.
    pub(crate) fn open(&self, place: Place) {
        self.word(place.index).into_iter().for_each(PieceWord::open);
    }

    /// The piece is gone.
    pub(crate) fn close(&self, place: Place) {
        self.word(place.index).into_iter().for_each(PieceWord::close);
    }

    /// The piece is lost: its place is not used again.
    pub(crate) fn lose(&self, place: Place) {
        self.word(place.index).into_iter().for_each(PieceWord::lose);
    }

    /// Claims the piece that is exactly a range, to detach it.
    pub(crate) fn retire(&self, offset: usize, len: usize) -> Result<Place, PieceFault> {
        let found = self.find(offset);
        let place = found.filter(|place| (place.offset, place.len) == (offset, len));
        let place = place.ok_or(PieceFault::State)?;
        self.word(place.index).ok_or(PieceFault::State)?.retire()?;
        Ok(place)
    }

    /// The piece around an offset, in constant time.
    pub(crate) fn find(&self, offset: usize) -> Option<Place> {
        let granule = offset / self.granularity;
        let index = self.heads.get(granule)?.load(Relaxed).checked_sub(1)?;
        self.at(index).filter(|place| granule < (place.offset + place.len) / self.granularity)
    }

    /// The piece that begins at a granule.
    pub(crate) fn at(&self, index: u32) -> Option<Place> {
        let word = self.word(index)?;
        let generation = word.generation();
        // Acquire: pairs with the Release of `begin`.
        let len = self.lens[index as usize].load(Acquire) as usize * self.granularity;
        let is_same = generation != 0 && word.generation() == generation;
        let offset = index as usize * self.granularity;
        is_same.then_some(Place { index, generation, offset, len })
    }

    /// All pieces that are attached.
    pub(crate) fn all(&self) -> impl Iterator<Item = Place> {
        let mut next = 0;
        std::iter::from_fn(move || {
            while next < self.words.len() {
                let place = u32::try_from(next).ok().and_then(|index| self.at(index));
                next += place.map_or(1, |place| (place.len / self.granularity).max(1));
                if place.is_some() {
                    return place;
                }
            }
            None
        })
    }

    /// Takes a lease on the piece of a generation that begins at a granule.
    pub(crate) fn lease(&self, index: u32, generation: u32) -> Result<Place, PieceFault> {
        let word = self.word(index).ok_or(PieceFault::Stale(0))?;
        word.lease(generation)?;
        let (at, granularity) = (index as usize, self.granularity);
        // The lease holds the piece: its length stays.
        let len = self.lens[at].load(Relaxed) as usize * granularity;
        Ok(Place { index, generation, offset: at * granularity, len })
    }

    /// Ends a lease.
    pub(crate) fn end(&self, place: Place) {
        if let Some(word) = self.word(place.index) {
            word.end();
        }
    }

    /// How many leases hold a piece.
    pub(crate) fn leases(&self, place: Place) -> u32 {
        self.word(place.index).map_or(0, PieceWord::leases)
    }

    fn word(&self, index: u32) -> Option<PieceWord<'_>> {
        self.words.get(index as usize).map(PieceWord::new)
    }

    fn index(&self, offset: usize) -> u32 {
        u32::try_from(offset / self.granularity).unwrap_or(u32::MAX)
    }

    fn granules(&self, offset: usize, len: usize) -> Range<usize> {
        let end = (offset.saturating_add(len) / self.granularity).min(self.words.len());
        offset / self.granularity..end
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const G: usize = 4096;

    #[test]
    fn a_piece_is_found_by_every_offset_in_it_and_by_no_other() {
        let table = PieceTable::new(8 * G, G);
        let piece = table.begin(2 * G, 3 * G).unwrap();
        assert_eq!(table.find(2 * G), None, "before it is open");
        table.open(piece);
        let found = |offset| table.find(offset).map(|place| place.offset);
        assert_eq!([G, 2 * G, 5 * G - 1, 5 * G].map(found), [None, Some(2 * G), Some(2 * G), None]);
        assert_eq!(table.retire(2 * G, G), Err(PieceFault::State), "a part");
        let retired = table.retire(2 * G, 3 * G).unwrap();
        table.close(retired);
        assert_eq!((found(3 * G), table.all().count()), (None, 0));
        // Of what is gone, granules of the table still tell; they are not believed.
        let [low, high] = [(G, 2 * G), (3 * G, G)].map(|(at, len)| table.begin(at, len).unwrap());
        table.open(low);
        table.open(high);
        assert_eq!([2 * G, 3 * G, 4 * G].map(found), [Some(G), Some(3 * G), None]);
        assert_eq!(table.all().collect::<Vec<_>>(), [low, high]);
    }

    #[test]
    fn a_lease_is_refused_by_generation_after_the_place_is_used_again() {
        let table = PieceTable::new(4 * G, G);
        let old = table.begin(0, 2 * G).unwrap();
        table.open(old);
        let lease = table.lease(0, old.generation).unwrap();
        assert_eq!(
            (lease, table.leases(old), table.retire(0, 2 * G)),
            (old, 1, Err(PieceFault::Leased))
        );
        table.end(lease);
        let retired = table.retire(0, 2 * G).unwrap();
        table.close(retired);
        assert_eq!(table.lease(0, old.generation), Err(PieceFault::Stale(0)));
        let new = table.begin(0, G).unwrap();
        table.open(new);
        assert_eq!(table.lease(0, old.generation), Err(PieceFault::Stale(new.generation)));
        assert_eq!(table.lease(0, new.generation).map(|place| place.len), Ok(G));
        assert_eq!(table.lease(9, 1), Err(PieceFault::Stale(0)));
    }
}
