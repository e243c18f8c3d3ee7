//! The state of a ring slot, which belongs to the holder of its claim.

use super::cache::Cache;
use super::launches::Launch;
use super::len::{AllCounts, BY_NAME, Counts};
use super::node::redirect;
use super::patches::Patches;
use super::plan::{Bucket, Field, MAX_DYNAMIC, Plan};
use super::reference::Reference;
use super::region::{Run, SlotMemory};
use super::ring::{Claim, Hold};
use crate::error::Error;
use crate::graph::{Copy1d, GraphError, GraphExec, MemcpyNode};
use crate::stream::{Stream, StreamId};
use crate::timeline::Tail;

/// Exclusive use of a ring slot of a set.
pub(super) type SlotClaim<'a> = Claim<'a, SlotState, Launch>;
/// A ring slot that the host reads.
pub(super) type SlotHold<'a> = Hold<'a, SlotState, Launch>;

/// A ring slot's memory, its graphs, and what its step has.
#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) graphs: Cache<StagingGraph>,
    /// Where slots lie in a step that has no bucket.
    pub(super) fields: Box<[Field]>,
    pub(super) memory: SlotMemory,
    /// The elements that the step has of each slot, where they are one run.
    pub(super) runs: Box<[Run]>,
    /// The counts of the step; those by name that it has not set are 0.
    pub(super) counts: AllCounts,
    /// The place of the step's bucket, or [`NO_BUCKET`].
    pub(super) bucket: usize,
    /// Whether the step is like the one before as far as is known: of the same counts and bucket,
    /// with all tails padding already, and with nothing in `extras`.
    pub(super) is_steady: bool,
    /// Which elements are padding since the last step; `None` if that is not known.
    pub(super) tails: Option<Tails>,
    /// Whether there is anything in `extras`.
    pub(super) has_extras: bool,
    pub(super) extras: Extras,
    /// The stream of the last fetch, where no event ends its copies.
    pub(super) tail: Option<(StreamId, Tail)>,
}

/// The tails that a step has left in a ring slot: behind as many elements as a step of `counts`
/// has, each slot is padding, up to the end that it has in the bucket. Slots whose tail each step
/// fills anew are not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tails {
    pub(super) counts: Counts,
    /// The bucket's place, or [`NO_BUCKET`].
    pub(super) bucket: usize,
}

/// The place of the bucket of a step that has none.
pub(super) const NO_BUCKET: usize = usize::MAX;

#[inline]
fn place_of(bucket: Option<&Bucket>) -> usize {
    bucket.map_or(NO_BUCKET, |bucket| bucket.index)
}

/// State that few steps need.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Slots that are copied from or to other memory. Owners of memory that nothing else protects
    /// are kept until the ring slot is used again.
    pub(super) references: Vec<Reference>,
    /// A bit for each slot that is read elsewhere, unless the step has written it since; and for
    /// each table that is patched.
    pub(super) referred: u64,
    /// The addresses that the step passes through.
    pub(super) dynamic: Addresses,
    /// A bit for each count by name that the step has set.
    pub(super) counts_set: u64,
    /// The first slot that the step could not write and wrote all the same; its set.
    pub(super) refused: Option<(usize, usize)>,
    /// What the step changes of each persistent table. The lists keep their memory.
    pub(super) patches: Vec<Patches>,
}

/// The addresses of dynamic slots, in their order.
pub(super) type Addresses = [u64; MAX_DYNAMIC];

impl SlotState {
    /// The step's extras, to be added to.
    #[cold]
    pub(super) fn extras(&mut self) -> &mut Extras {
        self.has_extras = true;
        self.is_steady = false;
        &mut self.extras
    }

    /// The bytes that a step copies, padding included.
    #[inline]
    pub(super) fn size(&self, bucket: Option<&Bucket>) -> usize {
        let is_here = |field: &&Field| field.is_copied || field.dtype.is_some();
        let exact = || self.fields.iter().filter(is_here).map(|field| field.span.size).sum();
        bucket.map_or_else(exact, |bucket| bucket.size)
    }

    /// Adds a reference; the last one for a slot counts.
    pub(super) fn refer(&mut self, reference: Reference) {
        let references = &mut self.extras().references;
        references.retain(|other| other.slot != reference.slot);
        references.push(reference);
    }

    /// Orders `stream` behind what has to come before its copies of the slots of `referred`.
    #[cold]
    pub(super) fn order_behind(&mut self, referred: u64, stream: &Stream) -> Result<(), Error> {
        let references = &mut self.extras().references;
        // Slots that were written later are read in the ring slot.
        references.retain(|reference| referred & 1 << reference.slot != 0);
        references.iter().try_for_each(|reference| reference.source.order(stream))
    }

    /// Lets the owners of referred memory know that `stream` uses it. What nothing else protects
    /// stays.
    #[cold]
    pub(super) fn note_uses(&mut self, stream: &Stream) {
        self.extras().references.retain(|reference| !reference.source.note(stream));
    }

    /// Keeps the end of the stream of a fetch, for what has to come after it.
    pub(super) fn note_tail(&mut self, stream: &Stream) {
        if self.tail.as_ref().is_none_or(|(noted, _)| *noted != stream.id()) {
            self.tail = Some((stream.id(), stream.tail()));
        }
    }

