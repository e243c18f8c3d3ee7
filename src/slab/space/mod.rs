//! The map of a span: which slices are runs, free, retired by a stream, or without memory.
//!
//! ```text
//!   slices   |run    |hole |run|retired |hole|run          |gap             |run   |hole |
//!   pieces   |       2 MiB       |          4 MiB          |                |   2 MiB    |
//! ```
//!
//! A *piece* is what one commit obtained, and goes back as one. A *chunk* is a range of slices of
//! one kind, wherever pieces end. Chunks cover the span; two holes, or two gaps, that touch are
//! one. Runs are cut from holes and join them again without a call to the resource.
//!
//! Plain data: the store's lock is around all of it. Every operation takes time proportional to the
//! logarithm of the number of chunks, times the chunks and pieces that the range in question
//! touches; a search for a stream looks at each chunk that this stream has retired, too; growth, at
//! each gap. Nothing is proportional to the span, and a span that is not used takes no memory here.
//!
//! Runs of up to 128 KiB, which slabs are, lie in the low part of the span, an eighth, as long as
//! that is little of what is committed: so they do not stand in places that long runs need. The
//! others lie above, as long as there are addresses. A small span has no low part.
//!
//! In a span of twice the pool's limit, long runs begin a little above the low part, so that the
//! pool can grow on both sides of them: where a block at one end has gone and the next is longer,
//! the addresses beyond that end make up for what it lacks. Of a window of two large blocks, one
//! lies at each end, and all that is free is one range between them.
//!
//! Searches are by best fit. A run of a granule or more lies at the side of its hole where the
//! older neighbour is, so that what lives long is kept together.

mod chunks;
mod grow;
mod pieces;
mod search;
#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "a failed test panics")]
mod tests;

use std::ops::Range;

use self::chunks::{BySize, Chunks, Kind};
use self::pieces::Pieces;

pub(crate) use self::grow::Window;
pub(crate) use self::pieces::PiecePolicy;

/// Slices, from the first to behind the last.
pub(crate) type Slices = Range<u32>;

/// The map of one span.
#[derive(Debug)]
pub(crate) struct Space {
    chunks: Chunks,
    pieces: Pieces,
    /// Slices in a granule.
    granule: u32,
    policy: PiecePolicy,
    /// Where the first run lies that is not of the low part.
    origin: u32,
    /// Runs so far: a run's age.
    runs: u64,
}

/// The place in a stream's work behind which memory is free for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Retirement {
    /// The stream, by a number that the caller gives.
    pub(crate) owner: u32,
    /// The stream's ticket.
    pub(crate) ticket: u64,
}

/// What a search is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Slices.
    pub(crate) len: u32,
    /// The run starts at a multiple of so many slices.
    pub(crate) align: u32,
    /// The stream whose retired memory will do, too.
    pub(crate) owner: Option<u32>,
    /// Where the run should lie.
    pub(crate) part: Part,
}

/// The part of the span in which a run should lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The low part, which grows for it as long as it is small.
    Low,
    /// Above the low part, if there is memory.
    High,
    /// Anywhere.
    Any,
}

/// A run that a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: u32,
    /// The last ticket of what the stream had retired there; 0 if there was nothing of it.
    pub(crate) ticket: u64,
}

impl Space {
    /// A span of `slices` slices without memory; granules of `granule` slices.
    pub(crate) fn new(slices: u32, granule: u32, policy: PiecePolicy) -> Self {
        let is_small = slices / granule < SMALL;
        let border = if is_small { 0 } else { slices / LOW / granule * granule };
        let below = if policy.grows_down { border / BELOW / granule * granule } else { 0 };
        let origin = border + below;
        let (chunks, pieces) = (Chunks::new(slices, border), Pieces::new(border));
        Self { chunks, pieces, granule, policy, runs: 0, origin }
    }

    /// Takes a run of what has memory; `None` if no place will do.
    pub(crate) fn take(&mut self, wanted: Wanted) -> Option<Found> {
        let start = self.find(&wanted)?;
        Some(self.occupy(start..start + wanted.len))
    }

    /// Gives a run back: it is free for all.
    pub(crate) fn give(&mut self, run: Slices) {
        self.change(run.clone(), Kind::Hole);
        self.join(run);
    }

    /// Gives a run back that a stream may still use: it is free for that stream.
    pub(crate) fn retire(&mut self, run: Slices, by: Retirement) {
        self.change(run, Kind::Retired(by));
    }

