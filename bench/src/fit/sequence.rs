//! Sequences of allocations and frees, made once and replayed by every allocator.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocates; the block's number is that of the allocation: 0, 1, 2, ...
    Alloc {
        /// Bytes, at least 1.
        size: usize,
        /// The number of the stream that uses the block.
        stream: usize,
    },
    /// Frees a block by its number.
    Free(usize),
}

/// A named sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// What it is called.
    pub name: String,
    /// What it does, in order.
    pub ops: Vec<Op>,
    /// Operations before this one are not counted in the mean.
    pub warm: usize,
    /// The most bytes that are live at a time.
    pub peak_live: usize,
    /// Streams that it uses.
    pub streams: usize,
}

/// A step of an engine: what it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tokens of all requests.
    pub tokens: usize,
    /// Requests.
    pub requests: usize,
}

/// `alive` buffers of `sizes` at a time: the oldest is freed before the next is allocated.
pub fn sliding(name: &str, sizes: impl IntoIterator<Item = usize>, alive: usize) -> Sequence {
    let mut maker = Maker::default();
    let mut live = VecDeque::new();
    for size in sizes {
        if live.len() == alive {
            live.pop_front().into_iter().for_each(|block| maker.free(block));
        }
        live.push_back(maker.alloc(size, 0));
    }
    maker.warm = maker.ops.len() / 4;
    maker.finish(name, 1)
}

/// Sizes whose logarithms are spread evenly over a range.
pub fn logarithmic(seed: u64, count: usize, range: (usize, usize)) -> Vec<usize> {
    let mut random = Random(seed);
    (0..count).map(|_| random.size(range)).collect()
}

/// Fills `bytes` with blocks, then replaces random ones; the live bytes stay near `bytes`.
pub fn ageing(
    name: &str,
    seed: u64,
    bytes: usize,
    range: (usize, usize),
    replacements: usize,
    streams: usize,
) -> Sequence {
    let (mut maker, mut random, mut live) = (Maker::default(), Random(seed), Vec::new());
    let fill = |maker: &mut Maker, random: &mut Random, live: &mut Vec<usize>, level: usize| {
        while maker.live < level {
            let size = random.size(range);
            live.push(maker.alloc(size, random.below(streams)));
        }
    };
    fill(&mut maker, &mut random, &mut live, bytes);
    maker.warm = maker.ops.len();
    for _ in 0..replacements {
        let mut must = true;
        while !live.is_empty() && (must || maker.live > bytes) {
            let block = live.swap_remove(random.below(live.len()));
            maker.free(block);
            must = false;
        }
        // Between the two levels sizes decide, so that the live bytes are not the same each time.
        fill(&mut maker, &mut random, &mut live, bytes - range.1 / 2);
    }
    maker.finish(name, streams)
}

/// Blocks that come at even times and live for exponentially distributed ones, `mean` on average.
pub fn lives(
    name: &str,
    seed: u64,
    count: usize,
    mean: f64,
    range: (usize, usize),
    streams: usize,
) -> Sequence {
    let (mut maker, mut random) = (Maker::default(), Random(seed));
    let mut ends = BinaryHeap::new();
    for number in 0..count {
        while let Some(&Reverse((end, block))) = ends.peek() {
            if end > number as u64 * 1000 {
                break;
            }
            maker.free(block);
            ends.pop();
        }
        let size = random.size(range);
        let block = maker.alloc(size, random.below(streams));
        let life = whole(random.exponential(mean * 1000.0));
        ends.push(Reverse((number as u64 * 1000 + 1 + life as u64, block)));
        if number == count / 4 {
            maker.warm = maker.ops.len();
        }
    }
    maker.finish(name, streams)
}

