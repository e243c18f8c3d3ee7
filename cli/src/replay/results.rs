//! The results of a server's steps: written on the device, fetched, read while later steps run.
#![expect(unsafe_code, reason = "fills device memory in place of a model")]

use std::time::Duration;

use wharf::staging::{Len, OutputBuffers, Pending, SlotId};
use wharf::{Context, Stream};

use super::{ReplayError, Settings};
use crate::schedule::REQUESTS;

/// The results of one step: for each request a token, its likeliest alternatives, and how likely
/// they are.
pub(super) struct ServerResults {
    outputs: OutputBuffers,
    slots: [SlotId<u32>; 3],
}

/// The results of a step on their way to the host.
pub(super) struct Fetched(Pending);

impl ServerResults {
    /// A set with as many ring slots as there are steps in flight.
    pub(super) fn new(context: &Context, settings: &Settings) -> Result<Self, ReplayError> {
        let each = Len::Requests;
        let outputs = OutputBuffers::builder(context)
            .name("results")
            .slot::<u32>("sampled", each)
            .slot::<u32>("alternatives", each.times(ALTERNATIVES))
            .slot::<u32>("logprobs", each.times(ALTERNATIVES))
            .buckets(sizes())
            .layout(settings.layout)
            .ring_depth(settings.ring_depth)
            .budget(&settings.budget)
            .build()?;
        let [sampled, alternatives, logprobs] =
            ["sampled", "alternatives", "logprobs"].map(|name| outputs.slot_id(name));
        Ok(Self { slots: [sampled?, alternatives?, logprobs?], outputs })
    }

    /// Has the device write the results of step `number`, as a model would, and fetches them.
    pub(super) fn fetch(
        &self,
        number: u64,
        requests: usize,
        stream: &Stream,
    ) -> Result<Fetched, ReplayError> {
        let buffers = self.outputs.static_buffers();
        for (index, slot) in self.slots.into_iter().enumerate() {
            let place = buffers.device_ptr(slot, requests).zip(buffers.len(slot, requests));
            let Some((address, len)) = place else { continue };
            // SAFETY: the slot has as many elements at its address as long as the set lives, which
            // outlives the work of its stream; fetches of it are on the same stream.
            unsafe { stream.fill_d32(address, value(number, index), len) }?;
        }
        Ok(Fetched(self.outputs.fetch(requests, requests, stream)?))
    }

    /// Reads the results of step `number`, whose work is done; how many bytes are not as the device
    /// wrote them.
    pub(super) fn mismatches(&self, fetched: &Fetched, number: u64) -> Result<u64, ReplayError> {
        let mut wrong = 0;
        for (index, slot) in self.slots.into_iter().enumerate() {
            let value = value(number, index);
            let results = fetched.0.wait(LIMIT)?;
            let found = results.read(slot)?;
            wrong += found.iter().filter(|found| **found != value).count() as u64;
        }
        Ok(wrong * size_of::<u32>() as u64)
    }
}

/// The numbers of requests for which there is a graph.
fn sizes() -> impl Iterator<Item = usize> {
    (3..).map(|power| 1 << power).take_while(|size| *size <= REQUESTS)
}

/// What the device writes in a slot of a step.
fn value(number: u64, slot: usize) -> u32 {
    let mixed = (number * SLOTS + slot as u64 + 1).wrapping_mul(ODD);
    u32::try_from(mixed >> 32).unwrap_or(0)
}

/// The longest wait for results behind which the stream has come already.
const LIMIT: Duration = Duration::from_secs(10);
const ALTERNATIVES: usize = 20;
const SLOTS: u64 = 3;
/// Spreads neighbouring numbers over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Choice, Software, Target};

    #[test]
    fn results_of_another_step_are_found() {
        let target = Target::new(Choice::Softcuda, Software::default()).unwrap();
        let context = Context::retain(&target.driver.device(0).unwrap()).unwrap();
        let stream = Stream::new(&context).unwrap();
        let results = ServerResults::new(&context, &Settings::default()).unwrap();
        let fetched = results.fetch(7, 5, &stream).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(results.mismatches(&fetched, 7).unwrap(), 0);
        assert_eq!(results.mismatches(&fetched, 8).unwrap(), 5 * 41 * 4);
    }
}
