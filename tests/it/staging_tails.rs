//! Tails are padding in every step, whatever the steps before have left in a ring slot: counts that
//! shrink and grow, buckets in any order, steps that are given up, slots that are not written.

use std::env;
use std::sync::Arc;

use wharf::Stream;
use wharf::staging::{Counts, Forgotten, InputBuffers, Layout, Len, Pad, SlotId, Staged, Step};

use crate::backend::{Config, Simulator, on_machine};
use crate::staging_rig::{Checker, Noise, context, words};

const BUCKETS: [usize; 7] = [1, 2, 4, 8, 16, 24, 32];
/// More than the largest bucket: such a step has a size of its own.
const MAX: usize = 40;

#[test]
fn tails_are_padding_after_any_steps_in_slots_of_their_own() {
    tails(Layout::PerSlot, Pad::Value(3), 1);
}

#[test]
fn tails_are_padding_after_any_steps_in_packed_slots() {
    tails(Layout::Packed, Pad::Value(3), 2);
}

/// A slot that repeats its last element is filled in every step.
#[test]
fn tails_that_repeat_are_padding_after_any_steps_in_slots_of_their_own() {
    tails(Layout::PerSlot, Pad::RepeatLast, 3);
}

#[test]
fn tails_that_repeat_are_padding_after_any_steps_in_packed_slots() {
    tails(Layout::Packed, Pad::RepeatLast, 4);
}

/// A ring slot in which a longer step was given up, or submitted, between padded steps of the same
/// counts.
#[test]
fn a_step_that_is_given_up_leaves_no_tail_that_is_trusted() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let set = Set::new(&context, Layout::PerSlot, Pad::RepeatLast, 1);
        let stream = Stream::new(&context).unwrap();
        let checker = Checker::default();
        for (at, (tokens, given_up)) in
            [(3, false), (4, true), (3, false), (4, false), (3, false)].into_iter().enumerate()
        {
            let mut step = set.inputs.begin(tokens, tokens).unwrap();
            let slots = set.fill(&mut step, at as u64, true);
            if !given_up {
                let staged = step.submit(&stream).unwrap();
                checker.compare(&stream, slots.expected(&set, &staged), at);
            }
            stream.synchronize().unwrap();
        }
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// A slot that a step leaves out has the elements of an older one in the host's memory, behind as
/// many as the step has.
#[test]
fn what_a_step_leaves_out_is_not_taken_for_padding() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let set = InputBuffers::builder(&context).slot::<u32>("kept", Len::Tokens);
        let set = set.when_forgotten(Forgotten::Keep).slot::<u32>("other", Len::Tokens);
        let inputs = set.buckets([4]).ring_depth(1).build().unwrap();
        let [kept, other]: [SlotId<u32>; 2] =
            ["kept", "other"].map(|name| inputs.slot_id(name).unwrap());
        let stream = Stream::new(&context).unwrap();
        for (tokens, is_kept, wanted) in
            [(4, false, [1, 1, 1, 1]), (2, true, [1, 1, 1, 1]), (2, false, [1, 1, 0, 0])]
        {
            let mut step = inputs.begin(tokens, tokens).unwrap();
            step.write(other).fill(2);
            if !is_kept {
                step.write(kept).fill(1);
            }
            let staged = step.submit(&stream).unwrap();
            let found: [u32; 4] = words(&stream, staged.device_ptr(kept));
            assert_eq!(found, wanted, "{tokens} tokens");
        }
    });
}

/// Steps in one run; `WHARF_TAIL_STEPS` asks for more.
fn steps() -> usize {
    env::var("WHARF_TAIL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(1500)
}

fn tails(layout: Layout, last: Pad<u16>, seed: u64) {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let set = Set::new(&context, layout, last, 3);
        let stream = Stream::new(&context).unwrap();
        let (checker, mut noise) = (Checker::default(), Noise(seed));
        let mut counts = Counts { tokens: 5, requests: 3 };
        for at in 0..steps() {
            // Mostly the same again, or a little more or less; now and then anything.
            match noise.below(8) {
                0 => counts.tokens = noise.below(MAX + 1),
                1 => counts.requests = noise.below(MAX + 1),
                2 => counts.tokens = (counts.tokens + 1).min(MAX),
                3 => counts.tokens = counts.tokens.saturating_sub(1),
                4 => counts.requests = counts.requests.saturating_sub(2),
                _ => {}
            }
            let Counts { tokens, requests } = counts;
            let agreed = BUCKETS[noise.below(BUCKETS.len())];
            let begun = match noise.below(4) {
                0 if tokens.max(requests) <= agreed => {
                    set.inputs.begin_padded(tokens, requests, agreed)
                }
                _ => set.inputs.begin(tokens, requests),
            };
            let mut step = begun.unwrap();
            let slots = set.fill(&mut step, noise.next(), noise.below(8) != 0);
            if noise.below(8) == 0 {
                drop(step);
                continue;
            }
            let staged = step.submit(&stream).unwrap();
            checker.compare(&stream, slots.expected(&set, &staged), at);
            if at % 64 == 0 {
                stream.synchronize().unwrap();
            }
        }
        stream.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{layout:?}, {last:?}");
    });
}

