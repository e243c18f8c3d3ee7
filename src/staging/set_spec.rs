//! What a builder collects of a set, for sets of inputs and of outputs alike.

use core::ffi::CStr;
use std::sync::Arc;
use std::time::Duration;

use super::bucket_size::{BucketSize, check_buckets, limits};
use super::build_error::BuildError;
use super::completion::Completion;
use super::len::{Counts, Len, MAX_COUNTS, Rule};
use super::names::Names;
use super::plan::{Layout, MAX_DYNAMIC, Plan};
use super::region::DeviceRegion;
use super::shape::number_tables;
use super::spec::{CountSpec, Forgotten, Padding, Shape, SlotKind, SlotSpec};
use super::submission::Submission;
use super::transfer::{Options, Transfer};
use super::viewed::Viewed;
use crate::driver::Context;
use crate::element::DType;
use crate::graph::Direction;
use crate::memory::Budget;

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
    /// Counts by name, and the most that a step has of them.
    pub(super) counts: Vec<(String, Len)>,
    pub(super) buckets: Vec<BucketSize>,
    pub(super) max_tokens: Option<usize>,
    pub(super) max_requests: Option<usize>,
    pub(super) layout: Layout,
    pub(super) instantiation: Instantiation,
    pub(super) submission: Submission,
    pub(super) options: Options,
    /// The set whose device memory its slots have, if it is a view.
    pub(super) viewed: Option<Viewed>,
    /// What the device memory counts against.
    pub(super) budget: Option<Budget>,
}

impl SetSpec {
    pub(super) fn new(context: &Context, name: &str) -> Self {
        Self {
            context: context.clone(),
            name: name.to_owned(),
            slots: Vec::new(),
            counts: Vec::new(),
            buckets: Vec::new(),
            max_tokens: None,
            max_requests: None,
            layout: Layout::default(),
            instantiation: Instantiation::default(),
            submission: Submission::default(),
            options: Options {
                depth: DEFAULT_DEPTH,
                deadline: DEFAULT_DEADLINE,
                max_graphs: DEFAULT_MAX_GRAPHS,
                max_graph_bytes: DEFAULT_MAX_GRAPH_BYTES,
                check_captures: false,
                completion: Completion::default(),
                read_events: false,
            },
            viewed: None,
            budget: None,
        }
    }

    pub(super) fn add(&mut self, name: &str, dtype: DType, len: Len, pad: Padding, kind: SlotKind) {
        self.slots.push(SlotSpec {
            name: name.into(),
            dtype,
            declared: len,
            len: Rule::default(),
            most: Rule::default(),
            pad,
            forgotten: None,
            kind,
            device: None,
            shape: Shape::default(),
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
        let Self { context, mut options, .. } = self;
        // The waits below would invalidate captures of other threads.
        let _work = context.work().map_err(BuildError::Driver)?;
        check_buckets(&self.buckets)?;
        let max = limits(&self.buckets, self.max_tokens, self.max_requests)?;
        let counts = counts_of(self.counts)?;
        let mut slots = self.slots;
        slots.iter_mut().try_for_each(|slot| slot.resolve(&counts))?;
        // A view's tables are those of the set that it is of.
        let own = self.viewed.is_none();
        let tables = own.then(|| number_tables(&mut slots)).into_iter().flatten();
        if let Some(viewed) = &self.viewed {
            viewed.check(&slots, self.layout, max)?;
            viewed.check_events(options.read_events)?;
            // Those of the set that is viewed, below.
            options.read_events = false;
        }
        let mut plan = Plan::new(direction, slots, self.layout, &self.buckets, max, forgotten)?;
        if plan.has_zero_copy && options.read_events {
            return Err(BuildError::ReadEventsInPlace);
        }
        plan.has_rare |= !counts.is_empty();
        plan.counts = counts.into();
        let sizes = tables.map(|slot| plan.slots[slot].table_size());
        let budget = self.budget.as_ref().map(|budget| (budget, &*self.name));
        let mut device = DeviceRegion::new(&context, plan.device_size, sizes, budget)?;
        device.share(self.viewed.as_ref().map(|viewed| Arc::clone(&viewed.device)));
        let device = Arc::new(device);
        let names = Arc::new(Names::new(call, &self.name, &plan.buckets));
        let mut transfer = Transfer::new(Arc::new(plan), names, device, &options, &context)?;
        match self.viewed {
            Some(viewed) => viewed.share_with(&mut transfer, self.submission),
            None => transfer.decide(self.submission)?,
        }
        if self.instantiation == Instantiation::Eager {
            transfer.prepare_all()?;
        }
        Ok(transfer)
    }

    fn check(&self) -> Result<(), BuildError> {
        let dynamic = self.slots.iter().filter(|slot| slot.kind == SlotKind::Dynamic).count();
        if self.slots.iter().all(SlotSpec::has_nothing_to_send) {
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

/// Checks the counts by name.
fn counts_of(counts: Vec<(String, Len)>) -> Result<Vec<CountSpec>, BuildError> {
    if counts.len() > MAX_COUNTS {
        return Err(BuildError::TooManyCounts { given: counts.len(), max: MAX_COUNTS });
    }
    let mut specs: Vec<CountSpec> = Vec::new();
    for (name, most) in counts {
        if specs.iter().any(|other| *other.name == *name) {
            return Err(BuildError::DuplicateCount(name.into()));
        }
        let most = most.rule().ok_or_else(|| BuildError::CountOfCount(name.as_str().into()))?;
        specs.push(CountSpec { name: name.into(), most });
    }
    Ok(specs)
}

impl SlotSpec {
    /// Finds the rule of its length.
    fn resolve(&mut self, counts: &[CountSpec]) -> Result<(), BuildError> {
        (self.len, self.most) = match self.declared {
            Len::Count { name, times, plus } => {
                let Some(count) = counts.iter().position(|count| *count.name == *name) else {
                    return Err(BuildError::UnknownCount(name.into()));
                };
                (Rule::named(count, times, plus), counts[count].most.each(times, plus))
            }
            len => {
                let here = if self.kind == SlotKind::Persistent { self.shape.area() } else { len };
                let rule = here.rule().unwrap_or_default();
                (rule, rule)
            }
        };
        Ok(())
    }
}

/// A bit of a word for each slot.
const MAX_SLOTS: usize = 64;
pub(super) const MAX_DEPTH: usize = 64;

const DEFAULT_DEPTH: usize = 3;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_MAX_GRAPHS: usize = 1024;
const DEFAULT_MAX_GRAPH_BYTES: usize = 64 << 20;
