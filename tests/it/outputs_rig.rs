#![expect(unsafe_code, reason = "writes device memory by raw address")]
#![expect(clippy::cast_possible_truncation, reason = "noise is cut to an element's width")]
//! A set of results like an engine's, what a model writes to them, and every byte that must arrive.

use wharf::element::Element;
use wharf::staging::{
    Counts, Len, OutputBuffers, OutputBuffersBuilder, Pending, Results, SlotId, StaticBuffers,
};
use wharf::{Context, Stream};

use crate::deadline::LONG;
use crate::staging_rig::{MAX_REQUESTS, MAX_TOKENS, Noise, buckets};

/// Sampled and speculative tokens, log probabilities, flags, hidden states, statistics.
pub(crate) fn outputs(context: &Context) -> OutputBuffersBuilder {
    OutputBuffers::builder(context)
        .slot::<i32>("sampled", Len::Requests.times(SPECULATIVE))
        .slot::<f32>("logprobs", Len::Requests.times(5))
        .slot::<u8>("is_last", Len::Requests)
        .slot::<u16>("hidden", Len::Tokens)
        .slot::<i64>("statistics", Len::Fixed(3))
        .buckets(buckets())
        .max_tokens(MAX_TOKENS)
        .max_requests(MAX_REQUESTS)
}

/// Tokens of a request in one step.
const SPECULATIVE: usize = 4;

/// The slots' ids, and where the model writes them.
pub(crate) struct OutputIds {
    sampled: SlotId<i32>,
    logprobs: SlotId<f32>,
    is_last: SlotId<u8>,
    hidden: SlotId<u16>,
    statistics: SlotId<i64>,
    buffers: StaticBuffers,
}

impl OutputIds {
    pub(crate) fn of(outputs: &OutputBuffers) -> Self {
        Self {
            sampled: outputs.slot_id("sampled").unwrap(),
            logprobs: outputs.slot_id("logprobs").unwrap(),
            is_last: outputs.slot_id("is_last").unwrap(),
            hidden: outputs.slot_id("hidden").unwrap(),
            statistics: outputs.slot_id("statistics").unwrap(),
            buffers: outputs.static_buffers(),
        }
    }

    /// Writes the results of a step to device memory, in a stream's order, as a model does: data
    /// that depend on `seed` alone.
    pub(crate) fn compute(&self, stream: &Stream, counts: Counts, seed: u64) {
        let results = Expected::of(counts, seed);
        self.put(stream, counts, self.sampled, &results.sampled);
        self.put(stream, counts, self.logprobs, &results.logprobs);
        self.put(stream, counts, self.is_last, &results.is_last);
        self.put(stream, counts, self.hidden, &results.hidden);
        self.put(stream, counts, self.statistics, &results.statistics);
    }

    fn put<T: Element>(&self, stream: &Stream, counts: Counts, slot: SlotId<T>, from: &[T]) {
        // Above the largest bucket slots lie where those of `Layout::PerSlot` always do.
        let tokens = counts.tokens.max(counts.requests).min(512);
        let address = self.buffers.device_ptr(slot, tokens).unwrap();
        // SAFETY: pageable memory, which may go when the call returns, and the slot's own memory,
        // which holds the largest step.
        unsafe { stream.copy_htod(address, from.as_ptr().cast(), size_of_val(from)) }.unwrap();
    }

    /// What is wrong with the results of a step, if anything is.
    pub(crate) fn wrong(&self, results: Results<'_>, seed: u64) -> Option<&'static str> {
        let expected = Expected::of(results.counts(), seed);
        let same = [
            ("sampled", results.read(self.sampled).unwrap() == expected.sampled),
            ("logprobs", results.read(self.logprobs).unwrap() == expected.logprobs),
            ("is_last", results.read(self.is_last).unwrap() == expected.is_last),
            ("hidden", results.read(self.hidden).unwrap() == expected.hidden),
            ("statistics", results.read(self.statistics).unwrap() == expected.statistics),
        ];
        same.into_iter().find(|slot| !slot.1).map(|slot| slot.0)
    }

    /// Waits for the results of a step, which are there and right.
    pub(crate) fn check(&self, pending: &Pending, seed: u64) {
        let results = pending.wait(LONG).unwrap();
        assert_eq!(self.wrong(results, seed), None, "step {seed}: {pending:?}");
    }
}

/// The results of one step.
struct Expected {
    sampled: Vec<i32>,
    logprobs: Vec<f32>,
    is_last: Vec<u8>,
    hidden: Vec<u16>,
    statistics: Vec<i64>,
}

impl Expected {
    fn of(counts: Counts, seed: u64) -> Self {
        let Counts { tokens, requests } = counts;
        let mut noise = Noise(seed);
        let mut take = |len| (0..len).map(|_| noise.next()).collect::<Vec<_>>();
        Self {
            sampled: take(requests * SPECULATIVE).into_iter().map(|word| word as i32).collect(),
            logprobs: take(requests * 5).into_iter().map(|word| word as u32 as f32).collect(),
            is_last: take(requests).into_iter().map(|word| word as u8).collect(),
            hidden: take(tokens).into_iter().map(|word| word as u16).collect(),
            statistics: take(3).into_iter().map(|word| word as i64).collect(),
        }
    }
}
