//! Which sizes to have ready, with room for so many.

use super::Forecast;

/// The sizes that something is ready for: blocks, graphs.
///
/// The set holds a fixed number of sizes. A size that is forecast is made ready ahead of its use,
/// and one that was used stays until room is needed: then the size goes that was used longest ago
/// of those that are not forecast. The caller makes sizes ready, as
/// [`rearrange`](Self::rearrange) tells it.
///
/// # Examples
///
/// ```
/// use wharf::forecast::{Change, ContextModel, WarmSet};
///
/// let mut warm = WarmSet::new(ContextModel::new(), 2);
/// let mut ready = Vec::new();
/// for size in [8, 16, 32].repeat(100) {
///     // A size that is not ready is made by who needs it.
///     if !warm.record_usage(size) {
///         ready.push(size);
///     }
///     warm.rearrange(|change| {
///         match change {
///             Change::Make(size) => ready.push(size),
///             Change::GiveBack(size) => ready.retain(|other| *other != size),
///         }
///         Ok::<_, ()>(())
///     })
///     .unwrap();
///     assert!(ready.len() <= 2);
/// }
/// // The next one is there before it is used.
/// assert!(ready.contains(&8));
/// assert!(warm.stats().missed < 50);
/// ```
#[derive(Debug)]
#[doc(alias = "prewarm")]
pub struct WarmSet {
    forecast: Box<dyn Forecast>,
    places: Vec<Place>,
    room: usize,
    ahead: usize,
    /// Counts uses.
    clock: u64,
    stats: WarmStats,
}

/// A size that something is ready for.
#[derive(Clone, Copy, Debug)]
struct Place {
    size: u32,
    /// When it was used last, or made.
    used: u64,
    /// Whether it was made ahead and not used since.
    is_new: bool,
}

/// Something to do for a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Make it ready: it is forecast.
    Make(u32),
    /// Give back what is ready for it: the forecast has changed.
    GiveBack(u32),
}

/// What became of what was made ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmStats {
    /// Uses of sizes.
    pub uses: u64,
    /// Uses for which nothing was ready.
    pub missed: u64,
    /// Sizes that were made ready ahead.
    pub made: u64,
    /// How many of those were used before they were given back.
    pub used: u64,
    /// How many of those were given back unused.
    pub wasted: u64,
}

impl WarmSet {
    /// The size that stands in the forecast for [uses without one](Self::record_other).
    pub const OTHER: u32 = u32::MAX;

    /// Has at most `room` sizes ready, at least 1, and as many of those that `forecast` names
    /// first.
    pub fn new(forecast: impl Forecast + 'static, room: usize) -> Self {
        let room = room.clamp(1, MOST);
        let places = Vec::with_capacity(room + 1);
        let stats = WarmStats::default();
        Self { forecast: Box::new(forecast), places, room, ahead: room, clock: 0, stats }
    }

    /// Makes ready ahead only the first so many sizes of the forecast. The rest of the room is for
    /// what was used last; with 0, all of it.
    #[must_use]
    pub fn ahead(self, sizes: usize) -> Self {
        Self { ahead: sizes.min(self.room), ..self }
    }

    /// Records that `size` was used, and returns whether it was ready. If it was not, its user has
    /// made it, and it counts as ready from here on.
    pub fn record_usage(&mut self, size: u32) -> bool {
        self.forecast.record_usage(size);
        self.clock += 1;
        self.stats.uses += 1;
        let clock = self.clock;
        if let Some(place) = self.places.iter_mut().find(|place| place.size == size) {
            self.stats.used += u64::from(place.is_new);
            (place.used, place.is_new) = (clock, false);
            return true;
        }
        self.stats.missed += 1;
        self.places.push(Place { size, used: clock, is_new: false });
        false
    }

    /// Takes note of a use for which nothing is ever ready, but which others follow.
    pub fn record_other(&mut self) {
        self.forecast.record_usage(Self::OTHER);
    }

    /// Lets `apply` give back what has no room any more, and make what is forecast; each time what
    /// is given back comes first, so that never more is ready than there is room for, and one more
    /// that was just used.
    ///
    /// # Errors
    ///
    /// The first error of `apply`. What it was to make then is not ready, what it was to give back
    /// still is, and the next call tries again.
    pub fn rearrange<E>(
        &mut self,
        mut apply: impl FnMut(Change) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted = [0; MOST];
        let known = self.forecast.predict(&mut wanted[..self.ahead]);
        let mut wanted = &mut wanted[..known];
        if let Some(other) = wanted.iter().position(|size| *size == Self::OTHER) {
            wanted[other..].rotate_left(1);
            wanted = &mut wanted[..known - 1];
        }
        let wanted = &*wanted;
        while self.places.len() > self.room {
            self.give_back(wanted, &mut apply)?;
        }
        for &size in wanted {
            if self.is_ready(size) {
                continue;
            }
            if self.places.len() == self.room {
                self.give_back(wanted, &mut apply)?;
            }
            apply(Change::Make(size))?;
            self.stats.made += 1;
            self.places.push(Place { size, used: self.clock, is_new: true });
        }
        Ok(())
    }

    /// Lets `apply` give back everything.
    ///
    /// # Errors
    ///
    /// As [`rearrange`](Self::rearrange).
    pub fn clear<E>(&mut self, mut apply: impl FnMut(Change) -> Result<(), E>) -> Result<(), E> {
        while !self.places.is_empty() {
            self.give_back(&[], &mut apply)?;
        }
        Ok(())
    }

    /// Whether something is ready for `size`.
    pub fn is_ready(&self, size: u32) -> bool {
        self.places.iter().any(|place| place.size == size)
    }