    /// Begins a step. Where the last one was of the same counts and bucket, there is nothing to
    /// write down.
    #[inline]
    pub(super) fn begin(&mut self, plan: &Plan, counts: Counts, bucket: Option<&Bucket>) {
        let [tokens, requests, ..] = self.counts;
        let is_alike = self.is_steady && self.bucket == place_of(bucket);
        if !(is_alike && tokens == counts.tokens && requests == counts.requests) {
            self.begin_other(plan, counts, bucket);
            self.lay_out(bucket);
        }
    }

    /// Begins a step that is not known to be like the last one.
    pub(super) fn begin_other(&mut self, plan: &Plan, counts: Counts, bucket: Option<&Bucket>) {
        self.forget();
        [self.counts[0], self.counts[1]] = [counts.tokens, counts.requests];
        (self.bucket, self.is_steady) = (place_of(bucket), false);
        if bucket.is_none() {
            // It fits: the memory was made for steps of at least these counts.
            let _extent = plan.exact(counts, &mut self.fields);
        }
    }

    /// Finds all runs of elements anew, of a step of which a count was set.
    pub(super) fn lay_out(&mut self, bucket: Option<&Bucket>) {
        let fields = bucket.map_or(&self.fields, |bucket| &bucket.fields);
        for (run, field) in self.runs.iter_mut().zip(fields) {
            *run = self.memory.run(field.span, field.len.of(&self.counts));
        }
    }

    /// Takes note of tails that were filled, but for slots that are left out: these keep what
    /// earlier steps wrote behind their elements.
    pub(super) fn note_tails(&mut self, counts: Counts, is_all: bool, is_steady: bool) {
        self.tails = is_all.then_some(Tails { counts, bucket: self.bucket });
        self.is_steady = is_all && is_steady && !self.has_extras;
    }

    /// Drops what the last step left in the slot.
    #[inline]
    fn forget(&mut self) {
        if self.has_extras {
            self.forget_extras();
        }
    }

    #[cold]
    fn forget_extras(&mut self) {
        self.has_extras = false;
        self.counts[BY_NAME..].fill(0);
        let mut patches = std::mem::take(&mut self.extras.patches);
        patches.iter_mut().for_each(Patches::clear);
        self.extras = Extras { patches, ..Extras::default() };
    }

    /// As `forget`, for a step that is given up: it may have written anything.
    pub(super) fn give_up(&mut self) {
        self.forget();
        (self.tails, self.is_steady) = (None, false);
    }
}

/// An executable graph, and which node copies which slot.
#[derive(Debug)]
pub(super) struct StagingGraph {
    pub(super) exec: GraphExec,
    pub(super) copies: Copies,
    /// The place of the bucket that it copies.
    pub(super) bucket: usize,
    /// A bit for each slot whose copy is disabled.
    pub(super) skipped: u64,
    /// A bit for each slot whose copy has other memory than the set's.
    pub(super) referred: u64,
}

/// The nodes that copy.
#[derive(Debug)]
pub(super) struct Copies {
    /// The one that copies each slot, if it has one of its own.
    pub(super) slots: Box<[Option<CopyNode>]>,
    /// The one that copies all slots of a packed step.
    pub(super) all: Option<CopyNode>,
}

/// A node, and what it copies; of a slot of several rows, the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopyNode {
    pub(super) node: MemcpyNode,
    pub(super) copy: Copy1d,
}

impl StagingGraph {
    /// Whether it copies all slots of a bucket, and all from and to the set's memory.
    #[inline]
    pub(super) fn is_whole(&self, bucket: usize) -> bool {
        self.bucket ^ bucket == 0 && self.skipped | self.referred == 0
    }

    /// Lets later launches copy another bucket, as its one copy does.
    pub(super) fn resize(&mut self, bucket: &Bucket, copy: Copy1d) -> Result<(), GraphError> {
        if let Some(node) = &mut self.copies.all {
            redirect(&mut self.exec, node.node, copy)?;
            node.copy = copy;
        }
        self.bucket = bucket.index;
        Ok(())
    }

    /// Lets later launches leave out the copies of these slots, and no others.
    pub(super) fn skip(&mut self, slots: u64) -> Result<(), GraphError> {
        let mut changed = self.skipped ^ slots;
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            if let Some(copy) = &self.copies.slots[slot] {
                self.exec.set_enabled(copy.node, slots & 1 << slot == 0)?;
            }
            self.skipped ^= 1 << slot;
        }
        Ok(())
    }

    /// Lets later launches copy the slots of `referred` as their references say, and all others by
    /// the copies that `own` returns. A copy that stays the same costs no driver call.
    pub(super) fn refer(
        &mut self,
        referred: u64,
        references: &[Reference],
        own: impl Fn(usize) -> Copy1d,
    ) -> Result<(), GraphError> {
        let mut left = self.referred | referred;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let is_referred = referred & 1 << slot != 0;
            let mut references = references.iter();
            let reference = references.find(|reference| is_referred && reference.slot == slot);
            let copy = reference.map_or_else(|| own(slot), |reference| reference.copy);
            if let Some(node) = &mut self.copies.slots[slot]
                && node.copy != copy
            {
                redirect(&mut self.exec, node.node, copy)?;
                node.copy = copy;
            }
            self.referred = self.referred & !(1 << slot) | u64::from(is_referred) << slot;
        }
        Ok(())
    }
}
