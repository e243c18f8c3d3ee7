#![expect(unsafe_code, reason = "reads device memory by raw address")]
#![expect(clippy::cast_possible_truncation, reason = "noise is cut to an element's width")]
//! A set of slots like an engine's, steps of any size, and every byte that must arrive.

use std::sync::{Arc, Mutex};

use wharf::staging::{Counts, InputBuffers, InputBuffersBuilder, Len, Pad, SlotId, Staged, Step};
use wharf::{Context, CudaError, Driver, Stream};

/// The sizes that engines capture graphs for.
pub(crate) fn buckets() -> Vec<usize> {
    let small = [1, 2, 4].into_iter();
    small.chain((8..=256).step_by(8)).chain((272..=512).step_by(16)).collect()
}

pub(crate) const MAX_TOKENS: usize = 2048;
pub(crate) const MAX_REQUESTS: usize = 256;
/// Blocks of a request's table.
const BLOCKS: usize = 16;

pub(crate) fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

/// Twelve slots, as in today's engines.
pub(crate) fn builder(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .slot::<i32>("input_ids", Len::Tokens)
        .slot::<i64>("positions", Len::Tokens)
        .slot_padded::<i64>("slot_mapping", Len::Tokens, Pad::Value(-1))
        .slot_padded::<i32>("block_tables", Len::Requests.times(BLOCKS), Pad::Value(7))
        .slot_padded::<i32>("seq_lens", Len::Requests, Pad::RepeatLast)
        .slot_padded::<i32>("query_start_loc", Len::Requests.plus(1), Pad::RepeatLast)
        .slot::<u8>("sampling_flags", Len::Requests)
        .slot_padded::<f32>("temperatures", Len::Requests, Pad::Value(1.0))
        .slot_padded::<u16>("adapter_ids", Len::Tokens, Pad::Value(0xffff))
        .slot::<i32>("logits_indices", Len::Requests)
        .slot::<u64>("seeds", Len::Requests)
        .slot::<i32>("num_tokens", Len::Fixed(2))
        .buckets(buckets())
        .max_tokens(MAX_TOKENS)
        .max_requests(MAX_REQUESTS)
}

/// The slots' ids.
pub(crate) struct Ids {
    i32s: [SlotId<i32>; 6],
    i64s: [SlotId<i64>; 2],
    flags: SlotId<u8>,
    temperatures: SlotId<f32>,
    adapters: SlotId<u16>,
    seeds: SlotId<u64>,
}

impl Ids {
    pub(crate) fn of(inputs: &InputBuffers) -> Self {
        let i32s = [
            "input_ids",
            "block_tables",
            "seq_lens",
            "query_start_loc",
            "logits_indices",
            "num_tokens",
        ];
        Self {
            i32s: i32s.map(|name| inputs.slot_id(name).unwrap()),
            i64s: ["positions", "slot_mapping"].map(|name| inputs.slot_id(name).unwrap()),
            flags: inputs.slot_id("sampling_flags").unwrap(),
            temperatures: inputs.slot_id("temperatures").unwrap(),
            adapters: inputs.slot_id("adapter_ids").unwrap(),
            seeds: inputs.slot_id("seeds").unwrap(),
        }
    }

    /// Writes every slot with data that depend on `seed` alone.
    pub(crate) fn fill(&self, step: &mut Step<'_>, seed: u64) {
        let mut noise = Noise(seed);
        for slot in self.i32s {
            step.write(slot).fill_with(|| noise.next() as i32);
        }
        for slot in self.i64s {
            step.write(slot).fill_with(|| noise.next() as i64);
        }
        step.write(self.flags).fill_with(|| noise.next() as u8);
        step.write(self.temperatures).fill_with(|| noise.next() as u32 as f32);
        step.write(self.adapters).fill_with(|| noise.next() as u16);
        step.write(self.seeds).fill_with(|| noise.next());
    }

