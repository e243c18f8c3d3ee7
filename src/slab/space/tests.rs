//! Random operations on a map, compared with an array that has a word for each slice.

use super::*;

const GRANULE: u32 = 8;
const SLICES: u32 = 64 * GRANULE;

/// A slice of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    Gap,
    Hole,
    Retired(u32, u64),
    Taken,
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap()
    }
}

struct Both {
    space: Space,
    array: Vec<Slice>,
    pieces: Vec<Slices>,
    runs: Vec<Slices>,
    ticket: u64,
    inside: bool,
}

impl Both {
    fn new(inside: bool) -> Self {
        let policy = PiecePolicy { fixed: None, most: 8, inside_pieces: inside, grows_down: true };
        Self {
            space: Space::new(SLICES, GRANULE, policy),
            array: vec![Slice::Gap; SLICES as usize],
            pieces: Vec::new(),
            runs: Vec::new(),
            ticket: 0,
            inside,
        }
    }

    fn fill(&mut self, range: Slices, slice: Slice) {
        self.array[range.start as usize..range.end as usize].fill(slice);
    }

    fn serves(&self, slice: u32, owner: Option<u32>) -> bool {
        match self.array[slice as usize] {
            Slice::Hole => true,
            Slice::Retired(by, _) => Some(by) == owner,
            _ => false,
        }
    }

    /// The piece of a slice, where that matters.
    fn border(&self, slice: u32) -> Option<Slices> {
        self.pieces.iter().find(|piece| piece.contains(&slice)).filter(|_| self.inside).cloned()
    }

    /// The length of the shortest range that is long enough, by looking at each slice.
    fn shortest(&self, wanted: &Wanted) -> Option<u32> {
        let (mut best, mut start) = (None, 0);
        while start < SLICES {
            let mut end = start;
            while end < SLICES
                && self.serves(end, wanted.owner)
                && self.border(end) == self.border(start)
            {
                end += 1;
            }
            if wanted.fits(&(start..end)) {
                best = Some(best.unwrap_or(u32::MAX).min(end - start));
            }
            start = end.max(start + 1);
        }
        best
    }

    fn take(&mut self, wanted: Wanted) {
        let shortest = self.shortest(&wanted);
        let Some(found) = self.space.take(wanted) else {
            assert!(shortest.is_none() || wanted.part == Part::Low, "{wanted:?}");
            return self.grow(wanted);
        };
        let run = found.start..found.start + wanted.len;
        assert!(run.clone().all(|slice| self.serves(slice, wanted.owner)), "{run:?}");
        assert!(run.start.is_multiple_of(wanted.align));
        let around = |slice: u32| self.serves(slice, wanted.owner);
        let border = self.border(run.start);
        let low = (0..run.start).rev().find(|it| !around(*it) || self.border(*it) != border);
        let high = (run.end..SLICES).find(|it| !around(*it) || self.border(*it) != border);
        let len = high.unwrap_or(SLICES) - low.map_or(0, |low| low + 1);
        assert!(
            Some(len) == shortest || wanted.part != Part::Any,
            "not the best fit for {wanted:?}: {len}, not {shortest:?}"
        );
        let tickets = run.clone().map(|slice| match self.array[slice as usize] {
            Slice::Retired(_, ticket) => ticket,
            _ => 0,
        });
        assert_eq!(Some(found.ticket), tickets.max());
        self.begin(run);
    }

    fn begin(&mut self, run: Slices) {
        self.fill(run.clone(), Slice::Taken);
        self.runs.push(run);
    }

    /// Grows for a run; one in four times the driver refuses the last piece.
    fn grow(&mut self, wanted: Wanted) {
        let committed: u32 = self.pieces.iter().map(|piece| piece.end - piece.start).sum();
        let Some(mut window) = self.space.reserve(wanted) else { return };
        self.space.round_up(&mut window, committed, 3);
        let mut pieces = self.space.cut(&window, committed);
        let fails = self.ticket.is_multiple_of(4);
        if fails {
            pieces.pop();
        } else if self.ticket.is_multiple_of(3)
            && let Some(end) = self.space.shrink(&mut window)
        {
            pieces.retain(|piece| piece.start < end);
            pieces.iter_mut().for_each(|piece| piece.end = piece.end.min(end));
        }
        for piece in &pieces {
            assert!(piece.clone().all(|it| self.array[it as usize] == Slice::Gap), "{piece:?}");
            self.space.add_piece(piece.clone());
        }
        if fails {
            pieces.into_iter().for_each(|piece| self.space.left(piece));
            return self.space.abandon(&window);
        }
        for piece in pieces {
            self.fill(piece.clone(), Slice::Hole);
            self.pieces.push(piece);
        }
        self.space.settle(&window);
        assert!(window.run.clone().all(|slice| self.serves(slice, wanted.owner)));
        self.begin(window.run.clone());
    }

