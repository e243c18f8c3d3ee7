//! The accuracy of a forecast of step sizes.

use std::convert::Infallible;

use wharf::forecast::{Forecast, WarmSet, WarmStats};

/// The share of graph-sized steps that a forecast had foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hits {
    /// Their padded size was the first one forecast.
    pub first: f64,
    /// It was among the first three.
    pub third: f64,
    /// It was among the first [`WARM`].
    pub warm: f64,
}

/// The number of sizes with a prepared graph.
pub const WARM: usize = 8;

/// The recorded size of a step: its padded size, or one size for all steps too large for a graph.
pub fn recorded(size: Option<u32>) -> u32 {
    size.unwrap_or(TOO_LARGE)
}

/// Lets `forecast` go through padded sizes, `None` for steps that are too large for a graph.
pub fn hits(sizes: &[Option<u32>], forecast: &mut dyn Forecast) -> Hits {
    let mut judge = Judge::default();
    sizes.iter().for_each(|size| judge.next(forecast, *size));
    judge.hits()
}

/// Lets a set go through padded sizes, as the graphs of an engine would: what became of it.
pub fn warm(sizes: &[Option<u32>], mut warm: WarmSet) -> WarmStats {
    for size in sizes {
        match size {
            Some(size) => drop(warm.record_usage(*size)),
            None => warm.record_other(),
        }
        let Ok(()) = warm.rearrange(|_| Ok::<_, Infallible>(()));
    }
    warm.stats()
}

/// Counts what a forecast foresees, step by step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    hits: [u32; 3],
    total: u32,
}

impl Judge {
    /// Compares the forecast with the padded size that came, and lets it take note of that.
    pub fn next(&mut self, forecast: &mut dyn Forecast, size: Option<u32>) {
        if let Some(size) = size {
            let mut next = [0; WARM];
            let known = forecast.predict(&mut next);
            let place = next[..known].iter().position(|next| *next == size);
            for (hits, places) in self.hits.iter_mut().zip([1, 3, WARM]) {
                *hits += u32::from(place.is_some_and(|place| place < places));
            }
            self.total += 1;
        }
        forecast.record_usage(recorded(size));
    }

    /// The shares so far.
    pub fn hits(&self) -> Hits {
        let [first, third, warm] =
            self.hits.map(|hits| f64::from(hits) / f64::from(self.total.max(1)));
        Hits { first, third, warm }
    }
}

/// The sizes used last, the last one first: the forecast that any other must beat. Its first
/// [`WARM`] are what a cache holds that gives up what was used least recently.
#[derive(Clone, Debug, Default)]
pub struct LastFirst(Vec<u32>);

impl Forecast for LastFirst {
    fn record_usage(&mut self, size: u32) {
        self.0.retain(|known| *known != size);
        self.0.insert(0, size);
        self.0.truncate(64);
    }

    fn predict(&self, sizes: &mut [u32]) -> usize {
        let known = sizes.len().min(self.0.len());
        sizes[..known].copy_from_slice(&self.0[..known]);
        known
    }
}

const TOO_LARGE: u32 = u32::MAX - 1;
