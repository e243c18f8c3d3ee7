//! Growth: where memory is to be committed, in which pieces; and which pieces may go back.
//!
//! The calls are made without the lock around the map. Meanwhile the ranges in question count as
//! taken, so that no search and no other call touches them.

use super::chunks::{Chunk, Kind};
use super::{Found, Part, Slices, Space, Wanted};

/// A run that is to be: a range that is the caller's, parts of which have no memory yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Window {
    pub(crate) run: Slices,
    /// Ranges of whole granules to commit, of which the run needs some part.
    pub(crate) missing: Vec<Slices>,
    /// Where the last of them ended before it was rounded up.
    needed: Option<u32>,
    /// As [`Found::ticket`].
    pub(crate) ticket: u64,
    /// What was retired there, to be put back.
    before: Vec<Chunk>,
}

impl Space {
    /// Takes the place where a run needs the fewest granules committed; `None` if there are no
    /// addresses for it.
    pub(crate) fn reserve(&mut self, wanted: Wanted) -> Option<Window> {
        let (start, _) = self.place(&wanted)?;
        let run = start..start + wanted.len;
        let missing = self.missing(run.clone());
        let before: Vec<Chunk> =
            self.chunks.within(run.clone()).filter(|it| it.kind != Kind::Gap).collect();
        let Found { ticket, .. } = self.occupy(run.clone());
        for gap in &missing {
            // Granules are committed whole, so some of it is beside the run.
            for rest in [gap.start..run.start, run.end..gap.end] {
                if rest.start < rest.end {
                    self.change(rest, Kind::Taken { born: 0 });
                }
            }
        }
        let needed = missing.last().map(|gap| gap.end);
        Some(Window { run, missing, needed, ticket, before })
    }

    /// Lengthens the last range of a window to a whole piece, as far as `room` granules and the
    /// gap go.
    ///
    /// A piece is longer than its run so that a pool whose load grows makes few calls. Where about
    /// a piece is free already, the pool grows for want of a long range and not of memory: what is
    /// committed beyond the run would be free as well, and counts in the peak.
    pub(crate) fn round_up(&mut self, window: &mut Window, committed: u32, room: u32) {
        let share = self.share(committed);
        // Where runs lie in one piece, others have no use for a longer one of this run's.
        let is_enough = self.policy.inside_pieces || self.free() > committed / SHARE;
        if is_enough && self.policy.fixed.is_none() {
            return;
        }
        let Some(last) = window.missing.last_mut() else { return };
        let granules = (last.end - last.start) / self.granule;
        let more = (granules.next_multiple_of(share) - granules).min(room) * self.granule;
        let Some(behind) = self.chunks.after(last.end).filter(|it| it.kind == Kind::Gap) else {
            return;
        };
        let end = behind.end.min(last.end + more);
        if end > last.end {
            self.change(last.end..end, Kind::Taken { born: 0 });
            last.end = end;
        }
    }

    /// The pieces that the ranges of a window are committed in.
    ///
    /// Of a long range each is about a quarter, or as long as pieces are now: so that it can go
    /// back by itself.
    pub(crate) fn cut(&self, window: &Window, committed: u32) -> Vec<Slices> {
        let share = self.share(committed);
        let mut pieces = Vec::new();
        for gap in &window.missing {
            let granules = (gap.end - gap.start) / self.granule;
            let parts = if granules < SHORT { 2 } else { 4 };
            let part = granules.div_ceil(parts).next_power_of_two().min(self.policy.most);
            let most = match (self.policy.inside_pieces, self.policy.fixed) {
                (true, _) => granules,
                (false, Some(fixed)) => fixed,
                (false, None) => share.max(part),
            };
            let starts = (gap.start..gap.end).step_by((most * self.granule) as usize);
            pieces.extend(starts.map(|at| at..gap.end.min(at + most * self.granule)));
        }
        pieces
    }