    /// What must be on the device after `fill`, slot by slot: its address, and all bytes.
    pub(crate) fn expected(&self, staged: &Staged<'_>, seed: u64) -> Vec<(u64, Vec<u8>)> {
        let (mut noise, counts, padded) = (Noise(seed), staged.counts(), staged.padded());
        let mut slots = Vec::new();
        let lens = [
            Len::Tokens,
            Len::Requests.times(BLOCKS),
            Len::Requests,
            Len::Requests.plus(1),
            Len::Requests,
            Len::Fixed(2),
        ];
        let last = |words: &[i32]| words.last().copied().unwrap_or(0);
        for (at, (slot, len)) in self.i32s.into_iter().zip(lens).enumerate() {
            let words = noise.take(len, counts, |noise| noise.next() as i32);
            let pad = [0, 7, last(&words), last(&words), 0, 0][at];
            slots.push((staged.device_ptr(slot), bytes(words, len, padded, pad, i32::to_ne_bytes)));
        }
        for (slot, pad) in self.i64s.into_iter().zip([0, -1]) {
            let words = noise.take(Len::Tokens, counts, |noise| noise.next() as i64);
            slots.push((
                staged.device_ptr(slot),
                bytes(words, Len::Tokens, padded, pad, i64::to_ne_bytes),
            ));
        }
        let flags = noise.take(Len::Requests, counts, |noise| noise.next() as u8);
        slots.push((
            staged.device_ptr(self.flags),
            bytes(flags, Len::Requests, padded, 0, u8::to_ne_bytes),
        ));
        let floats = noise.take(Len::Requests, counts, |noise| noise.next() as u32 as f32);
        let floats = bytes(floats, Len::Requests, padded, 1.0, f32::to_ne_bytes);
        slots.push((staged.device_ptr(self.temperatures), floats));
        let adapters = noise.take(Len::Tokens, counts, |noise| noise.next() as u16);
        let adapters = bytes(adapters, Len::Tokens, padded, 0xffff, u16::to_ne_bytes);
        slots.push((staged.device_ptr(self.adapters), adapters));
        let seeds = noise.take(Len::Requests, counts, Noise::next);
        slots.push((
            staged.device_ptr(self.seeds),
            bytes(seeds, Len::Requests, padded, 0, u64::to_ne_bytes),
        ));
        slots
    }
}

fn bytes<T: Copy, const N: usize>(
    mut words: Vec<T>,
    len: Len,
    padded: Counts,
    pad: T,
    to: fn(T) -> [u8; N],
) -> Vec<u8> {
    words.resize(len.of(padded).unwrap(), pad);
    words.into_iter().flat_map(to).collect()
}

/// A stream of numbers (xorshift64*).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from 0 to `end` - 1.
    #[allow(dead_code, clippy::allow_attributes, reason = "for programs that share this file")]
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn take<T>(
        &mut self,
        len: Len,
        counts: Counts,
        mut next: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..len.of(counts).unwrap()).map(|_| next(self)).collect()
    }
}

/// Looks at device memory in a stream's order, as a kernel would, and says at the end what was
/// wrong.
#[derive(Clone, Default)]
pub(crate) struct Checker {
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Checker {
    /// Compares, behind the stream's work so far, device memory with what must be there.
    pub(crate) fn compare(&self, stream: &Stream, expected: Vec<(u64, Vec<u8>)>, step: usize) {
        let wrong = Arc::clone(&self.wrong);
        let look = move |outcome: Result<(), CudaError>| {
            if let Err(error) = outcome {
                wrong.lock().unwrap().push(format!("step {step}: {error}"));
                return;
            }
            for (slot, (address, wanted)) in expected.into_iter().enumerate() {
                let at: *const u8 =
                    std::ptr::with_exposed_provenance(usize::try_from(address).unwrap());
                // SAFETY: softcuda's device memory is host memory, and the stream is at this place.
                let found = unsafe { std::slice::from_raw_parts(at, wanted.len()) };
                if let Some(byte) =
                    found.iter().zip(&wanted).position(|(found, wanted)| found != wanted)
                {
                    let wanted = wanted.len();
                    wrong
                        .lock()
                        .unwrap()
                        .push(format!("step {step}, slot {slot}: byte {byte} of {wanted}"));
                }
            }
        };
        stream.add_callback(look).unwrap();
    }

    /// What was wrong, once the streams are synchronised.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

/// The first words of device memory, behind a stream's work.
#[allow(dead_code, clippy::allow_attributes, reason = "for programs that share this file")]
pub(crate) fn words<const N: usize>(stream: &Stream, address: u64) -> [u32; N] {
    let mut found = [0; N];
    stream.synchronize().unwrap();
    // SAFETY: the array is valid for the copy, which is over when the stream is synchronised.
    unsafe { stream.copy_dtoh(found.as_mut_ptr().cast(), address, size_of_val(&found)) }.unwrap();
    stream.synchronize().unwrap();
    found
}

/// Copies each slot by a call of its own, as engines do.
#[allow(dead_code, clippy::allow_attributes, reason = "for programs that share this file")]
pub(crate) fn copy_each(stream: &Stream, slots: &[(u64, Vec<u8>)]) {
    for (address, bytes) in slots {
        // SAFETY: pageable memory, which may go when the call returns, and the set's own memory.
        unsafe { stream.copy_htod(*address, bytes.as_ptr().cast(), bytes.len()) }.unwrap();
    }
}
