//! The table of chunks, and what finds them by kind.

use std::collections::{BTreeMap, BTreeSet};

use super::{Retirement, Slices};

/// What a range of slices is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses without memory.
    Gap,
    /// Memory that is free for all.
    Hole,
    /// Memory that is free for one stream, and for all when that is past a ticket.
    Retired(Retirement),
    /// A run, by its number; or a range that is being committed or decommitted, or is lost.
    Taken {
        /// How many runs there had been.
        born: u64,
    },
}

/// A range of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) kind: Kind,
}

/// All chunks of a span: they cover it and do not overlap.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The end and the kind of each chunk, by its start.
    table: BTreeMap<u32, (u32, Kind)>,
    pub(super) holes: [BySize; 2],
    pub(super) gaps: [BySize; 2],
    /// The low part of the span ends here. Chunks belong to the part that they start in.
    pub(super) border: u32,
    /// Tickets and starts of what each stream has retired.
    retired: BTreeMap<u32, BTreeSet<(u64, u32)>>,
    retired_slices: u32,
}

/// Chunks of one kind, by length and by start.
#[derive(Debug, Default)]
pub(super) struct BySize {
    set: BTreeSet<(u32, u32)>,
    slices: u32,
}

impl Kind {
    /// Whether a piece that has some of it cannot go back.
    pub(super) fn is_used(self) -> bool {
        matches!(self, Self::Retired(_) | Self::Taken { .. })
    }

    /// Whether a run for `owner` may be there.
    pub(super) fn serves(self, owner: Option<u32>) -> bool {
        match self {
            Self::Hole => true,
            Self::Retired(by) => Some(by.owner) == owner,
            Self::Gap | Self::Taken { .. } => false,
        }
    }
}

impl Chunk {
    pub(super) fn range(self) -> Slices {
        self.start..self.end
    }

    pub(super) fn len(self) -> u32 {
        self.end - self.start
    }
}

impl Chunks {
    /// One gap, of which the part below `border` is low.
    pub(super) fn new(slices: u32, border: u32) -> Self {
        let mut chunks = Self {
            table: BTreeMap::new(),
            holes: Default::default(),
            gaps: Default::default(),
            border,
            retired: BTreeMap::new(),
            retired_slices: 0,
        };
        chunks.insert(Chunk { start: 0, end: slices, kind: Kind::Gap });
        chunks
    }

    /// The chunk that a slice of the span lies in.
    pub(super) fn at(&self, slice: u32) -> Chunk {
        // Most often it starts there, or is the last, in which a pool grows: each takes less than
        // half of what the search by a range does.
        let last = self.table.last_key_value().filter(|(start, _)| **start <= slice);
        let found = last
            .or_else(|| self.table.get_key_value(&slice))
            .or_else(|| self.table.range(..slice).next_back());
        // Chunks cover the span, so there is one.
        found.map_or(Chunk { start: slice, end: slice + 1, kind: Kind::Gap }, chunk)
    }

    /// The chunk that ends where another starts.
    pub(super) fn before(&self, start: u32) -> Option<Chunk> {
        self.table.range(..start).next_back().map(chunk)
    }

    /// The chunk that starts where another ends.
    pub(super) fn after(&self, end: u32) -> Option<Chunk> {
        self.table.get_key_value(&end).map(chunk)
    }

    /// The chunks that a range touches, lowest first.
    pub(super) fn within(&self, range: Slices) -> impl Iterator<Item = Chunk> {
        // One by one: most often there is no second.
        let next = move |last: &Chunk| self.after(last.end).filter(|_| last.end < range.end);
        std::iter::successors(Some(self.at(range.start)), next)
    }

    /// The last ticket in a range, 0 if nothing of it is retired.
    pub(super) fn last_ticket_in(&self, range: Slices) -> u64 {
        let tickets = self.within(range).map(|chunk| match chunk.kind {
            Kind::Retired(by) => by.ticket,
            _ => 0,
        });
        tickets.max().unwrap_or(0)
    }