    /// A piece of a window is committed.
    pub(crate) fn add_piece(&mut self, piece: Slices) {
        self.pieces.add(piece.clone(), piece.end - piece.start);
    }

    /// All pieces of a window are committed: its run is the caller's, and what is beside it free.
    pub(crate) fn settle(&mut self, window: &Window) {
        for gap in &window.missing {
            let (start, end) = (window.run.start, window.run.end);
            for rest in [gap.start..gap.end.min(start), gap.start.max(end)..gap.end] {
                if rest.start < rest.end {
                    self.give_within_pieces(rest);
                }
            }
        }
    }

    /// A window could not be committed, and what was has been given back: it is no run.
    pub(crate) fn abandon(&mut self, window: &Window) {
        for gap in &window.missing {
            let mut at = gap.start;
            while at < gap.end {
                match self.pieces.around(at) {
                    // Lost on the way back.
                    Some(piece) => at = piece.end,
                    None => {
                        self.change(at..at + self.granule, Kind::Gap);
                        self.chunks.join(at..at + self.granule, 0..u32::MAX);
                        at += self.granule;
                    }
                }
            }
        }
        for chunk in &window.before {
            let (start, end) = (chunk.start.max(window.run.start), chunk.end.min(window.run.end));
            match chunk.kind {
                Kind::Hole => self.give(start..end),
                kind => self.change(start..end, kind),
            }
        }
    }

    /// Shortens a window that was rounded up to what its run needs. Returns where that ends; `None`
    /// if it needs all.
    pub(crate) fn shrink(&mut self, window: &mut Window) -> Option<u32> {
        let last = window.missing.last_mut()?;
        let end = window.needed.filter(|end| *end < last.end)?;
        let surplus = end..last.end;
        self.change(surplus.clone(), Kind::Gap);
        self.chunks.join(surplus, 0..u32::MAX);
        last.end = end;
        Some(end)
    }

    /// Takes a free piece that is to go back: the highest.
    pub(crate) fn leave(&mut self) -> Option<Slices> {
        let piece = self.pieces.free().next_back()?;
        self.change(piece.clone(), Kind::Taken { born: 0 });
        Some(piece)
    }

    /// Takes the free pieces that are to go back by age: those above `keep` slices, seen free
    /// `idle` ago.
    pub(crate) fn leave_idle(&mut self, now: u64, idle: u64, keep: u32) -> Vec<Slices> {
        let free: Vec<Slices> = self.pieces.free().collect();
        let mut kept = 0;
        let mut leaving = Vec::new();
        for piece in free {
            let len = piece.end - piece.start;
            let since = self.pieces.note_idle(piece.start, now);
            if kept + len <= keep {
                kept += len;
            } else if now.saturating_sub(since) >= idle {
                self.change(piece.clone(), Kind::Taken { born: 0 });
                leaving.push(piece);
            }
        }
        leaving
    }

    /// A piece that was leaving is decommitted.
    pub(crate) fn left(&mut self, piece: Slices) {
        self.pieces.remove(piece.start);
        self.change(piece.clone(), Kind::Gap);
        self.chunks.join(piece, 0..u32::MAX);
    }

    /// A piece that was leaving could not be decommitted: it is not used again.
    pub(crate) fn lose(&mut self, piece: &Slices) {
        self.pieces.lose(piece.start);
    }

