//! What a builder collects of a set, for sets of inputs and of outputs alike.

use core::ffi::CStr;
use std::sync::Arc;
use std::time::Duration;

use super::build_error::BuildError;
use super::len::{Counts, Len};
use super::names::Names;
use super::plan::{BucketSize, Layout, MAX_DYNAMIC, Plan, check_buckets, limits};
use super::region::DeviceRegion;
use super::spec::{Forgotten, Padding, SlotKind, SlotSpec};
use super::transfer::{Options, Transfer};
use crate::driver::Context;
use crate::element::DType;
use crate::graph::Direction;

/// When the graphs of ring slots and buckets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Instantiation {
    /// When a step first needs them.
    #[default]
    Lazy,
    /// When the set is built, and sent to the device: those of the smallest buckets, as many as
    /// [`max_graphs`](super::InputBuffersBuilder::max_graphs) and
    /// [`max_graph_bytes`](super::InputBuffersBuilder::max_graph_bytes) allow. The others when a
    /// step first needs them.
    Eager,
}

/// A set to be made.
#[derive(Clone, Debug)]
pub(super) struct SetSpec {
    pub(super) context: Context,
    pub(super) name: String,
    pub(super) slots: Vec<SlotSpec>,
    pub(super) buckets: Vec<BucketSize>,
    pub(super) max_tokens: Option<usize>,
    pub(super) max_requests: Option<usize>,
    pub(super) layout: Layout,
    pub(super) instantiation: Instantiation,
    pub(super) options: Options,
}

impl SetSpec {
    pub(super) fn new(context: &Context, name: &str) -> Self {
        Self {
            context: context.clone(),
            name: name.to_owned(),
            slots: Vec::new(),
            buckets: Vec::new(),
            max_tokens: None,
            max_requests: None,
            layout: Layout::default(),
            instantiation: Instantiation::default(),
            options: Options {
                depth: DEFAULT_DEPTH,
                deadline: DEFAULT_DEADLINE,
                max_graphs: DEFAULT_MAX_GRAPHS,
                max_graph_bytes: DEFAULT_MAX_GRAPH_BYTES,
                check_captures: false,
            },
        }
    }

    pub(super) fn add(&mut self, name: &str, dtype: DType, len: Len, pad: Padding, kind: SlotKind) {
        self.slots.push(SlotSpec {
            name: name.into(),
            dtype,
            len: len.rule(),
            pad,
            forgotten: None,
            kind,
            device: None,
        });
    }

    /// Buckets of so many tokens, and as many requests.
    pub(super) fn set_buckets(&mut self, tokens: impl IntoIterator<Item = usize>) {
        let size = |tokens| BucketSize { tokens, requests: None };
        self.buckets = tokens.into_iter().map(size).collect();
    }

    /// Buckets of these tokens and requests.
    pub(super) fn set_buckets_of(&mut self, counts: impl IntoIterator<Item = Counts>) {
        let size =
            |counts: Counts| BucketSize { tokens: counts.tokens, requests: Some(counts.requests) };
        self.buckets = counts.into_iter().map(size).collect();
    }

    /// Makes the ring, its memory and, if they are to be made now, its graphs. `call` is the
    /// function that a profiler sees for a step.
    pub(super) fn build(
        self,
        direction: Direction,
        forgotten: Forgotten,
        call: &'static CStr,
    ) -> Result<Transfer, BuildError> {
        self.check()?;
        let Self { context, options, .. } = self;
        // The waits below would invalidate captures of other threads.
        let _relaxed = context.driver().relax_capture().map_err(BuildError::Driver)?;
        check_buckets(&self.buckets)?;
        let max = limits(&self.buckets, self.max_tokens, self.max_requests)?;
        let plan = Plan::new(direction, self.slots, self.layout, &self.buckets, max, forgotten)?;
        let device = Arc::new(DeviceRegion::new(&context, plan.device_size)?);
        let names = Arc::new(Names::new(call, &self.name, &plan.buckets));
        let transfer = Transfer::new(Arc::new(plan), names, device, &options, &context)?;
        if self.instantiation == Instantiation::Eager {
            transfer.prepare_all()?;
        }
        Ok(transfer)
    }

    fn check(&self) -> Result<(), BuildError> {
        let dynamic = self.slots.iter().filter(|slot| slot.kind == SlotKind::Dynamic).count();
        if dynamic == self.slots.len() {
            return Err(BuildError::NoSlots);
        }
        // Bits of a word stand for slots, and each step carries the addresses of dynamic ones.
        if self.slots.len() > MAX_SLOTS || dynamic > MAX_DYNAMIC {
            return Err(BuildError::TooManySlots {
                given: self.slots.len(),
                max: MAX_SLOTS,
                max_dynamic: MAX_DYNAMIC,
            });
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if self.slots[..index].iter().any(|other| other.name == slot.name) {
                return Err(BuildError::DuplicateSlot(slot.name.clone()));
            }
        }
        if !(1..=MAX_DEPTH).contains(&self.options.depth) {
            return Err(BuildError::RingDepth(self.options.depth));
        }
        Ok(())
    }
}

/// A bit of a word for each slot.
const MAX_SLOTS: usize = 64;
const MAX_DEPTH: usize = 64;

const DEFAULT_DEPTH: usize = 3;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_MAX_GRAPHS: usize = 1024;
const DEFAULT_MAX_GRAPH_BYTES: usize = 64 << 20;
