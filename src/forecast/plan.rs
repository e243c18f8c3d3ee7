//! The sizes of an earlier run: what repeats need not be guessed.

use super::{Forecast, append};

/// Forecasts that sizes come as they came in a recorded run.
///
/// Each use moves one on in the recording, whatever its size. Past the end nothing is forecast.
///
/// # Examples
///
/// ```
/// use wharf::forecast::{Forecast, PlanRecorder};
///
/// let mut recorder = PlanRecorder::new(1000);
/// [8, 8, 16].into_iter().for_each(|size| recorder.record_usage(size));
/// let mut plan = recorder.finish();
/// assert_eq!(plan.predict_next_sizes(2), [8, 16]);
/// plan.record_usage(8);
/// plan.record_usage(8);
/// assert_eq!(plan.predict_next_sizes(2), [16]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    runs: Box<[Run]>,
    /// The run that the next use is in, and how many of it are over.
    next: usize,
    over: u32,
}

/// A size, and how often it was used in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The size.
    pub size: u32,
    /// How often it was used in a row.
    pub length: u32,
}

impl Plan {
    /// The recorded sizes, each with how often it was used in a row.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = Run> + '_ {
        self.runs.iter().copied()
    }

    /// Begins again.
    pub fn rewind(&mut self) {
        (self.next, self.over) = (0, 0);
    }
}

/// The plan with these runs, as [`Plan::runs`] gives them.
impl FromIterator<Run> for Plan {
    fn from_iter<T: IntoIterator<Item = Run>>(runs: T) -> Self {
        let runs = runs.into_iter().filter(|run| run.length > 0);
        Self { runs: runs.collect(), next: 0, over: 0 }
    }
}

impl Forecast for Plan {
    fn record_usage(&mut self, _: u32) {
        let Some(run) = self.runs.get(self.next) else { return };
        self.over += 1;
        if self.over == run.length {
            (self.next, self.over) = (self.next + 1, 0);
        }
    }

    fn predict(&self, sizes: &mut [u32]) -> usize {
        let runs = self.runs.get(self.next..).unwrap_or_default();
        append(sizes, 0, runs.iter().take(AHEAD).map(|run| run.size))
    }
}

/// Records the sizes of a run for a [`Plan`].
///
/// Takes room for so many changes of size as it is told, and records up to there.
#[derive(Clone, Debug)]
pub struct PlanRecorder {
    runs: Vec<Run>,
    changes: usize,
    missed: u64,
}

impl PlanRecorder {
    /// A recorder with room for `changes` changes of size, eight bytes each.
    pub fn new(changes: usize) -> Self {
        Self { runs: Vec::with_capacity(changes), changes, missed: 0 }
    }

    /// Takes note that `size` was used.
    pub fn record_usage(&mut self, size: u32) {
        let full = self.runs.len() == self.changes;
        match self.runs.last_mut() {
            Some(run) if run.size == size && run.length < u32::MAX && self.missed == 0 => {
                run.length += 1;
            }
            _ if full => self.missed += 1,
            _ => self.runs.push(Run { size, length: 1 }),
        }
    }

    /// How many uses came when there was no room left, and are not in the plan.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The plan of what was recorded.
    pub fn finish(self) -> Plan {
        Plan { runs: self.runs.into_boxed_slice(), next: 0, over: 0 }
    }
}

/// How many changes of size are looked ahead for sizes that differ.
const AHEAD: usize = 256;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn recorded(changes: usize, sizes: &[u32]) -> PlanRecorder {
        let mut recorder = PlanRecorder::new(changes);
        sizes.iter().for_each(|size| recorder.record_usage(*size));
        recorder
    }

    #[test]
    fn a_run_that_repeats_is_forecast_without_a_miss() {
        let sizes = [8, 8, 16, 8, 4, 4, 4, 512];
        let mut plan = recorded(100, &sizes).finish();
        assert_eq!(plan, plan.runs().collect());
        for _ in 0..2 {
            for size in sizes {
                assert_eq!(plan.predict_next_sizes(1), [size]);
                plan.record_usage(size);
            }
            assert_eq!(plan.predict_next_sizes(3), []);
            plan.record_usage(1);
            plan.rewind();
        }
    }

    #[test]
    fn a_full_recorder_keeps_the_beginning() {
        let recorder = recorded(2, &[8, 8, 16, 4, 16, 8]);
        assert_eq!(recorder.missed(), 3);
        assert_eq!(
            recorder.finish().runs().collect::<Vec<_>>(),
            [(8, 2), (16, 1)].map(|(size, length)| Run { size, length })
        );
    }
}