    /// The streams that have retired memory, each with its first ticket.
    pub(crate) fn retirers(&self) -> impl Iterator<Item = Retirement> {
        self.chunks.oldest()
    }

    /// The last ticket of a stream's retired memory.
    pub(crate) fn last_retirement(&self, owner: u32) -> Option<u64> {
        self.chunks.retired_by(owner).next_back().map(|(ticket, _)| ticket)
    }

    /// Frees what a stream has retired up to a ticket. Returns how many slices that were.
    pub(crate) fn complete(&mut self, through: Retirement) -> u32 {
        let mut slices = 0;
        while let Some(chunk) = self.first_retired(through) {
            slices += chunk.end - chunk.start;
            self.give(chunk);
        }
        slices
    }

    /// Makes what a stream has retired up to a ticket another's, or the same stream's with a later
    /// ticket.
    pub(crate) fn hand_over(&mut self, through: Retirement, to: Retirement) {
        let of: Vec<Slices> = self
            .chunks
            .retired_by(through.owner)
            .take_while(|(ticket, _)| *ticket <= through.ticket)
            .map(|(_, start)| self.chunks.at(start).range())
            .collect();
        for chunk in of {
            self.change(chunk, Kind::Retired(to));
        }
    }

    /// Slices that are free for all.
    pub(crate) fn free(&self) -> u32 {
        self.chunks.holes.iter().map(BySize::slices).sum()
    }

    /// Slices that streams have retired.
    pub(crate) fn retired(&self) -> u32 {
        self.chunks.retired_slices()
    }

    /// Slices of pieces of which all is free.
    pub(crate) fn free_in_pieces(&self) -> u32 {
        self.pieces.free_slices()
    }

    /// The longest range without memory.
    pub(crate) fn longest_gap(&self) -> u32 {
        self.chunks.gaps.iter().map(BySize::longest).max().unwrap_or(0)
    }

    /// The starts of runs, lowest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.taken()
    }

    /// The ranges of runs, each in one piece, lowest first.
    pub(crate) fn held(&self) -> Vec<Slices> {
        let mut held: Vec<Slices> = Vec::new();
        for piece in self.pieces.all() {
            let first = held.len();
            let chunks = self.chunks.within(piece.clone());
            for run in chunks.filter(|chunk| matches!(chunk.kind, Kind::Taken { .. })) {
                let (start, end) = (run.start.max(piece.start), run.end.min(piece.end));
                match held[first..].last_mut().filter(|last| last.end == start) {
                    Some(last) => last.end = end,
                    None => held.push(start..end),
                }
            }
        }
        held
    }

    /// The first chunk that a stream has retired, if its ticket is not after `through`.
    fn first_retired(&self, through: Retirement) -> Option<Slices> {
        let (ticket, start) = self.chunks.retired_by(through.owner).next()?;
        (ticket <= through.ticket).then(|| self.chunks.at(start).range())
    }

    /// Makes a run of a range that is free, or a stream's own.
    fn occupy(&mut self, run: Slices) -> Found {
        let ticket = self.chunks.last_ticket_in(run.clone());
        self.runs += 1;
        self.change(run.clone(), Kind::Taken { born: self.runs });
        Found { start: run.start, ticket }
    }

    /// Changes the kind of a range, and counts that in its pieces.
    fn change(&mut self, range: Slices, kind: Kind) {
        for part in self.chunks.set(range, kind) {
            // A piece has no gaps.
            if part.kind == Kind::Gap || kind == Kind::Gap {
                continue;
            }
            match (part.kind.is_used(), kind.is_used()) {
                (false, true) => self.pieces.add_used(part.range()),
                (true, false) => self.pieces.remove_used(part.range()),
                _ => {}
            }
        }
    }

    /// Joins holes, or gaps, at both ends of a range with their neighbours.
    fn join(&mut self, range: Slices) {
        if !self.policy.inside_pieces {
            self.chunks.join(range, 0..u32::MAX);
            return;
        }
        // A hole ends where its piece does.
        let within = self.pieces.around(range.start).unwrap_or(range.clone());
        self.chunks.join(range, within);
    }
}

/// The low part is this part of the span, and of what is committed.
const LOW: u32 = 8;

/// Below the first long run there are so many times fewer addresses than in the low part, besides
/// that: a 32nd of the span.
const BELOW: u32 = 4;

/// A span of fewer granules has no low part: a long run could need the addresses on both sides.
const SMALL: u32 = 64;