    /// What a stream has retired: tickets and starts, the oldest first.
    pub(super) fn retired_by(
        &self,
        owner: u32,
    ) -> impl DoubleEndedIterator<Item = (u64, u32)> + '_ {
        self.retired.get(&owner).into_iter().flatten().copied()
    }

    /// The streams that have retired memory, each with its first ticket.
    pub(super) fn oldest(&self) -> impl Iterator<Item = Retirement> {
        self.retired.iter().filter_map(|(&owner, chunks)| {
            chunks.first().map(|&(ticket, _)| Retirement { owner, ticket })
        })
    }

    /// The starts of what is taken.
    pub(super) fn taken(&self) -> impl Iterator<Item = u32> + '_ {
        let taken = self.table.iter().filter(|(_, (_, kind))| matches!(kind, Kind::Taken { .. }));
        taken.map(|(&start, _)| start)
    }

    pub(super) fn retired_slices(&self) -> u32 {
        self.retired_slices
    }

    /// Makes a range one chunk of a kind, which is not joined with others. Returns what it was.
    pub(super) fn set(&mut self, range: Slices, kind: Kind) -> Vec<Chunk> {
        let mut parts: Vec<Chunk> = self.within(range.clone()).collect();
        for part in &mut parts {
            let chunk = *part;
            self.unlist(chunk);
            // The entry at the start of the range is written below, in place.
            if chunk.start < range.start {
                self.insert(Chunk { end: range.start, ..chunk });
            } else if chunk.start > range.start {
                self.table.remove(&chunk.start);
            }
            if chunk.end > range.end {
                self.insert(Chunk { start: range.end, ..chunk });
            }
            part.start = chunk.start.max(range.start);
            part.end = chunk.end.min(range.end);
        }
        self.insert(Chunk { start: range.start, end: range.end, kind });
        parts
    }

    /// Joins a chunk that is a hole or a gap with neighbours of the same kind that lie in `within`.
    pub(super) fn join(&mut self, range: Slices, within: Slices) {
        let chunk = self.at(range.start);
        let alike = |other: &Chunk| other.kind == chunk.kind;
        let before = self.before(chunk.start).filter(|it| alike(it) && it.start >= within.start);
        let after = self.after(chunk.end).filter(|it| alike(it) && it.end <= within.end);
        let Some(last) = after.or(before.map(|_| chunk)) else { return };
        let first = before.unwrap_or(chunk);
        self.unlist(chunk);
        if let Some(before) = before {
            self.unlist(before);
            self.table.remove(&chunk.start);
        }
        if let Some(after) = after {
            self.unlist(after);
            self.table.remove(&after.start);
        }
        self.insert(Chunk { end: last.end, ..first });
    }

    /// 0 for the low part, 1 for the high one.
    fn part(&self, start: u32) -> usize {
        usize::from(start >= self.border)
    }

    /// Enters a chunk, in place of one that starts there and is unlisted.
    fn insert(&mut self, chunk: Chunk) {
        self.table.insert(chunk.start, (chunk.end, chunk.kind));
        match chunk.kind {
            Kind::Gap => self.gaps[self.part(chunk.start)].insert(chunk),
            Kind::Hole => self.holes[self.part(chunk.start)].insert(chunk),
            Kind::Retired(by) => {
                self.retired.entry(by.owner).or_default().insert((by.ticket, chunk.start));
                self.retired_slices += chunk.len();
            }
            Kind::Taken { .. } => {}
        }
    }

    /// Takes a chunk from the lists of its kind; its entry in the table stays.
    fn unlist(&mut self, chunk: Chunk) {
        match chunk.kind {
            Kind::Gap => self.gaps[self.part(chunk.start)].remove(chunk),
            Kind::Hole => self.holes[self.part(chunk.start)].remove(chunk),
            Kind::Retired(by) => {
                if let Some(chunks) = self.retired.get_mut(&by.owner) {
                    chunks.remove(&(by.ticket, chunk.start));
                    // A stream that has nothing any more leaves nothing.
                    if chunks.is_empty() {
                        self.retired.remove(&by.owner);
                    }
                }
                self.retired_slices -= chunk.len();
            }
            Kind::Taken { .. } => {}
        }
    }
}

impl BySize {
    /// The starts and lengths of those of at least `len` slices, the shortest first.
    pub(super) fn fitting(&self, len: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.set.range((len, 0)..).map(|&(len, start)| (start, len))
    }

    pub(super) fn longest(&self) -> u32 {
        self.set.last().map_or(0, |&(len, _)| len)
    }

    pub(super) fn slices(&self) -> u32 {
        self.slices
    }

    fn insert(&mut self, chunk: Chunk) {
        self.set.insert((chunk.len(), chunk.start));
        self.slices += chunk.len();
    }

    fn remove(&mut self, chunk: Chunk) {
        self.set.remove(&(chunk.len(), chunk.start));
        self.slices -= chunk.len();
    }
}

fn chunk((&start, &(end, kind)): (&u32, &(u32, Kind))) -> Chunk {
    Chunk { start, end, kind }
}
