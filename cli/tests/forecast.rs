//! The forecasts on sequences of sizes of every kind, and on traces.
//!
//! A made-up trace is judged always; the one that `WHARF_TRACE` names where that is set.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wharf::forecast::{ContextModel, Frequency, PlanRecorder};
use wharf_cli::generate::Generator;
use wharf_cli::judge::{Hits, LastFirst, hits, recorded};
use wharf_cli::schedule::{Scheduler, padded};
use wharf_cli::trace::Trace;

const LENGTH: usize = 10_000;

fn made_up(seed: u64) -> Vec<Option<u32>> {
    let steps = Scheduler::new(Generator::new(seed).map(Ok::<_, ()>)).take(LENGTH);
    steps.map(|step| padded(step.unwrap().tokens)).collect()
}

fn random(seed: u64, kinds: u32) -> Vec<Option<u32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..LENGTH).map(|_| Some(1 + random.next_u32() % kinds)).collect()
}

/// Steady, then swinging, then steady elsewhere, then noise, each for a while, over and over.
fn phases() -> Vec<Option<u32>> {
    let phase = |index: u32| match index / 500 % 5 {
        0 => 8,
        1 => 8 + 8 * (index % 3),
        2 => 64,
        3 => 8 + 120 * (index % 2),
        _ => 1 + index.wrapping_mul(2_654_435_769) % 40,
    };
    (0..).take(LENGTH).map(|index| Some(phase(index))).collect()
}

fn sequences() -> Vec<(String, Vec<Option<u32>>)> {
    let sequence =
        |of: &dyn Fn(usize) -> usize| (0..LENGTH).map(|index| u32::try_from(of(index)).ok()).collect();
    let mut sequences = vec![
        ("constant".to_owned(), sequence(&|_| 8)),
        ("alternating".to_owned(), sequence(&|index| [8, 256][index % 2])),
        ("ramp".to_owned(), sequence(&|index| 1 + index)),
        ("ramps".to_owned(), sequence(&|index| 1 + index % 300)),
        ("up and down".to_owned(), sequence(&|index| 1 + (index % 100).min(100 - index % 100))),
        ("phases".to_owned(), phases()),
    ];
    for seed in 0..6 {
        sequences.push((format!("52 sizes at random, seed {seed}"), random(seed, 52)));
        sequences.push((format!("3 sizes at random, seed {seed}"), random(seed, 3)));
        sequences.push((format!("made-up trace, seed {seed}"), made_up(seed)));
    }
    sequences
}

#[test]
fn the_context_model_is_never_worse_than_the_last_sizes() {
    for (name, sizes) in sequences() {
        let last = hits(&sizes, &mut LastFirst::default());
        for mut model in [ContextModel::new(), ContextModel::new().limit(512)] {
            let ours = hits(&sizes, &mut model);
            assert!(
                ours.first >= last.first && ours.third >= last.third,
                "{name}: {ours:?}, last sizes {last:?}"
            );
        }
    }
}

#[test]
fn the_context_model_learns_what_has_a_rule() {
    for (name, sizes) in sequences().into_iter().filter(|(name, _)| name == "alternating" || name == "ramps")
    {
        let ours = hits(&sizes, &mut ContextModel::new());
        assert!(ours.first > 0.95, "{name}: {ours:?}");
    }
}

#[test]
fn a_recorded_run_is_foreseen_whole() {
    let sizes = made_up(1);
    let mut plan = PlanRecorder::new(sizes.len());
    sizes.iter().for_each(|size| plan.record_usage(recorded(*size)));
    assert_eq!(hits(&sizes, &mut plan.finish()), Hits { first: 1.0, third: 1.0, warm: 1.0 });
}

#[test]
fn the_context_model_saves_graphs_on_a_made_up_trace() {
    let sizes = made_up(1);
    let (last, frequency) = (hits(&sizes, &mut LastFirst::default()), hits(&sizes, &mut Frequency::new(512)));
    let ours = hits(&sizes, &mut ContextModel::new().limit(512));
    assert!(ours.warm >= last.warm && ours.warm >= frequency.warm, "{ours:?} {last:?} {frequency:?}");
}

/// The figures that the forecasts are known to reach on the Azure trace of code completion.
#[test]
fn the_figures_on_a_real_trace() {
    let Some(path) = std::env::var_os("WHARF_TRACE") else {
        return eprintln!("skipped: WHARF_TRACE names no trace");
    };
    let steps = Scheduler::new(Trace::open(path).unwrap());
    let steps: Vec<_> = steps.map(|step| padded(step.unwrap().tokens)).collect();
    assert_eq!(steps.len(), 51_173);
    let frequency = hits(&steps, &mut Frequency::new(512));
    assert!(
        (frequency.first - 0.456).abs() < 0.001 && (frequency.third - 0.807).abs() < 0.001,
        "{frequency:?}"
    );
    let last = hits(&steps, &mut LastFirst::default());
    for mut model in [ContextModel::new(), ContextModel::new().limit(512)] {
        let ours = hits(&steps, &mut model);
        assert!(ours.first >= 0.888 && ours.third >= 0.963, "{ours:?}");
        assert!(
            ours.first >= last.first && ours.third >= last.third && ours.warm >= last.warm,
            "{ours:?}, {last:?}"
        );
    }
}
