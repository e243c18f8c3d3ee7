//! The search for a run in what has memory.

use super::chunks::{BySize, Chunk, Kind};
use super::{LOW, Part, Slices, Space, Wanted};

impl Space {
    /// Where a run would lie: in the shortest range that is free, or free and the stream's own,
    /// and long enough.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<u32> {
        let [low, high] = &self.chunks.holes;
        let best = match wanted.part {
            Part::Low if self.low_is_small() => self.best(&[low], wanted),
            Part::Low => self.best(&[low], wanted).or_else(|| self.best(&[high], wanted)),
            Part::High => self.best(&[high], wanted).or_else(|| self.best(&[low], wanted)),
            Part::Any => self.best(&[low, high], wanted),
        };
        best.map(|best| self.side(best, wanted))
    }

    /// The shortest range for a run among some holes, and what the stream has retired.
    fn best(&self, holes: &[&BySize], wanted: &Wanted) -> Option<Slices> {
        // A hole beside what the stream has retired is part of a longer range, which is below.
        let is_whole = |hole: &Slices| self.extent(hole.start, wanted.owner) == *hole;
        let holes = holes.iter().filter_map(|holes| {
            let fitting = holes.fitting(wanted.len).map(|(start, len)| start..start + len);
            fitting.into_iter().find(|hole| wanted.fits(hole) && is_whole(hole))
        });
        let own = wanted.owner.into_iter().flat_map(|owner| self.chunks.retired_by(owner));
        let own = own.map(|(_, start)| self.extent(start, wanted.owner));
        let own = own.filter(|extent| wanted.fits(extent));
        holes.chain(own).min_by_key(|it| (it.end - it.start, it.start))
    }

    /// Whether the low part may grow by a granule for runs that belong there.
    fn low_is_small(&self) -> bool {
        let [low, all] = self.pieces.committed();
        self.chunks.border > 0 && low + self.granule <= all / LOW
    }

    /// The longest range around a slice in which runs for `owner` may lie.
    fn extent(&self, slice: u32, owner: Option<u32>) -> Slices {
        let within = self.bounds(slice);
        let chunk = self.chunks.at(slice);
        let serves = |chunk: &Chunk| chunk.kind.serves(owner);
        let (mut start, mut end) = (chunk.start, chunk.end);
        while let Some(before) = self.chunks.before(start).filter(serves)
            && start > within.start
        {
            start = before.start;
        }
        while let Some(after) = self.chunks.after(end).filter(serves)
            && end < within.end
        {
            end = after.end;
        }
        start.max(within.start)..end.min(within.end)
    }

    /// The range that a run at a slice must not leave.
    fn bounds(&self, slice: u32) -> Slices {
        let piece = || self.pieces.around(slice);
        if self.policy.inside_pieces { piece().unwrap_or(slice..slice) } else { 0..u32::MAX }
    }

    /// The side of a free range at which a run lies: the lower one, or that of the older neighbour
    /// for a run of a granule or more. The ends of the committed memory are older than any run.
    fn side(&self, range: Slices, wanted: &Wanted) -> u32 {
        let low = wanted.first_in(range.start);
        if wanted.len < self.granule {
            return low;
        }
        let before = self.chunks.before(range.start);
        let after = self.chunks.after(range.end);
        if age(after) < age(before) {
            let high = range.end - wanted.len;
            (high - high % wanted.align).max(low)
        } else {
            low
        }
    }
}

impl Wanted {
    /// The first place from `start` on at which the run may begin.
    pub(super) fn first_in(&self, start: u32) -> u32 {
        start.next_multiple_of(self.align)
    }

    /// Whether a range has room for the run.
    pub(super) fn fits(&self, range: &Slices) -> bool {
        let first = range.start.checked_next_multiple_of(self.align);
        first.and_then(|first| first.checked_add(self.len)).is_some_and(|end| end <= range.end)
    }
}

/// When a neighbour was taken: 0 for none, and later than any for what will soon be free.
fn age(neighbour: Option<Chunk>) -> u64 {
    match neighbour.map(|chunk| chunk.kind) {
        Some(Kind::Taken { born }) => born,
        Some(Kind::Retired(_)) => u64::MAX,
        Some(Kind::Gap | Kind::Hole) | None => 0,
    }
}