/// A serving engine: weights once; blocks of keys and values that come and go with requests;
/// activations, layer by layer; inputs on a stream of their own, sampling on a third.
pub fn serving(name: &str, seed: u64, steps: &[Step], streams: usize) -> Sequence {
    let (mut maker, mut random) = (Maker::default(), Random(seed));
    for _ in 0..LAYERS {
        for mib in [48, 32, 112, 56] {
            maker.alloc(mib * MIB + 4 * KIB * random.below(3), 0);
        }
        maker.alloc(8 * KIB, 0);
        maker.alloc(8 * KIB, 0);
    }
    maker.alloc(400 * MIB, 0);
    maker.alloc(400 * MIB, 0);
    let mut requests: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut logits = None;
    for (number, step) in steps.iter().enumerate() {
        if number == steps.len() / 4 {
            maker.warm = maker.ops.len();
        }
        let prefill = step.tokens.saturating_sub(step.requests);
        if prefill > 0 {
            let blocks = prefill.div_ceil(16).min(128);
            let end = number + 4 + whole(random.exponential(40.0));
            requests.push((end, (0..blocks).map(|_| maker.alloc(1536 * KIB, 0)).collect()));
        }
        for (_, blocks) in requests.extract_if(.., |request| request.0 <= number) {
            blocks.into_iter().for_each(|block| maker.free(block));
        }
        logits.into_iter().for_each(|block| maker.free(block));
        logits = Some(forward(&mut maker, number, *step, streams));
    }
    maker.finish(name, streams)
}

/// One step of [`serving`]; the logits, which outlive it.
fn forward(maker: &mut Maker, number: usize, step: Step, streams: usize) -> usize {
    let tokens = step.tokens.max(1);
    let (compute, copy, side) = (0, 1 % streams, 2 % streams);
    let inputs: Vec<_> =
        (0..6).map(|input| maker.alloc((tokens * 8 * (1 + input % 2)).max(64), copy)).collect();
    let mut hidden = maker.alloc(tokens * 8192, compute);
    // All layers of every step would only repeat the same pattern.
    for _ in 0..if number.is_multiple_of(8) { LAYERS } else { 3 } {
        let norm = maker.alloc(tokens * 8192, compute);
        let projected = maker.alloc(tokens * 12288, compute);
        maker.free(norm);
        let workspace = maker.alloc((tokens * 1024).max(64 * KIB), compute);
        let attention = maker.alloc(tokens * 8192, compute);
        maker.free(projected);
        maker.free(workspace);
        let exchanged = (streams > 1).then(|| maker.alloc(tokens * 8192, side));
        let output = maker.alloc(tokens * 8192, compute);
        maker.free(attention);
        exchanged.into_iter().for_each(|block| maker.free(block));
        let gate = maker.alloc(tokens * 57344, compute);
        let activated = maker.alloc(tokens * 28672, compute);
        maker.free(gate);
        let next = maker.alloc(tokens * 8192, compute);
        maker.free(activated);
        maker.free(output);
        maker.free(hidden);
        hidden = next;
    }
    let scores = step.requests.max(1) * VOCABULARY * 4;
    let logits = maker.alloc(scores, side);
    let probabilities = maker.alloc(scores, side);
    maker.free(probabilities);
    maker.free(hidden);
    inputs.into_iter().for_each(|block| maker.free(block));
    logits
}