/// A slot of each policy.
struct Set {
    inputs: InputBuffers,
    zero: SlotId<i32>,
    value: SlotId<i64>,
    last: SlotId<u16>,
    keep: SlotId<i32>,
    flags: SlotId<u8>,
    /// The policy of `last`.
    pad: Pad<u16>,
}

/// What a step has written: the elements of each slot.
struct Written {
    zero: Vec<i32>,
    value: Vec<i64>,
    last: Vec<u16>,
    keep: Vec<i32>,
    /// Empty where the step has not written it.
    flags: Vec<u8>,
}

impl Set {
    fn new(context: &wharf::Context, layout: Layout, pad: Pad<u16>, depth: usize) -> Self {
        let inputs = InputBuffers::builder(context)
            .slot::<i32>("zero", Len::Tokens)
            .slot_padded::<i64>("value", Len::Tokens.times(2).plus(1), Pad::Value(-1))
            .slot_padded::<u16>("last", Len::Requests.plus(1), pad)
            .slot_padded::<i32>("keep", Len::Requests, Pad::Keep)
            .slot_padded::<u8>("flags", Len::Requests, Pad::Value(9))
            .when_forgotten(Forgotten::Pad)
            .buckets(BUCKETS)
            .max_tokens(MAX)
            .max_requests(MAX)
            .layout(layout)
            .ring_depth(depth)
            .build()
            .unwrap();
        Self {
            zero: inputs.slot_id("zero").unwrap(),
            value: inputs.slot_id("value").unwrap(),
            last: inputs.slot_id("last").unwrap(),
            keep: inputs.slot_id("keep").unwrap(),
            flags: inputs.slot_id("flags").unwrap(),
            inputs,
            pad,
        }
    }

    /// Writes every slot, the flags if they are wanted, with data that are no padding.
    fn fill(&self, step: &mut Step<'_>, seed: u64, flags: bool) -> Written {
        let mut noise = Noise(seed);
        let mut next = || i32::try_from(1 + noise.below(30_000)).unwrap();
        step.write(self.zero).fill_with(&mut next);
        step.write(self.value).fill_with(|| next().into());
        step.write(self.last).fill_with(|| u16::try_from(next()).unwrap());
        step.write(self.keep).fill_with(&mut next);
        let mut written = Written {
            zero: step.write(self.zero).to_vec(),
            value: step.write(self.value).to_vec(),
            last: step.write(self.last).to_vec(),
            keep: step.write(self.keep).to_vec(),
            flags: Vec::new(),
        };
        if flags {
            // Half of them, the rest of the step's is padding.
            let len = written.keep.len();
            written.flags = (0..len.div_ceil(2)).map(|_| 10 + (next() % 200) as u8).collect();
            step.write_prefix(self.flags, &written.flags).unwrap();
        }
        written
    }
}

impl Written {
    /// What must be on the device: addresses, and bytes.
    fn expected(&self, set: &Set, staged: &Staged<'_>) -> Vec<(u64, Vec<u8>)> {
        let Counts { tokens, requests } = staged.padded();
        let last = match set.pad {
            Pad::Value(value) => value,
            _ => self.last.last().copied().unwrap_or(0),
        };
        vec![
            (staged.device_ptr(set.zero), bytes(&self.zero, tokens, 0, i32::to_ne_bytes)),
            (
                staged.device_ptr(set.value),
                bytes(&self.value, 2 * tokens + 1, -1, i64::to_ne_bytes),
            ),
            (staged.device_ptr(set.last), bytes(&self.last, requests + 1, last, u16::to_ne_bytes)),
            // The step says nothing of the elements behind these.
            (staged.device_ptr(set.keep), bytes(&self.keep, self.keep.len(), 0, i32::to_ne_bytes)),
            (staged.device_ptr(set.flags), bytes(&self.flags, requests, 9, u8::to_ne_bytes)),
        ]
    }
}

fn bytes<T: Copy, const N: usize>(
    words: &[T],
    len: usize,
    pad: T,
    to: fn(T) -> [u8; N],
) -> Vec<u8> {
    let tail = std::iter::repeat_n(pad, len - words.len());
    words.iter().copied().chain(tail).flat_map(to).collect()
}
