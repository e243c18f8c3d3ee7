//! Steps, from `begin` to the address of an input.

use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

use softcuda::{Config, Simulator};
use wharf::staging::{
    Bound, InputBuffers, InputBuffersBuilder, Layout, Len, SlotId, StageError, Staged, Step,
};
use wharf::{Context, Stream};

use crate::count::counted;
use crate::table;

/// The sizes of vLLM's graphs, up to 512.
pub(crate) fn ladder() -> impl Iterator<Item = usize> {
    [1, 2, 4].into_iter().chain((1..=64).map(|times| 8 * times))
}

/// A set of so many slots of one element a token.
pub(crate) fn set(context: &Context, slots: usize, layout: Layout) -> InputBuffersBuilder {
    let set = InputBuffers::builder(context).ring_depth(table::DEPTH).layout(layout);
    (0..slots).fold(set, |set, slot| set.slot::<i32>(&name(slot), Len::Tokens))
}

pub(crate) fn name(slot: usize) -> String {
    format!("slot {slot}")
}

/// Runs a row: `write N`, the loop alone, or `step of N, ids|bound` and more.
pub(crate) fn row(name: &str, rounds: u64) {
    let number = |word: &str| word.trim_end_matches(',').parse::<usize>().unwrap();
    match name.split(' ').collect::<Vec<_>>()[..] {
        ["write", slots] => only_the_loop(number(slots), rounds),
        ["step", "of", slots, how, ..] => {
            let bound = how.starts_with("bound");
            match (number(slots), bound) {
                (1, true) => run(name, rounds, 1, Some(all::<1>)),
                (4, true) => run(name, rounds, 4, Some(all::<4>)),
                (12, true) => run(name, rounds, 12, Some(all::<12>)),
                (40, true) => run(name, rounds, 40, Some(all::<40>)),
                (slots, _) => run(name, rounds, slots, None),
            }
        }
        _ => panic!("no row {name}"),
    }
}

/// Steps with bound slots.
type All = fn(&InputBuffers, &[SlotId<i32>], &Stream, usize, u64);

fn run(name: &str, rounds: u64, slots: usize, all: Option<All>) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = table::driver();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let set = set(&context, slots, Layout::PerSlot);
    let inputs = if name.contains("67") { set.buckets(ladder()) } else { set.buckets([64]) }
        .build()
        .unwrap();
    let ids: Vec<SlotId<i32>> =
        (0..slots).map(|slot| inputs.slot_id(&self::name(slot)).unwrap()).collect();
    let tokens = if name.contains("padded") || name.contains("change") { 60 } else { 64 };
    table::BEHIND.store(if name.contains("2 behind") { 2 } else { 0 }, Relaxed);
    // Every ring slot has its graphs, and its tails.
    let held: Vec<_> = (0..table::DEPTH).map(|_| begin(&inputs, tokens).unwrap()).collect();
    for mut step in held {
        ids.iter().for_each(|id| step.write(*id).fill(1));
        submit(step, &stream).unwrap();
    }
    let mut now = tokens;
    match all {
        Some(all) => all(&inputs, &ids, &stream, tokens, rounds),
        None if name.contains("change") => counted(rounds, &mut || {
            now ^= 2;
            step(&inputs, &ids, &stream, now);
        }),
        None => counted(rounds, &mut || step(&inputs, &ids, &stream, tokens)),
    }
}

fn step(inputs: &InputBuffers, ids: &[SlotId<i32>], stream: &Stream, tokens: usize) {
    let Ok(mut step) = begin(inputs, black_box(tokens)) else { panic!("no ring slot") };
    for id in ids {
        black_box(step.write(*id));
    }
    let Ok(staged) = submit(step, stream) else { panic!("a step was refused") };
    black_box(staged.device_ptr(ids[0]));
}

fn all<const N: usize>(
    inputs: &InputBuffers,
    ids: &[SlotId<i32>],
    stream: &Stream,
    tokens: usize,
    rounds: u64,
) {
    let ids: [SlotId<i32>; N] = ids.try_into().unwrap();
    let slots: Bound<_> = inputs.bind(ids).unwrap();
    counted(rounds, &mut || {
        let Ok(mut step) = begin(inputs, black_box(tokens)) else { panic!("no ring slot") };
        let Ok(all) = &mut step.write_all(&slots) else { panic!("slots of another set") };
        for slot in all {
            black_box(&mut **slot);
        }
        let Ok(staged) = submit(step, stream) else { panic!("a step was refused") };
        black_box(staged.device_ptr(ids[0]));
    });
}

#[inline(never)]
fn begin(inputs: &InputBuffers, tokens: usize) -> Result<Step<'_>, StageError> {
    inputs.begin(tokens, tokens)
}

#[inline(never)]
fn submit<'a>(step: Step<'a>, stream: &Stream) -> Result<Staged<'a>, StageError> {
    step.submit(stream)
}

/// The loop with nothing of the library in it.
fn only_the_loop(slots: usize, rounds: u64) {
    let mut memory = [0_i32; 64];
    counted(rounds, &mut || {
        let _tokens = black_box(64);
        for _ in 0..slots {
            black_box(&mut memory[..]);
        }
        black_box(0_u64);
    });
}
