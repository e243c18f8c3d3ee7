//! The inputs of today's engines, and what is in them.

use std::time::Duration;

use wharf::Context;
use wharf::staging::{InputBuffers, Instantiation, Len, Pad, SlotError, Staged, Step};

use super::field::{Field, Typed, Value};
use super::{ReplayError, Settings};
use crate::schedule;

/// Whose inputs are staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Token ids and positions.
    Minimal,
    /// Those of a vLLM-like engine.
    #[default]
    Vllm,
    /// Those of an SGLang-like engine.
    Sglang,
    /// Those of a TensorRT-LLM-like engine.
    TensorrtLlm,
}

impl Preset {
    /// Its name on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Input buffers and what is in them.
pub(super) struct Inputs {
    pub(super) buffers: InputBuffers,
    pub(super) fields: Vec<Box<dyn Field>>,
}

impl Inputs {
    pub(super) fn new(context: &Context, settings: &Settings) -> Result<Self, ReplayError> {
        let builder = InputBuffers::builder(context).name("step");
        let builder = match settings.preset {
            Preset::Minimal => builder.minimal_slots(),
            Preset::Vllm => builder.vllm_slots(BLOCKS),
            Preset::Sglang => builder.sglang_slots(),
            Preset::TensorrtLlm => builder.tensorrt_llm_slots(BLOCKS),
        };
        let buffers = builder
            .buckets(settings.buckets.iter().copied())
            .max_tokens(schedule::TOKENS as usize)
            .max_requests(schedule::REQUESTS)
            .ring_depth(settings.ring_depth)
            .layout(settings.layout)
            // With a forecast, graphs are made ahead of the steps that need them.
            .instantiation(if settings.warm == 0 {
                Instantiation::Eager
            } else {
                Instantiation::Lazy
            })
            .deadline(DEADLINE)
            .budget(&settings.budget)
            .build()?;
        let fields = fields(settings.preset, &buffers)?;
        Ok(Self { buffers, fields })
    }

    /// Writes every input of the step `number`; how many bytes.
    pub(super) fn write(&self, step: &mut Step<'_>, number: u64) -> u64 {
        self.fields.iter().map(|field| field.write(step, number) as u64).sum()
    }

    /// Where the device has each input.
    pub(super) fn places<'a>(
        &'a self,
        staged: &'a Staged<'_>,
    ) -> impl Iterator<Item = (u64, usize)> + 'a {
        self.fields.iter().map(|field| field.place(staged))
    }
}

/// The inputs of a preset, said a second time: what arrives is compared with this.
fn fields(preset: Preset, buffers: &InputBuffers) -> Result<Vec<Box<dyn Field>>, SlotError> {
    let (i32s, i64s) = (Of::<i32>(buffers, Pad::Zero), Of::<i64>(buffers, Pad::Zero));
    let (tokens, requests) = (Len::Tokens, Len::Requests);
    Ok(match preset {
        Preset::Minimal => vec![i64s.field("input_ids", tokens)?, i64s.field("positions", tokens)?],
        Preset::Vllm => vec![
            i32s.field("input_ids", tokens)?,
            i64s.field("positions", tokens)?,
            i64s.padded(Pad::Value(-1)).field("slot_mapping", tokens)?,
            i32s.field("block_table", requests.times(BLOCKS))?,
            i32s.field("seq_lens", requests)?,
            i32s.padded(Pad::RepeatLast).field("query_start_loc", requests.plus(1))?,
            i32s.field("logits_indices", requests)?,
        ],
        Preset::Sglang => vec![
            i64s.field("input_ids", tokens)?,
            i64s.field("positions", tokens)?,
            i64s.field("out_cache_loc", tokens)?,
            i64s.field("req_pool_indices", requests)?,
            i32s.padded(Pad::Value(1)).field("seq_lens", requests)?,
        ],
        Preset::TensorrtLlm => vec![
            i32s.field("input_ids", tokens)?,
            i32s.field("position_ids", tokens)?,
            i32s.padded(Pad::RepeatLast).field("last_token_ids", requests)?,
            i32s.field("kv_cache_block_offsets", requests.times(2 * BLOCKS))?,
            i32s.padded(Pad::Value(1)).field("sequence_length", requests)?,
            i32s.padded(Pad::Value(1)).field("context_lengths", requests)?,
            i32s.field("request_types", requests)?,
        ],
    })
}

/// Makes fields of one type and padding.
#[derive(Clone, Copy)]
struct Of<'a, T>(&'a InputBuffers, Pad<T>);

impl<T: Value> Of<'_, T> {
    fn padded(self, pad: Pad<T>) -> Self {
        Self(self.0, pad)
    }

    fn field(self, name: &str, len: Len) -> Result<Box<dyn Field>, SlotError> {
        Ok(Box::new(Typed::new(self.0, name, len, self.1)?))
    }
}

/// Blocks of the cache that a request's table has room for.
const BLOCKS: usize = 64;
/// After how long a wait for a ring slot looks whether it should stop.
const DEADLINE: Duration = Duration::from_millis(100);
