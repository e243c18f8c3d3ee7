//! What followed the last sizes before: an order-3 model with back-off.
//!
//! Prediction by partial matching, after Cleary and Witten, [Data compression using adaptive coding
//! and partial string matching](https://doi.org/10.1109/TCOM.1984.1096090): for each of the
//! contexts "the last size", "the last two", "the last three", the sizes that followed it are
//! counted. The longest context that has been seen speaks first, with the weight that Witten and
//! Bell's estimate gives it; what is left goes to the next shorter, in the end to the sizes used
//! last.
//!
//! Where sizes follow no rule, a model only adds noise. So it runs beside the sizes used last, and
//! its forecast counts only while it has been better by more than chance: with d the difference in
//! hits at each step, while the sum of d is above five times the root of the sum of d². That is
//! asked of its first size and of its first three by themselves. Sizes mostly repeat, so the last
//! one is first unless another is far likelier.
//!
//! ```text
//! history  a b c ──┬── hash(c) ────> Counts ─┐
//!                  ├── hash(b c) ──> Counts ─┼─ blend ──> ranked ─┐
//!                  └── hash(a b c) > Counts ─┘                    ├── the better so far
//!                                                        recent ──┘
//! ```

use core::fmt;

use super::counts::Counts;
use super::lead::Lead;
use super::recent::Recent;
use super::scores::{ORDERS, RANKS, Scores};
use super::{Forecast, append};

/// Forecasts from what followed the last one, two and three sizes.
///
/// Takes 512 KiB, whatever comes.
///
/// # Examples
///
/// ```
/// use wharf::forecast::{ContextModel, Forecast};
///
/// // Steps of more than 512 tokens run without a graph: they explain what follows, and are
/// // never forecast.
/// let mut sizes = ContextModel::new().limit(512);
/// for size in [2048, 8].repeat(20) {
///     sizes.record_usage(size);
/// }
/// assert_eq!(sizes.predict_next_sizes(3), [8]);
/// ```
#[derive(Clone)]
pub struct ContextModel {
    limit: u32,
    /// Places for contexts, in pairs; a power of two of them.
    contexts: Box<[Counts]>,
    /// The last sizes, the last one last.
    history: [u32; ORDERS],
    /// How many of them there are.
    known: usize,
    /// The contexts of `history`, the shortest first.
    current: [Place; ORDERS],
    recent: Recent,
    /// The blend's forecast, the likeliest first.
    ranked: [(u32, f32); RANKS],
    /// How much better the blend has been as the first forecast, and as the first three.
    first: Lead,
    three: Lead,
}

/// Where a context is, and which one.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    index: usize,
    key: u32,
}

impl ContextModel {
    /// A model that has seen nothing.
    pub fn new() -> Self {
        Self {
            limit: u32::MAX - 1,
            contexts: vec![Counts::default(); CONTEXTS].into_boxed_slice(),
            history: [0; ORDERS],
            known: 0,
            current: [Place::default(); ORDERS],
            recent: Recent::new(),
            ranked: [(0, 0.0); RANKS],
            first: Lead::default(),
            three: Lead::default(),
        }
    }

    /// Forecasts no size above `limit`; larger ones count as one size that others follow.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit: limit.min(u32::MAX - 1), ..self }
    }

    /// Finds the contexts of the history, or makes places for them.
    fn find(&mut self) {
        let mut hash = 0;
        for order in 0..self.known {
            hash = mix(hash ^ u64::from(self.history[ORDERS - 1 - order]));
            self.current[order] = self.place(hash);
        }
    }

    /// Where the context with this hash is; the less used of a pair is given up for a new one.
    #[expect(clippy::cast_possible_truncation, reason = "each takes its half of the hash")]
    fn place(&mut self, hash: u64) -> Place {
        let (first, key) = ((hash >> 32) as usize % CONTEXTS, hash as u32 | 1);
        let second = first ^ 1;
        let index = match (&self.contexts[first], &self.contexts[second]) {
            (counts, _) if counts.key() == key => first,
            (_, counts) if counts.key() == key => second,
            (one, other) => {
                let index = if one.total() <= other.total() { first } else { second };
                self.contexts[index] = Counts::of(key);
                index
            }
        };
        Place { index, key }
    }

    /// Blends what the contexts of the history say.
    fn rank(&mut self) {
        let mut scores = Scores::default();
        let mut weight = 1.0;
        for place in self.current[..self.known].iter().rev() {
            let counts = &self.contexts[place.index];
            let confidence = counts.confidence();
            let share = weight * confidence / f32::from(counts.total().max(1));
            counts.iter().for_each(|(size, count)| scores.add(size, share * f32::from(count)));
            weight *= 1.0 - confidence;
        }
        for size in &self.recent.sizes()[..self.recent.sizes().len().min(RANKS)] {
            weight /= 2.0;
            scores.add(*size, weight);
        }
        self.ranked = scores.best(self.limit);
        self.prefer_last();
    }

    /// Puts the size used last first, if it is ranked and the first is not far likelier.
    fn prefer_last(&mut self) {
        let Some(last) = self.recent.sizes().first() else { return };
        let place = self.ranked.iter().position(|(size, score)| size == last && *score > 0.0);
        if let Some(place) = place
            && self.ranked[0].1 < FAR * self.ranked[place].1
        {
            self.ranked[..=place].rotate_right(1);
        }
    }

    /// Compares the blend with the last sizes, now that the size is known.
    fn judge(&mut self, size: u32) {
        let recent = self.recent.sizes();
        let recent = &recent[..recent.len().min(RANKS)];
        let last = recent.first().copied();
        let leads = self.first.is_real();
        let in_blend = |size| self.ranked().position(|known| known == size);
        let place = in_blend(size);
        // As `predict` has it: behind a first one that is not the blend's there is less room.
        let room = match last.filter(|_| !leads) {
            Some(last) if in_blend(last).is_none() => RANKS - 1,
            _ => RANKS,
        };
        let three = place.is_some_and(|place| place < room) || (!leads && last == Some(size));
        let known = recent.contains(&size);
        let all = self.three.is_real();
        let counts =
            leads && (all || self.ranked().next().is_some_and(|first| recent.contains(&first)));
        self.first.judge(place == Some(0), last == Some(size), counts);
        self.three.judge(three, known, all);
    }

    fn ranked(&self) -> impl Iterator<Item = u32> {
        self.ranked.iter().take_while(|(_, score)| *score > 0.0).map(|(size, _)| *size)
    }
}

