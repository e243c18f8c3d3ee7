//! Pieces: ranges that were committed by one call each, and how much of each is in use.

use std::collections::{BTreeMap, BTreeSet};

use super::Slices;

/// How large pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PiecePolicy {
    /// Granules in a piece; `None`: a power of two of about a 64th of what is committed.
    pub(crate) fixed: Option<u32>,
    /// The most granules of a piece that is not longer for one block's sake.
    pub(crate) most: u32,
    /// Every run lies in one piece.
    pub(crate) inside_pieces: bool,
    /// Memory comes on both sides of the first long run, and not above it alone.
    pub(crate) grows_down: bool,
}

/// The pieces of a span.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    by_start: BTreeMap<u32, Piece>,
    /// The starts of those of which all is free.
    free: BTreeSet<u32>,
    free_slices: u32,
    slices: u32,
    /// Slices of pieces that start in the low part of the span.
    low_slices: u32,
    border: u32,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u32,
    /// Slices of runs and of what streams have retired.
    used: u32,
    /// When a trim first saw it free; `None` until then.
    idle: Option<u64>,
    /// Whether a decommit of it has failed. It is in use as a whole then, for ever.
    is_lost: bool,
}

impl Pieces {
    /// No pieces, in a span of which the part below `border` is low.
    pub(super) fn new(border: u32) -> Self {
        Self { border, ..Self::default() }
    }

    /// Adds a piece of which `used` slices are in use.
    pub(super) fn add(&mut self, piece: Slices, used: u32) {
        let len = piece.end - piece.start;
        self.slices += len;
        self.low_slices += if piece.start < self.border { len } else { 0 };
        self.by_start
            .insert(piece.start, Piece { end: piece.end, used, idle: None, is_lost: false });
        if used == 0 {
            self.note_free(&piece);
        }
    }

    /// Removes a piece that is in use as a whole: by the thread that decommits it.
    pub(super) fn remove(&mut self, start: u32) {
        let removed = self.by_start.remove(&start);
        debug_assert!(removed.is_some_and(|piece| piece.used == piece.end - start));
        let len = removed.map_or(0, |piece| piece.end - start);
        self.slices -= len;
        self.low_slices -= if start < self.border { len } else { 0 };
    }

    /// Notes that a decommit of a piece has failed.
    pub(super) fn lose(&mut self, start: u32) {
        self.update(start, |piece| {
            piece.is_lost = true;
            true
        });
    }

    /// The piece that a slice lies in.
    pub(super) fn around(&self, slice: u32) -> Option<Slices> {
        let (&start, piece) = self.by_start.range(..=slice).next_back()?;
        (slice < piece.end).then_some(start..piece.end)
    }

    /// The pieces of which all is free, lowest first.
    pub(super) fn free(&self) -> impl DoubleEndedIterator<Item = Slices> + '_ {
        self.free.iter().filter_map(|start| Some(*start..self.by_start.get(start)?.end))
    }

    /// Slices that are committed: in the low part, and in all.
    pub(super) fn committed(&self) -> [u32; 2] {
        [self.low_slices, self.slices]
    }

    pub(super) fn free_slices(&self) -> u32 {
        self.free_slices
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Slices> + '_ {
        let kept = self.by_start.iter().filter(|(_, piece)| !piece.is_lost);
        kept.map(|(&start, piece)| start..piece.end)
    }

    /// Notes when a free piece was first seen free. Returns when that was.
    pub(super) fn note_idle(&mut self, start: u32, now: u64) -> u64 {
        self.by_start.get_mut(&start).map_or(now, |piece| *piece.idle.get_or_insert(now))
    }

    /// Counts a range as used.
    pub(super) fn add_used(&mut self, range: Slices) {
        self.each(range, |pieces, piece, slices| {
            let was_free = pieces.update(piece.start, |it| {
                let was_free = it.used == 0;
                it.used += slices;
                it.idle = None;
                was_free
            });
            if was_free {
                pieces.free.remove(&piece.start);
                pieces.free_slices -= piece.end - piece.start;
            }
        });
    }

    /// Counts a range as free.
    pub(super) fn remove_used(&mut self, range: Slices) {
        self.each(range, |pieces, piece, slices| {
            let is_free = pieces.update(piece.start, |it| {
                it.used -= slices;
                it.used == 0
            });
            if is_free {
                pieces.note_free(&piece);
            }
        });
    }

    /// Shows `count` each piece that a range touches, with how many slices of it that are.
    fn each(&mut self, range: Slices, mut count: impl FnMut(&mut Self, Slices, u32)) {
        let mut at = range.start;
        while at < range.end
            && let Some(piece) = self.next(at).filter(|piece| piece.start < range.end)
        {
            let (start, end) = (piece.start.max(range.start), piece.end.min(range.end));
            at = piece.end;
            count(self, piece, end - start);
        }
    }

    /// The first piece that ends behind `at`.
    fn next(&self, at: u32) -> Option<Slices> {
        self.around(at).or_else(|| {
            let (&start, piece) = self.by_start.range(at..).next()?;
            Some(start..piece.end)
        })
    }

    fn update(&mut self, start: u32, update: impl FnOnce(&mut Piece) -> bool) -> bool {
        self.by_start.get_mut(&start).is_some_and(update)
    }

    fn note_free(&mut self, piece: &Slices) {
        self.free.insert(piece.start);
        self.free_slices += piece.end - piece.start;
    }
}
