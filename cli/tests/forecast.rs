//! The forecasts on sequences of sizes of every kind, and on traces.
//!
//! A made-up trace is judged always; the one that `WHARF_TRACE` names where that is set.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
#![allow(clippy::print_stdout, reason = "prints figures")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wharf::forecast::{ContextModel, Frequency, PlanRecorder, WarmSet};
use wharf_cli::generate::Generator;
use wharf_cli::judge::{Hits, LastFirst, WARM, hits, recorded, warm};
use wharf_cli::schedule::{Scheduler, padded};
use wharf_cli::trace::{Options, Trace};

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

/// A number below `end`.
fn below(random: &mut ChaCha8Rng, end: u32) -> usize {
    (random.next_u32() % end) as usize
}

/// Sequences with a rule in them, or none, as unknown traffic may have.
fn unseen(seed: u64) -> Vec<(&'static str, Vec<Option<u32>>)> {
    let sizes: Vec<u32> = wharf_cli::schedule::sizes().collect();
    let all = u32::try_from(sizes.len()).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let patterns: Vec<Vec<usize>> = (2..7)
        .map(|len| (0..len + below(&mut random, 5)).map(|_| below(&mut random, all)).collect())
        .collect();
    let mut places = [0; 2];
    let mut at = 25;
    let mut sequence = |name, next: &mut dyn FnMut(usize, &mut ChaCha8Rng) -> usize| {
        let indices = (0..LENGTH).map(|step| next(step, &mut random));
        (name, indices.map(|index| Some(sizes[index.min(sizes.len() - 1)])).collect::<Vec<_>>())
    };
    vec![
        sequence("periods", &mut |step, _| {
            patterns[step / 300 % 5][step % patterns[step / 300 % 5].len()]
        }),
        sequence("sawtooth", &mut |step, _| 3 + 2 * (step % 17)),
        sequence("bursts", &mut |step, random| {
            if step % 47 < 40 { patterns[step / 47 % 5][0] } else { below(random, all) }
        }),
        sequence("Zipf", &mut |_, random| {
            // 1 / (1 - u) has the density of Zipf's law with exponent 2.
            (1_u32 << 16).div_euclid(1 + random.next_u32() % (1 << 16)) as usize
        }),
        sequence("walk", &mut |_, random| {
            at = (at + below(random, 3)).saturating_sub(1).min(50);
            at
        }),
        sequence("lazy walk", &mut |_, random| {
            let moves = below(random, 5) == 0;
            at = if moves { (at + below(random, 3)).saturating_sub(1).min(50) } else { at };
            at
        }),
        sequence("two interleaved", &mut |_, random| {
            let which = below(random, 2);
            places[which] += 1;
            patterns[which][places[which] % patterns[which].len()]
        }),
        sequence("a rule, then noise", &mut |step, random| {
            if step % 140 < 40 { patterns[step / 140 % 5][step % 2] } else { below(random, all) }
        }),
        sequence("one of eight", &mut |_, random| patterns[4][below(random, 6)]),
    ]
}

#[test]
fn the_context_model_is_never_worse_where_traffic_is_unseen() {
    for seed in 0..6 {
        for (name, sizes) in unseen(seed) {
            let last = hits(&sizes, &mut LastFirst::default());
            let ours = hits(&sizes, &mut ContextModel::new().limit(512));
            // As many hits as the model may cost before it is not asked any more.
            let slack = 10.0 / LENGTH as f64;
            assert!(
                ours.first >= last.first - slack && ours.third >= last.third - slack,
                "{name}, seed {seed}: {ours:?}, last sizes {last:?}"
            );
        }
    }
}

fn sequences() -> Vec<(String, Vec<Option<u32>>)> {
    let sequence = |of: &dyn Fn(usize) -> usize| {
        (0..LENGTH).map(|index| u32::try_from(of(index)).ok()).collect()
    };
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
    for (name, sizes) in
        sequences().into_iter().filter(|(name, _)| name == "alternating" || name == "ramps")
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
    let (last, frequency) =
        (hits(&sizes, &mut LastFirst::default()), hits(&sizes, &mut Frequency::new(512)));
    let ours = hits(&sizes, &mut ContextModel::new().limit(512));
    assert!(
        ours.warm >= last.warm && ours.warm >= frequency.warm,
        "{ours:?} {last:?} {frequency:?}"
    );
    instantiated(&sizes);
}

/// With room for graphs of eight sizes, fewer steps have to make one by the model's forecast than
/// where the size used longest ago goes.
fn instantiated(sizes: &[Option<u32>]) {
    let least_recently = warm(sizes, WarmSet::new(LastFirst::default(), WARM).ahead(0));
    let frequency = warm(sizes, WarmSet::new(Frequency::new(512), WARM));
    for ahead in [2, WARM] {
        let ours = warm(sizes, WarmSet::new(ContextModel::new().limit(512), WARM).ahead(ahead));
        println!(
            "{ahead} ahead: {ours:?}, least recently used {least_recently:?}, \
             frequency {frequency:?}"
        );
        assert!(ours.missed <= least_recently.missed && ours.missed <= frequency.missed);
    }
}

/// The figures that the forecasts are known to reach on the Azure trace of code completion.
#[test]
fn the_figures_on_a_real_trace() {
    let Some(path) = std::env::var_os("WHARF_TRACE") else {
        return eprintln!("skipped: WHARF_TRACE names no trace");
    };
    let steps = Scheduler::new(Trace::open(path, &Options::default()).unwrap());
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
    instantiated(&steps);
}