    fn step(&mut self, random: &mut Random) {
        self.ticket += 1;
        let owner = Some(random.below(3)).filter(|owner| *owner < 2);
        match random.below(10) {
            0..4 => {
                let (len, align) = (1 + random.below(3 * GRANULE), 1 << random.below(4));
                let part = [Part::Low, Part::High, Part::Any, Part::Any][random.below(4) as usize];
                self.take(Wanted { len, align, owner, part });
            }
            4..6 if !self.runs.is_empty() => {
                let which = random.below(u32::try_from(self.runs.len()).unwrap());
                let run = self.runs.swap_remove(which as usize);
                self.fill(run.clone(), Slice::Hole);
                self.space.give(run);
            }
            6..8 if !self.runs.is_empty() => {
                let which = random.below(u32::try_from(self.runs.len()).unwrap());
                let (run, owner) = (self.runs.swap_remove(which as usize), random.below(2));
                self.fill(run.clone(), Slice::Retired(owner, self.ticket));
                self.space.retire(run, Retirement { owner, ticket: self.ticket });
            }
            8 => self.advance(random),
            _ => self.release(),
        }
    }

    fn advance(&mut self, random: &mut Random) {
        let through = Retirement {
            owner: random.below(2),
            ticket: self.ticket.saturating_sub(random.below(20).into()),
        };
        let to = Retirement { owner: 1 - through.owner, ticket: self.ticket };
        let is_handed = random.below(3) == 0;
        if is_handed {
            self.space.hand_over(through, to);
        }
        let mut freed = 0;
        for slice in &mut self.array {
            if let Slice::Retired(owner, ticket) = *slice
                && owner == through.owner
                && ticket <= through.ticket
            {
                freed += 1;
                *slice = if is_handed { Slice::Retired(to.owner, to.ticket) } else { Slice::Hole };
            }
        }
        assert!(is_handed || self.space.complete(through) == freed);
    }

    fn release(&mut self) {
        let Some(piece) = self.space.leave() else { return };
        assert!(piece.clone().all(|slice| self.array[slice as usize] == Slice::Hole));
        let at = self.pieces.iter().position(|other| *other == piece).unwrap();
        self.pieces.swap_remove(at);
        self.fill(piece.clone(), Slice::Gap);
        self.space.left(piece);
    }

    fn check(&self) {
        let mut at = 0;
        let mut last = None;
        while at < SLICES {
            let chunk = self.space.chunks.at(at);
            assert_eq!(chunk.start, at);
            let slice = match chunk.kind {
                Kind::Gap => Slice::Gap,
                Kind::Hole => Slice::Hole,
                Kind::Retired(by) => Slice::Retired(by.owner, by.ticket),
                Kind::Taken { .. } => Slice::Taken,
            };
            assert!(chunk.range().all(|it| self.array[it as usize] == slice), "{chunk:?}");
            let joins = matches!(slice, Slice::Gap | Slice::Hole);
            let border =
                |at: u32| slice == Slice::Hole && self.border(at).is_some_and(|it| it.start == at);
            assert!(!(joins && last == Some(slice)) || border(at), "{chunk:?} is not joined");
            (at, last) = (chunk.end, Some(slice));
        }
        let count = |wanted: fn(&Slice) -> bool| {
            u32::try_from(self.array.iter().filter(|slice| wanted(slice)).count()).unwrap()
        };
        assert_eq!(self.space.free(), count(|it| *it == Slice::Hole));
        assert_eq!(self.space.retired(), count(|it| matches!(it, Slice::Retired(..))));
        let is_free =
            |piece: &&Slices| (*piece).clone().all(|it| self.array[it as usize] == Slice::Hole);
        let free = self.pieces.iter().filter(is_free).map(|piece| piece.end - piece.start);
        assert_eq!(self.space.free_in_pieces(), free.sum::<u32>());
        let mut pieces = self.pieces.clone();
        pieces.sort_by_key(|piece| piece.start);
        assert!(self.space.all_pieces().eq(pieces));
    }
}

