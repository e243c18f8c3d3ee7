//! The operations that touched each byte last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use super::access::{Access, Mode};
use crate::memory::Block;
use crate::order::{Clock, Lane};

/// An access that ran.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) call: &'static str,
    pub(crate) mode: Mode,
    pub(crate) shown: (u64, u64),
    pub(crate) place: Arc<str>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) point: u64,
    pub(crate) clock: Arc<Clock>,
    /// The value written by a write of one word.
    pub(crate) value: Option<u64>,
}

impl Done {
    pub(crate) fn is_before(&self, clock: &Clock) -> bool {
        clock.covers(&self.lane, self.point)
    }
}

/// The operations that touched each byte last.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By the allocations' identities.
    blocks: HashMap<u64, Touched>,
    segments: usize,
    most: usize,
}

/// The accesses of one allocation.
#[derive(Debug)]
struct Touched {
    block: Weak<Block>,
    /// By first address.
    segments: BTreeMap<u64, Segment>,
}

/// Bytes with the same accesses.
#[derive(Clone, Debug)]
struct Segment {
    end: u64,
    /// The last write, or several words that nothing orders.
    writes: Vec<Arc<Done>>,
    /// Reads since then of which none comes before another.
    reads: Vec<Arc<Done>>,
}

impl Segment {
    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Done>], b: &[Arc<Done>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(&self.writes, &other.writes) && same(&self.reads, &other.reads)
    }

    /// Adds those of its accesses that race with `access`.
    fn conflicts(&self, access: &Done, found: &mut Vec<Arc<Done>>) {
        let writes = self
            .writes
            .iter()
            .filter(|other| access.mode != Mode::Word || other.mode != Mode::Word);
        let reads = self.reads.iter().filter(|_| access.mode != Mode::Read);
        for other in writes.chain(reads) {
            if !other.is_before(&access.clock)
                && !found.iter().any(|known| Arc::ptr_eq(known, other))
            {
                found.push(Arc::clone(other));
            }
        }
    }

    fn note(&mut self, access: &Arc<Done>) {
        match access.mode {
            Mode::Read => {
                self.reads.retain(|other| !other.is_before(&access.clock));
                self.reads.push(Arc::clone(access));
            }
            Mode::Write => {
                // The write was compared with these reads, so later accesses need to compare with
                // the write alone.
                self.reads.clear();
                self.writes = vec![Arc::clone(access)];
            }
            Mode::Word => {
                self.reads.clear();
                self.writes
                    .retain(|other| other.mode == Mode::Word && !other.is_before(&access.clock));
                self.writes.push(Arc::clone(access));
            }
        }
    }
}

impl Touched {
    /// Cuts the segment that `at` lies in.
    fn split(&mut self, at: u64) {
        if let Some((_, segment)) = self.segments.range_mut(..at).next_back()
            && segment.end > at
        {
            let mut rest = segment.clone();
            (segment.end, rest.end) = (at, segment.end);
            self.segments.insert(at, rest);
        }
    }

    /// Notes an access of a range and adds those before that race with it.
    fn touch(&mut self, begin: u64, end: u64, access: &Arc<Done>, found: &mut Vec<Arc<Done>>) {
        self.split(begin);
        self.split(end);
        for segment in self.segments.range(begin..end).map(|(_, segment)| segment) {
            segment.conflicts(access, found);
        }
        // A write replaces all that was known of the range, which keeps the number of segments
        // small.
        if access.mode == Mode::Write {
            let old: Vec<_> = self.segments.range(begin..end).map(|(begin, _)| *begin).collect();
            old.into_iter().for_each(|begin| drop(self.segments.remove(&begin)));
        }
        self.fill_gaps(begin, end);
        for (_, segment) in self.segments.range_mut(begin..end) {
            segment.note(access);
        }
        self.merge(begin, end);
    }

    /// Makes segments without accesses where a range has none.
    fn fill_gaps(&mut self, begin: u64, end: u64) {
        let mut gaps = Vec::new();
        let mut at = begin;
        for (first, segment) in self.segments.range(begin..end) {
            if at < *first {
                gaps.push((at, *first));
            }
            at = segment.end;
        }
        if at < end {
            gaps.push((at, end));
        }
        let empty = |end| Segment { end, writes: Vec::new(), reads: Vec::new() };
        self.segments.extend(gaps.into_iter().map(|(begin, end)| (begin, empty(end))));
    }

    /// Joins neighbours with the same accesses.
    fn merge(&mut self, begin: u64, end: u64) {
        let mut at = begin;
        while let Some(segment) = self.segments.get(&at) {
            let next = segment.end;
            if next >= end {
                return;
            }
            match self.segments.get(&next) {
                // Programs that write in pieces would leave a segment for each.
                Some(other) if segment.is_same(other) => {
                    let joined = other.end;
                    self.segments.remove(&next);
                    if let Some(segment) = self.segments.get_mut(&at) {
                        segment.end = joined;
                    }
                }
                _ => at = next,
            }
        }
    }
}

impl History {
    /// Notes an access and returns the earlier ones that race with it.
    pub(crate) fn touch(&mut self, access: &Access, done: &Arc<Done>) -> Vec<Arc<Done>> {
        let mut found = Vec::new();
        for (block, begin, end) in &access.ranges {
            let known = self.blocks.entry(block.id).or_insert_with(|| Touched {
                block: Arc::downgrade(block),
                segments: BTreeMap::new(),
            });
            let before = known.segments.len();
            known.touch(*begin, *end, done, &mut found);
            self.segments = (self.segments + known.segments.len()).saturating_sub(before);
        }
        found
    }

