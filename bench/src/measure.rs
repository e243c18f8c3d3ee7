//! Rounds: each visits every peer once, in a new random order.
//!
//! All peers live in one process, so that they meet the same machine at the same time: what
//! disturbs a round disturbs all of it, and a ratio of two peers of one run says more than
//! nanoseconds of two runs.

use std::time::Duration;

use crate::machine::{Patience, ns, ticks_per_ns};
use crate::peers::Entry;
use crate::work::{Bench, Workload};

/// What to run, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// Rounds of each; `None`: 13, of W5 9.
    pub rounds: Option<usize>,
    /// The time that a peer gets in a round; in one of W5 eight times that.
    pub round: Duration,
    /// The time that the run may spend on waiting until no other process computes.
    pub patience: Duration,
}

/// A column of the full table: what one measure said of every peer.
#[derive(Clone, Debug)]
pub struct Column {
    /// The workload, and for single operations the percentile.
    pub name: String,
    /// For every peer its nanoseconds, sorted; empty if the peer cannot do this.
    pub samples: Vec<Vec<f64>>,
    /// Which of the sorted samples counts, from 0 to 1.
    pub quantile: f64,
}

impl Plan {
    /// Runs everything. Calls `progress` with each workload that is done.
    pub fn run(&self, entries: &[Entry], mut progress: impl FnMut(Workload)) -> Vec<Column> {
        let mut patience = Patience::new(self.patience);
        let mut columns = Vec::new();
        for &workload in &self.workloads {
            // Fresh instances: what another workload left behind is not this one's.
            let peers: Vec<_> = entries.iter().map(|entry| (entry.make)()).collect();
            columns.push(self.times(workload, &peers, &mut patience));
            if workload == Workload::W5 {
                columns.extend(self.tails(&peers, &mut patience));
            }
            progress(workload);
        }
        columns
    }

    /// The time of a unit of work.
    fn times(
        &self,
        workload: Workload,
        peers: &[Box<dyn Bench>],
        patience: &mut Patience,
    ) -> Column {
        let budget = if workload == Workload::W5 { 8 * self.round } else { self.round };
        let counts: Vec<_> =
            peers.iter().map(|peer| count_for(&**peer, workload, budget)).collect();
        let mut samples = vec![Vec::new(); peers.len()];
        for number in self.shuffled(workload, peers.len()) {
            let Some(count) = counts[number] else { continue };
            patience.wait_for_quiet();
            if let Some(time) = peers[number].run(workload, count) {
                samples[number].push(workload.per_unit(time, count));
            }
        }
        Column::new(
            workload.to_string(),
            samples,
            if is_ring_or_crowd(workload) { 0.5 } else { 0.25 },
        )
    }

    /// The time of single operations under W5, one column a percentile.
    fn tails(&self, peers: &[Box<dyn Bench>], patience: &mut Patience) -> Vec<Column> {
        let ticks = ticks_per_ns();
        let counts: Vec<_> =
            peers.iter().map(|peer| count_for(&**peer, Workload::W5, 8 * self.round)).collect();
        let mut samples = vec![vec![Vec::new(); peers.len()]; PERCENTILES.len()];
        for number in self.shuffled(Workload::W5, peers.len()) {
            let Some(count) = counts[number] else { continue };
            patience.wait_for_quiet();
            let Some(mut times) = peers[number].single(count.min(MOST_SINGLE)) else { continue };
            times.sort_unstable();
            let times: Vec<f64> = times.into_iter().map(|time| f64::from(time) / ticks).collect();
            for (samples, (_, percentile)) in samples.iter_mut().zip(PERCENTILES) {
                samples[number].push(quantile(&times, percentile));
            }
        }
        let columns = samples.into_iter().zip(PERCENTILES);
        columns
            .map(|(samples, (name, _))| Column::new(format!("W5 {name}"), samples, 0.5))
            .collect()
    }

    /// The peers in the order of their turns.
    fn shuffled(&self, workload: Workload, peers: usize) -> Vec<usize> {
        let rounds = self.rounds.unwrap_or(if workload == Workload::W5 { 9 } else { 13 });
        let round = |_| {
            let mut turns: Vec<_> = (0..peers).collect();
            fastrand::shuffle(&mut turns);
            turns
        };
        (0..rounds).flat_map(round).collect()
    }
}

impl Column {
    fn new(name: String, mut samples: Vec<Vec<f64>>, quantile: f64) -> Self {
        samples.iter_mut().for_each(|samples| samples.sort_by(f64::total_cmp));
        Self { name, samples, quantile }
    }

    /// The nanoseconds that count for a peer.
    pub fn value(&self, peer: usize) -> Option<f64> {
        let samples = self.samples.get(peer).filter(|samples| !samples.is_empty())?;
        Some(quantile(samples, self.quantile))
    }

    /// By how much a peer's upper quartile is above its lower, in parts of the lower.
    pub fn spread(&self, peer: usize) -> Option<f64> {
        let samples = self.samples.get(peer).filter(|samples| !samples.is_empty())?;
        Some(quantile(samples, 0.75) / quantile(samples, 0.25) - 1.0)
    }
}

/// W4 and W5: their least is a lucky phase of the ring or of the scheduler, so the median counts.
fn is_ring_or_crowd(workload: Workload) -> bool {
    matches!(workload, Workload::W4 | Workload::W4f | Workload::W5)
}

/// How many units a peer does in `budget`; `None` if it has no room for the workload.
fn count_for(peer: &dyn Bench, workload: Workload, budget: Duration) -> Option<u64> {
    let mut count = 1000;
    // The first is cold, the second tells how long the third may be.
    for part in [8, 4, 1] {
        let time = peer.run(workload, count)?.max(Duration::from_nanos(1));
        let factor = ns(budget) / f64::from(part) / ns(time);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and small"
        )]
        let scaled = (crate::machine::float(count) * factor) as u64;
        count = scaled.max(500);
    }
    Some(count)
}

/// The value below which `part` of the sorted samples lie.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of the slice"
    )]
    let index = (crate::machine::float(sorted.len() as u64 - 1) * part).round() as usize;
    sorted[index]
}

const PERCENTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Replacements of a thread whose times are kept: an eighth of this, 4 bytes each.
const MOST_SINGLE: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|part| quantile(&sorted, part)), [1.0, 2.0, 3.0, 5.0]);
    }

    #[test]
    fn a_column_without_samples_has_no_value() {
        let column = Column::new("W1".to_owned(), vec![vec![], vec![2.0, 1.0, 4.0]], 0.5);
        assert_eq!((column.value(0), column.value(1), column.value(2)), (None, Some(2.0), None));
        assert_eq!(column.spread(1), Some(1.0));
    }
}