#[test]
fn random_operations_do_what_an_array_does() {
    for seed in 1..=24 {
        let (mut both, mut random) = (Both::new(seed % 3 == 0), Random(seed * 0x9e37_79b9));
        for _ in 0..1500 {
            both.step(&mut random);
            both.check();
        }
    }
}

#[test]
fn growth_needs_the_fewest_granules() {
    let mut both = Both::new(false);
    let wanted = |len| Wanted { len, align: 1, owner: None, part: Part::Any };
    both.ticket = 1;
    both.take(wanted(3 * GRANULE));
    both.take(wanted(GRANULE / 2));
    // Half a granule is free before the addresses that are not committed.
    let committed = |both: &Both| both.pieces.len();
    let before = committed(&both);
    both.take(wanted(GRANULE));
    assert_eq!(committed(&both), before + 1);
    let origin = both.space.origin;
    let run = origin + 7 * GRANULE / 2..origin + 9 * GRANULE / 2;
    assert_eq!(both.runs.last(), Some(&run));
}

#[test]
fn a_pool_grows_downwards_where_that_takes_less() {
    let mut both = Both::new(false);
    both.ticket = 1;
    let wanted = |len| Wanted { len, align: 1, owner: None, part: Part::High };
    both.take(wanted(4 * GRANULE));
    both.take(wanted(6 * GRANULE));
    let [first, second] = [0, 1].map(|run: usize| both.runs[run].clone());
    assert_eq!((first.start, second.start), (both.space.origin, first.end));
    both.fill(first.clone(), Slice::Hole);
    both.space.give(first);
    both.runs.remove(0);
    both.take(wanted(5 * GRANULE));
    let run = second.start - 5 * GRANULE..second.start;
    assert_eq!(both.runs.last(), Some(&run), "one granule below, and not five above");
}

#[test]
fn large_runs_lie_beside_what_is_older() {
    let mut both = Both::new(false);
    both.ticket = 1;
    let wanted = |len| Wanted { len, align: 1, owner: None, part: Part::Any };
    for len in [GRANULE, 4 * GRANULE, 1] {
        both.take(wanted(len));
    }
    let [old, middle, _young] = [0, 1, 2].map(|run: usize| both.runs[run].clone());
    both.space.give(middle.clone());
    let found = both.space.take(wanted(GRANULE)).unwrap();
    assert_eq!(found.start, old.end, "beside the oldest run");
    both.space.give(found.start..found.start + GRANULE);
    both.space.give(old);
    let young = both.space.take(wanted(GRANULE)).unwrap();
    assert_eq!(young.start, both.space.origin, "the end of the memory is older than any");
}

/// Commits what a run lacks. Returns the pieces.
fn grow(space: &mut Space, len: u32) -> Vec<Slices> {
    let [_, committed] = space.pieces.committed();
    let wanted = Wanted { len, align: 1, owner: None, part: Part::Any };
    let mut window = space.reserve(wanted).unwrap();
    space.round_up(&mut window, committed, u32::MAX / GRANULE);
    let pieces = space.cut(&window, committed);
    pieces.iter().for_each(|piece| space.add_piece(piece.clone()));
    space.settle(&window);
    pieces
}

#[test]
fn growth_for_want_of_a_long_range_commits_no_more_than_that() {
    for (free, more) in [(7, 40), (9, 33)] {
        let policy = PiecePolicy { fixed: None, most: 128, inside_pieces: false, grows_down: true };
        let mut space = Space::new(1024 * GRANULE, GRANULE, policy);
        grow(&mut space, 512 * GRANULE);
        // Away from the ends, where the pool grows.
        let first = space.origin + 100 * GRANULE;
        space.give(first..first + free * GRANULE);
        let pieces = grow(&mut space, 33 * GRANULE);
        let granules: u32 = pieces.iter().map(|piece| (piece.end - piece.start) / GRANULE).sum();
        assert_eq!(granules, more, "with {free} granules free, where a piece has 8: {pieces:?}");
    }
}