    /// The last writes of any byte of a range.
    pub(crate) fn writers(&self, block: &Block, begin: u64, end: u64) -> Vec<Arc<Done>> {
        let Some(known) = self.blocks.get(&block.id) else { return Vec::new() };
        let segments = known.segments.range(..end).filter(|(_, segment)| segment.end > begin);
        segments.flat_map(|(_, segment)| segment.writes.iter().cloned()).collect()
    }

    /// Whether so much is kept that some should go.
    pub(crate) fn is_full(&self) -> bool {
        self.segments > self.most.max(FEW)
    }

    /// Forgets what every operation that has not run, and every later one, comes behind, and what
    /// was in allocations that are gone.
    pub(crate) fn forget(&mut self, floor: u64) {
        let is_open = |done: &Arc<Done>| done.lane.known_at(floor) < done.point;
        self.blocks.retain(|_, known| {
            known.segments.retain(|_, segment| {
                segment.writes.retain(is_open);
                segment.reads.retain(is_open);
                !segment.writes.is_empty() || !segment.reads.is_empty()
            });
            known.block.strong_count() > 0 && !known.segments.is_empty()
        });
        self.segments = self.blocks.values().map(|known| known.segments.len()).sum();
        self.most = 2 * self.segments + FEW;
    }
}

/// Fewer segments than this are not searched for outdated ones.
const FEW: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::table::Owner;
    use crate::memory::{Kind, Table};
    use crate::order::Order;

    struct Rig {
        order: Order,
        lane: Arc<Lane>,
        block: Arc<Block>,
        history: History,
    }

    impl Rig {
        fn new() -> Self {
            let mut order = Order::default();
            let lane = order.lane();
            let owner = Owner { context: 0, ordinal: 0 };
            let block = Table::default().allocate(Kind::Device, 1 << 20, owner).unwrap();
            Self { order, lane, block, history: History::default() }
        }

        /// An access by the one lane, behind all of it with `ordered`.
        fn touch(&mut self, begin: u64, end: u64, mode: Mode, ordered: bool) -> usize {
            let (point, mut clock) = (self.lane.advance(), self.order.now());
            clock.add(&self.lane, point);
            let lane = if ordered { Arc::clone(&self.lane) } else { self.order.lane() };
            let clock = if ordered { clock } else { self.order.now() };
            let (begin, end) = (self.block.host + begin, self.block.host + end);
            let ranges = vec![(Arc::clone(&self.block), begin, end)];
            let access = Access { mode, shown: (begin, end), ranges, value: None };
            let (call, place, shown, clock) = ("", "".into(), (begin, end), Arc::new(clock));
            let done = Arc::new(Done { call, mode, shown, place, lane, point, clock, value: None });
            self.history.touch(&access, &done).len()
        }

        fn ends(&self) -> Vec<(u64, u64)> {
            let segments = &self.history.blocks[&self.block.id].segments;
            segments
                .iter()
                .map(|(begin, it)| (begin - self.block.host, it.end - self.block.host))
                .collect()
        }
    }

    #[test]
    fn segments_are_cut_where_accesses_differ_and_joined_where_they_do_not() {
        let mut rig = Rig::new();
        rig.touch(0, 100, Mode::Write, true);
        rig.touch(40, 60, Mode::Read, true);
        rig.touch(90, 120, Mode::Read, true);
        assert_eq!(rig.ends(), [(0, 40), (40, 60), (60, 90), (90, 100), (100, 120)]);
        rig.touch(0, 200, Mode::Read, true);
        assert_eq!(rig.ends(), [(0, 100), (100, 200)], "the last read comes behind the others");
        rig.touch(50, 150, Mode::Write, true);
        assert_eq!(rig.ends(), [(0, 50), (50, 150), (150, 200)]);
    }

    #[test]
    fn an_access_that_races_with_one_of_many_segments_is_found_once() {
        let mut rig = Rig::new();
        for begin in (0..100).step_by(10) {
            assert_eq!(rig.touch(begin, begin + 10, Mode::Write, true), 0);
        }
        assert_eq!(rig.touch(5, 15, Mode::Read, false), 2);
        assert_eq!(rig.touch(0, 100, Mode::Write, true), 1, "the reader of two segments, once");
    }

    #[test]
    fn what_the_host_knows_and_what_was_in_freed_memory_is_forgotten() {
        let mut rig = Rig::new();
        for begin in 0..2000 {
            rig.touch(begin * 8, begin * 8 + 4, Mode::Write, true);
        }
        assert!(rig.history.is_full());
        rig.history.forget(rig.order.floor());
        assert_eq!(rig.history.segments, 2000, "the host knows nothing");
        let everything = rig.order.everything();
        rig.order.learn(&everything);
        rig.touch(0, 4, Mode::Write, true);
        rig.order.set_floor(None);
        rig.history.forget(rig.order.floor());
        assert_eq!(rig.history.segments, 1);
        rig.block = Rig::new().block;
        rig.history.forget(rig.order.floor());
        assert_eq!(rig.history.segments, 0);
    }
}