/// Training: the forward pass pushes activations, the backward pass pops them; lengths grow from
/// step to step, or are drawn.
pub fn training(name: &str, seed: u64, steps: usize, grows: bool) -> Sequence {
    let (mut maker, mut random) = (Maker::default(), Random(seed));
    for mib in WEIGHTS.repeat(2 * LAYERS) {
        maker.alloc(mib * MIB, 0);
    }
    for step in 0..steps {
        if step == steps / 4 {
            maker.warm = maker.ops.len();
        }
        let length = if grows { 128 + step * 3968 / steps } else { random.size((128, 4096)) };
        let mut stack = Vec::new();
        for _ in 0..LAYERS {
            stack.extend(
                [2048, 6144, 2048, 8192, 8192, 2048]
                    .map(|width| maker.alloc(length * width * 2, 0)),
            );
            let workspace = maker.alloc(length * 3000, 0);
            maker.free(workspace);
        }
        let logits = maker.alloc(length * 100_000, 0);
        let of_logits = maker.alloc(length * 100_000, 0);
        maker.free(logits);
        let mut gradient = maker.alloc(length * 4096, 0);
        maker.free(of_logits);
        let mut of_weights = Vec::new();
        for _ in 0..LAYERS {
            for width in [4096, 16384, 16384, 4096, 12288, 4096] {
                let next = maker.alloc(length * width, 0);
                maker.free(gradient);
                gradient = next;
                stack.pop().into_iter().for_each(|block| maker.free(block));
            }
            of_weights.extend(WEIGHTS.map(|mib| maker.alloc(mib * MIB, 0)));
        }
        maker.free(gradient);
        of_weights.into_iter().for_each(|block| maker.free(block));
    }
    maker.finish(name, 1)
}

/// Builds a sequence.
#[derive(Debug, Default)]
struct Maker {
    ops: Vec<Op>,
    sizes: Vec<usize>,
    live: usize,
    peak: usize,
    warm: usize,
}

impl Maker {
    fn alloc(&mut self, size: usize, stream: usize) -> usize {
        let size = size.max(1);
        self.ops.push(Op::Alloc { size, stream });
        self.sizes.push(size);
        self.live += size;
        self.peak = self.peak.max(self.live);
        self.sizes.len() - 1
    }

    fn free(&mut self, block: usize) {
        self.live -= self.sizes[block];
        self.ops.push(Op::Free(block));
    }

    fn finish(self, name: &str, streams: usize) -> Sequence {
        let Self { ops, peak, warm, .. } = self;
        Sequence { name: name.to_owned(), ops, warm, peak_live: peak, streams }
    }
}

/// SplitMix64: the same numbers everywhere and in every version of every crate.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap_or(0)
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    fn size(&mut self, (least, most): (usize, usize)) -> usize {
        whole(least as f64 * (most as f64 / least as f64).powf(self.unit()))
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
fn whole(number: f64) -> usize {
    number as usize
}

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
const LAYERS: usize = 24;
const WEIGHTS: [usize; 4] = [12, 4, 16, 16];
const VOCABULARY: usize = 128_256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every block is freed at most once, after its allocation, and the peak is what the
    /// operations say.
    fn check(sequence: &Sequence) {
        let (mut live, mut sum, mut peak) = (Vec::new(), 0, 0);
        for op in &sequence.ops {
            match *op {
                Op::Alloc { size, stream } => {
                    assert!(stream < sequence.streams && size > 0);
                    live.push(size);
                    sum += size;
                }
                Op::Free(block) => sum -= std::mem::take(&mut live[block]),
            }
            peak = peak.max(sum);
        }
        assert_eq!(peak, sequence.peak_live, "{}", sequence.name);
        assert!(sequence.warm > 0 && sequence.warm < sequence.ops.len(), "{}", sequence.name);
    }

    #[test]
    fn sequences_are_well_formed_and_the_same_each_time() {
        let steps: Vec<_> = (0..40)
            .map(|step| Step { tokens: 1 + step * 7 % 90, requests: 1 + step % 9 })
            .collect();
        let all = || {
            [
                sliding("two", logarithmic(1, 100, (1, MIB)), 2),
                ageing("ageing", 2, 16 * MIB, (KIB, MIB), 500, 4),
                lives("lives", 3, 500, 20.0, (KIB, MIB), 2),
                serving("serving", 4, &steps, 3),
                training("training", 5, 8, false),
                training("growing", 5, 8, true),
            ]
        };
        for (one, other) in all().iter().zip(&all()) {
            check(one);
            assert_eq!(one.ops, other.ops);
        }
        assert_ne!(logarithmic(1, 10, (1, MIB)), logarithmic(2, 10, (1, MIB)));
    }
}