    /// The sizes that something is ready for, in no order.
    pub fn ready(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.places.iter().map(|place| place.size)
    }

    /// What foresees the sizes.
    pub fn forecast(&self) -> &dyn Forecast {
        &*self.forecast
    }

    /// What became of what was made ready.
    pub fn stats(&self) -> WarmStats {
        self.stats
    }

    /// Gives back the size that was used longest ago of those that are not wanted. There is one: no
    /// more are wanted than there is room for.
    fn give_back<E>(
        &mut self,
        wanted: &[u32],
        apply: &mut impl FnMut(Change) -> Result<(), E>,
    ) -> Result<(), E> {
        let spare = (0..self.places.len()).filter(|at| !wanted.contains(&self.places[*at].size));
        let Some(at) = spare.min_by_key(|at| self.places[*at].used) else { return Ok(()) };
        let Place { size, is_new, .. } = self.places[at];
        apply(Change::GiveBack(size))?;
        self.stats.wasted += u64::from(is_new);
        self.places.swap_remove(at);
        Ok(())
    }
}

/// The most sizes that a set has room for.
const MOST: usize = 256;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::forecast::{ContextModel, Frequency, PlanRecorder};

    /// Uses `sizes`, and compares the set with a list of what is ready.
    fn run(warm: &mut WarmSet, sizes: impl IntoIterator<Item = u32>) {
        let mut ready: Vec<u32> = warm.ready().collect();
        for size in sizes {
            assert_eq!(warm.record_usage(size), ready.contains(&size));
            if !ready.contains(&size) {
                ready.push(size);
            }
            let room = warm.room;
            let apply = |change| {
                match change {
                    Change::Make(size) => {
                        assert!(!ready.contains(&size), "{size} twice");
                        ready.push(size);
                    }
                    Change::GiveBack(size) => {
                        let before = ready.len();
                        ready.retain(|other| *other != size);
                        assert_eq!(ready.len() + 1, before, "{size} was ready");
                    }
                }
                assert!(ready.len() <= room + 1);
                Ok::<_, ()>(())
            };
            assert_eq!(warm.rearrange(apply), Ok(()));
            assert!(ready.len() <= warm.room);
            let mut found: Vec<u32> = warm.ready().collect();
            found.sort_unstable();
            ready.sort_unstable();
            assert_eq!(found, ready);
        }
    }

    #[test]
    fn what_is_forecast_is_ready_before_its_use() {
        let mut recorder = PlanRecorder::new(100);
        let sizes: Vec<u32> = (1..=50).collect();
        sizes.iter().for_each(|size| recorder.record_usage(*size));
        let mut warm = WarmSet::new(recorder.finish(), 3);
        run(&mut warm, sizes);
        let WarmStats { uses, missed, made, used, wasted } = warm.stats();
        // Only the first could not be known: the set is asked after a use.
        assert_eq!((uses, missed, made, used, wasted), (50, 1, 49, 49, 0));
    }

    #[test]
    fn without_a_forecast_the_sizes_used_last_stay() {
        let mut warm = WarmSet::new(Frequency::new(1), 3).ahead(0);
        run(&mut warm, [1, 2, 3, 1, 4]);
        let mut ready: Vec<u32> = warm.ready().collect();
        ready.sort_unstable();
        assert_eq!(ready, [1, 3, 4]);
        assert_eq!(warm.stats(), WarmStats { uses: 5, missed: 4, ..WarmStats::default() });
    }

    #[test]
    fn what_is_no_longer_forecast_is_given_back() {
        let mut warm = WarmSet::new(ContextModel::new(), 4);
        run(&mut warm, [1, 2, 3, 4].repeat(50));
        run(&mut warm, [11, 12, 13, 14].repeat(50));
        assert!(warm.ready().all(|size| size > 10), "{warm:?}");
    }

    #[test]
    fn what_could_not_be_made_or_given_back_is_tried_again() {
        let mut warm = WarmSet::new(ContextModel::new(), 1);
        run(&mut warm, [1, 2].repeat(50));
        // The next one is foreseen, and there is room for one.
        warm.record_usage(1);
        let mut seen = Vec::new();
        let refused = warm.rearrange(|change| {
            seen.push(change);
            Err("refused")
        });
        assert_eq!(refused, Err("refused"));
        assert_eq!(seen, [Change::GiveBack(1)]);
        assert!(warm.is_ready(1));
        let refused = warm.rearrange(|change| match change {
            Change::Make(_) => Err("refused"),
            Change::GiveBack(_) => Ok(()),
        });
        assert_eq!((refused, warm.ready().len()), (Err("refused"), 0));
        warm.rearrange(|change| if change == Change::Make(2) { Ok(()) } else { Err(change) })
            .unwrap();
        assert_eq!(warm.ready().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_has_no_size_is_never_made() {
        let mut warm = WarmSet::new(Frequency::new(1), 2);
        for _ in 0..50 {
            warm.record_other();
            run(&mut warm, [7, 9]);
            assert!(warm.ready().all(|size| size == 7 || size == 9), "{warm:?}");
        }
    }

    #[test]
    fn everything_can_be_given_back() {
        let mut warm = WarmSet::new(Frequency::new(1), 8).ahead(2);
        run(&mut warm, (1..=20).chain([3; 60]));
        let mut given = 0;
        warm.clear(|change| {
            given += 1;
            if matches!(change, Change::GiveBack(_)) { Ok(()) } else { Err(()) }
        })
        .unwrap();
        assert_eq!((given, warm.ready().len()), (8, 0));
    }
}