impl Default for ContextModel {
    fn default() -> Self {
        Self::new()
    }
}

impl Forecast for ContextModel {
    fn record_usage(&mut self, size: u32) {
        let size = size.min(self.limit + 1);
        if size <= self.limit {
            self.judge(size);
            self.recent.record(size);
        }
        for place in &self.current[..self.known] {
            let counts = &mut self.contexts[place.index];
            // A place may have been given up for the next longer context.
            if counts.key() == place.key {
                counts.count(size);
            }
        }
        // The same contexts again, and what led leads by more.
        if self.known == ORDERS && self.history == [size; ORDERS] && self.ranked[0].0 == size {
            return;
        }
        self.history.rotate_left(1);
        self.history[ORDERS - 1] = size;
        self.known = ORDERS.min(self.known + 1);
        self.find();
        self.rank();
    }

    fn predict(&self, sizes: &mut [u32]) -> usize {
        let recent = self.recent.sizes();
        let all = self.three.is_real();
        let first = self.ranked().next().filter(|_| self.first.is_real());
        // Where three of the blend do not count, its first does only as one of those that are
        // forecast anyway.
        let first =
            first.filter(|size| all || recent.iter().take(RANKS).any(|known| known == size));
        let known = append(sizes, 0, first.or(recent.first().copied()));
        let known = append(sizes, known, self.ranked().take(if all { RANKS } else { 0 }));
        let known = append(sizes, known, recent.iter().copied());
        append(sizes, known, self.ranked())
    }
}

impl fmt::Debug for ContextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextModel")
            .field("limit", &self.limit)
            .field("history", &&self.history[ORDERS - self.known..])
            .field("first", &self.first)
            .field("three", &self.three)
            .finish_non_exhaustive()
    }
}

/// Every bit of the result depends on every bit of `word`: the finaliser of
/// [SplitMix64](https://doi.org/10.1145/2660193.2660195).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// How much likelier another size has to be than the last one to be first. Found by trial: on
/// traces the blend thinks too little of what repeats.
const FAR: f32 = 10.0;
/// How many contexts are kept, 64 bytes each.
const CONTEXTS: usize = 8192;

const _: () = assert!(CONTEXTS * size_of::<Counts>() + size_of::<ContextModel>() <= 1 << 20);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn model(sizes: impl IntoIterator<Item = u32>) -> ContextModel {
        let mut model = ContextModel::new().limit(512);
        sizes.into_iter().for_each(|size| model.record_usage(size));
        model
    }

    #[test]
    fn the_longest_context_decides() {
        // After 2 comes 3 as often as 4: what came before the 2 tells which.
        let model = model([1, 2, 3, 5, 2, 4].repeat(20).into_iter().chain([1, 2]));
        assert_eq!(model.predict_next_sizes(2), [3, 4]);
    }

    #[test]
    fn without_a_rule_the_last_sizes_are_forecast() {
        assert_eq!(model([7, 9, 9, 4]).predict_next_sizes(5), [4, 9, 7]);
        assert_eq!(model([]).predict_next_sizes(3), []);
    }

    #[test]
    fn what_is_above_the_limit_is_never_forecast() {
        let mut model = model([513, 8, u32::MAX, 16].repeat(100));
        model.record_usage(1024);
        assert_eq!(model.predict_next_sizes(8), [8, 16]);
    }

    #[test]
    fn every_forecast_is_different() {
        let model = model((0..100).map(|index| 1 + index * index % 13).cycle().take(5000));
        let mut sizes = model.predict_next_sizes(16);
        assert!(sizes.len() > RANKS);
        sizes.sort_unstable();
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
    }

    #[test]
    fn more_contexts_than_places_do_no_harm() {
        let mut word = 1;
        let noise = core::iter::repeat_with(|| {
            word = mix(word);
            (word % 500) as u32
        });
        let model = model(noise.take(50_000).chain([8, 16].repeat(1000)));
        assert_eq!(model.predict_next_sizes(1), [8]);
    }
}
