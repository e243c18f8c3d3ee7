//! What followed one context, and how often, in one cache line.

/// The sizes that followed a context.
///
/// Counts are in quarters, so that the halving which lets old ones fade forgets a size that came
/// once only after three halvings.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct Counts {
    /// Tells contexts that share a place apart; 0 in a place without one.
    key: u32,
    total: u16,
    len: u16,
    sizes: [u32; SIZES],
    counts: [u16; SIZES],
}

impl Counts {
    /// Those of the context `key`, which has not been seen before.
    pub(super) fn of(key: u32) -> Self {
        Self { key, ..Self::default() }
    }

    pub(super) fn key(&self) -> u32 {
        self.key
    }

    /// All counts together: how much the context is worth.
    pub(super) fn total(&self) -> u16 {
        self.total
    }

    /// Counts `size`. One that is new displaces the rarest where there is no room.
    pub(super) fn count(&mut self, size: u32) {
        let len = usize::from(self.len);
        let place = match self.sizes[..len].iter().position(|known| *known == size) {
            Some(place) => place,
            None => self.place_for(size),
        };
        self.counts[place] += ONE;
        self.total += ONE;
        if self.total > FULL {
            self.fade();
        }
    }

    /// The sizes with their counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u16)> {
        let len = usize::from(self.len);
        self.sizes[..len].iter().copied().zip(self.counts[..len].iter().copied())
    }

    /// How likely it is that one of the known sizes follows, against one that is not: Witten and
    /// Bell's estimate, with half a count a size.
    pub(super) fn confidence(&self) -> f32 {
        let total = f32::from(self.total);
        total / (total + f32::from(self.len * ONE / 2)).max(1.0)
    }

    fn place_for(&mut self, size: u32) -> usize {
        let len = usize::from(self.len);
        let place = if len < SIZES {
            self.len += 1;
            len
        } else {
            let rarest = (0..SIZES).min_by_key(|place| self.counts[*place]).unwrap_or(0);
            self.total -= self.counts[rarest];
            rarest
        };
        (self.sizes[place], self.counts[place]) = (size, 0);
        place
    }

    /// Halves all counts and forgets those that come to nothing.
    fn fade(&mut self) {
        let old = *self;
        (self.len, self.total) = (0, 0);
        for (size, count) in old.iter().filter(|(_, count)| *count > 1) {
            let place = usize::from(self.len);
            (self.sizes[place], self.counts[place]) = (size, count / 2);
            self.len += 1;
            self.total += count / 2;
        }
    }
}

/// The sizes that a context keeps.
pub(super) const SIZES: usize = 8;
/// One occurrence.
const ONE: u16 = 4;
/// When counts fade.
const FULL: u16 = 255 * ONE;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_cache_line() {
        assert_eq!(size_of::<Counts>(), 64);
    }

    #[test]
    fn the_rarest_makes_room() {
        let mut counts = Counts::of(1);
        for size in [1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9] {
            counts.count(size);
        }
        let sizes: Vec<_> = counts.iter().map(|(size, _)| size).collect();
        assert_eq!(sizes, [1, 9, 3, 4, 5, 6, 7, 8]);
        assert_eq!(counts.total(), counts.iter().map(|(_, count)| count).sum());
    }

    #[test]
    fn old_counts_fade() {
        let mut counts = Counts::of(1);
        counts.count(7);
        for _ in 0..100_000 {
            counts.count(8);
        }
        assert_eq!(counts.iter().map(|(size, _)| size).collect::<Vec<_>>(), [8]);
        assert!(counts.total() <= FULL);
        assert_eq!(counts.total(), counts.iter().map(|(_, count)| count).sum());
    }
}