    /// All pieces that are not lost.
    pub(crate) fn all_pieces(&self) -> impl Iterator<Item = Slices> + '_ {
        self.pieces.all()
    }

    /// The start of a run that needs the fewest granules committed, and how many.
    fn place(&self, wanted: &Wanted) -> Option<(u32, u32)> {
        let border = self.chunks.border;
        let gaps = self.chunks.gaps.iter().flat_map(|gaps| gaps.fitting(0));
        let candidates = gaps.flat_map(|(start, len)| {
            let gap = start..start + len;
            self.around_gap(gap.clone(), wanted).map(move |start| (start, gap.clone()))
        });
        let is_elsewhere = |start: u32| match wanted.part {
            Part::Low => start >= border,
            Part::High => start < border,
            Part::Any => false,
        };
        let cost = |start: u32, gap: Slices| {
            let run = start..start + wanted.len;
            if gap.start <= run.start && run.end <= gap.end {
                let granules = self.granules_around(run);
                granules.end - granules.start
            } else {
                self.missing(run).iter().map(|it| it.end - it.start).sum()
            }
        };
        // Where both sides cost the same, upwards: there are more addresses.
        let is_below = |start: u32| wanted.part != Part::Low && start < self.origin;
        candidates
            .map(|(start, gap)| (start, cost(start, gap)))
            .min_by_key(|&(start, cost)| (is_elsewhere(start), cost, is_below(start), start))
    }

    /// Where runs would lie that use a gap: behind the free memory below it, or before that above.
    fn around_gap(&self, gap: Slices, wanted: &Wanted) -> impl Iterator<Item = u32> + use<> {
        let serves = |chunk: &Chunk| chunk.kind.serves(wanted.owner);
        let open = |chunk: &Chunk| chunk.kind == Kind::Gap || serves(chunk);
        let len = if self.policy.inside_pieces { 0 } else { wanted.len };
        let (mut low, mut free_from) = (gap.start, gap.start);
        while let Some(before) = self.chunks.before(low).filter(open)
            && gap.start - low < len
        {
            if free_from == low && serves(&before) {
                free_from = before.start;
            }
            low = before.start;
        }
        let (mut high, mut free_to) = (gap.end, gap.end);
        while let Some(after) = self.chunks.after(high).filter(open)
            && high - gap.end < len
        {
            if free_to == high && serves(&after) {
                free_to = after.end;
            }
            high = after.end;
        }
        let last = high.checked_sub(wanted.len).map(|last| last - last % wanted.align);
        let first = wanted.first_in(low);
        let last = last.filter(|last| first <= *last);
        let (len, align) = (wanted.len, wanted.align);
        // Where there is no memory yet, long runs begin at the origin.
        let first_place = if wanted.part == Part::Low { self.chunks.border } else { self.origin };
        last.into_iter().flat_map(move |last| {
            [free_from, first_place, free_to.saturating_sub(len)]
                .map(|start| start.next_multiple_of(align).clamp(first, last))
        })
    }

    /// The granules without memory in a range.
    fn missing(&self, range: Slices) -> Vec<Slices> {
        let gaps = self.chunks.within(range.clone()).filter(|chunk| chunk.kind == Kind::Gap);
        gaps.map(|gap| self.granules_around(gap.start.max(range.start)..gap.end.min(range.end)))
            .collect()
    }

    /// A range, to the ends of its granules.
    fn granules_around(&self, range: Slices) -> Slices {
        range.start - range.start % self.granule..range.end.next_multiple_of(self.granule)
    }

    /// Granules in a piece, for a pool that has so many slices committed.
    fn share(&self, committed: u32) -> u32 {
        let granules = committed / self.granule;
        self.policy.fixed.unwrap_or_else(|| power_of_two(granules / SHARE).min(self.policy.most))
    }

    /// Gives a range back that may be of several pieces.
    fn give_within_pieces(&mut self, range: Slices) {
        if !self.policy.inside_pieces {
            return self.give(range);
        }
        let mut at = range.start;
        while at < range.end {
            let end = self.pieces.around(at).map_or(range.end, |piece| piece.end.min(range.end));
            self.give(at..end);
            at = end;
        }
    }
}

/// The largest power of two that is not above a number; 1 for 0.
fn power_of_two(number: u32) -> u32 {
    1 << number.max(1).ilog2()
}

/// A piece is about this part of what is committed.
const SHARE: u32 = 64;

/// Ranges of fewer granules are committed in two pieces, longer ones in four.
const SHORT: u32 = 32;
