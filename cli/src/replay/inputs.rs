//! The inputs of an engine with paged attention, named as vLLM names them.

use std::time::Duration;

use wharf::Context;
use wharf::staging::{InputBuffers, Instantiation, Len, Pad, Staged, Step};

use super::field::{Field, Typed};
use super::{ReplayError, Settings};
use crate::schedule;

/// Input buffers and what is in them.
pub(super) struct Inputs {
    pub(super) buffers: InputBuffers,
    pub(super) fields: Vec<Box<dyn Field>>,
}

impl Inputs {
    pub(super) fn new(context: &Context, settings: &Settings) -> Result<Self, ReplayError> {
        let table = Len::Requests.times(BLOCKS);
        let starts = Len::Requests.plus(1);
        let buffers = InputBuffers::builder(context)
            .slot::<i32>("input_ids", Len::Tokens)
            .slot::<i64>("positions", Len::Tokens)
            .slot_padded::<i64>("slot_mapping", Len::Tokens, Pad::Value(-1))
            .slot::<i32>("block_table", table)
            .slot::<i32>("seq_lens", Len::Requests)
            .slot_padded::<i32>("query_start_loc", starts, Pad::RepeatLast)
            .slot_padded::<f32>("temperature", Len::Requests, Pad::Value(1.0))
            .buckets(settings.buckets.iter().copied())
            .max_tokens(schedule::TOKENS as usize)
            .max_requests(schedule::REQUESTS)
            .ring_depth(settings.ring_depth)
            .layout(settings.layout)
            .instantiation(Instantiation::Eager)
            .deadline(DEADLINE)
            .build()?;
        let fields: Vec<Box<dyn Field>> = vec![
            Box::new(Typed::<i32>::new(&buffers, "input_ids", Len::Tokens, Pad::Zero)?),
            Box::new(Typed::<i64>::new(&buffers, "positions", Len::Tokens, Pad::Zero)?),
            Box::new(Typed::<i64>::new(&buffers, "slot_mapping", Len::Tokens, Pad::Value(-1))?),
            Box::new(Typed::<i32>::new(&buffers, "block_table", table, Pad::Zero)?),
            Box::new(Typed::<i32>::new(&buffers, "seq_lens", Len::Requests, Pad::Zero)?),
            Box::new(Typed::<i32>::new(&buffers, "query_start_loc", starts, Pad::RepeatLast)?),
            Box::new(Typed::<f32>::new(&buffers, "temperature", Len::Requests, Pad::Value(1.0))?),
        ];
        Ok(Self { buffers, fields })
    }

    /// Writes every input of the step `number`; how many bytes.
    pub(super) fn write(&self, step: &mut Step<'_>, number: u64) -> u64 {
        self.fields.iter().map(|field| field.write(step, number) as u64).sum()
    }

    /// Where the device has each input.
    pub(super) fn places<'a>(&'a self, staged: &'a Staged<'_>) -> impl Iterator<Item = (u64, usize)> + 'a {
        self.fields.iter().map(|field| field.place(staged))
    }
}

/// Blocks of the cache that a request's table has room for.
const BLOCKS: usize = 64;
/// After how long a wait for a ring slot looks whether it should stop.
const DEADLINE: Duration = Duration::from_millis(100);
