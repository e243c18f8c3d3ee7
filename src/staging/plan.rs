//! Where each slot lies, for each bucket.
//!
//! ```text
//!   PerSlot   ids        | positions  | lengths |     one place for all buckets, as long as the
//!             ######     | ######     | ##      |     largest step needs; one copy a slot
//!
//!   Packed    ids  |positions|lengths|                 end to end, by bucket; one copy in all
//!             #####|#########|#######|
//! ```
//!
//! Offsets are the same in a ring slot of host memory and in device memory.

use super::error::{BuildError, Count};
use super::len::{Counts, Rule};
use super::spec::{Forgotten, Place, SlotSpec};
use crate::pool::DType;

/// How slots lie in memory, and how many copies bring them to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Each slot has one address in all buckets and a copy of its own, all in one graph.
    #[default]
    PerSlot,
    /// Slots lie end to end and are one copy. A slot's address depends on the bucket, and in steps
    /// above the largest bucket on the step.
    Packed,
}

/// All that is decided when buffers are made.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) slots: Box<[SlotSpec]>,
    pub(super) layout: Layout,
    /// Ascending.
    pub(super) buckets: Box<[Bucket]>,
    pub(super) max: Counts,
    /// What a slot that was not written comes to, for each; those that must be written are in
    /// `required`.
    pub(super) forgotten: Box<[Forgotten]>,
    /// A bit for each slot that a step must write.
    pub(super) required: u64,
    /// A bit for each slot that has memory here.
    pub(super) staged: u64,
    /// A bit for each slot.
    pub(super) all: u64,
    pub(super) has_zero_copy: bool,
    /// Bytes of a ring slot, and of the device memory.
    pub(super) size: usize,
}

/// The largest steps that share a graph, and where their slots lie.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Which one it is, in ascending order.
    pub(super) index: usize,
    pub(super) counts: Counts,
    pub(super) fields: Box<[Field]>,
    /// Bytes from the first slot's start to the end of the last one that is copied.
    pub(super) size: usize,
}

/// Where a slot lies, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: usize,
    pub(super) size: usize,
}

/// What there is to know of a slot when it is written, in a cache line: every step looks at all slots.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Field {
    pub(super) span: Span,
    pub(super) len: Rule,
    /// `None` if it has no memory here.
    pub(super) dtype: Option<DType>,
    pub(super) is_copied: bool,
}

impl Plan {
    pub(super) fn new(
        slots: Vec<SlotSpec>,
        layout: Layout,
        sizes: &[usize],
        max: Counts,
        forgotten: Forgotten,
    ) -> Result<Self, BuildError> {
        let forgotten: Box<[_]> = slots.iter().map(|slot| slot.forgotten.unwrap_or(forgotten)).collect();
        if layout == Layout::Packed
            && let Some(at) = forgotten.iter().position(|policy| *policy == Forgotten::Keep)
        {
            return Err(BuildError::KeepNeedsPerSlot(slots[at].name.clone()));
        }
        let bits = |is: &dyn Fn(usize) -> bool| {
            (0..slots.len()).filter(|slot| is(*slot)).fold(0, |bits, slot| bits | 1 << slot)
        };
        let required = bits(&|slot| forgotten[slot] == Forgotten::Error);
        let staged = bits(&|slot| slots[slot].place != Place::Dynamic);
        let all = bits(&|_| true);
        let has_zero_copy = slots.iter().any(|slot| slot.place == Place::ZeroCopy);
        let mut plan = Self {
            slots: slots.into(),
            layout,
            buckets: Box::new([]),
            max,
            forgotten,
            required,
            staged,
            all,
            has_zero_copy,
            size: 0,
        };
        let mut fields = plan.fields();
        plan.size = plan.spread(max, &mut fields).ok_or(BuildError::TooLarge)?.end;
        let bucket = |(index, tokens): (usize, &usize)| {
            let counts = Counts { tokens: *tokens, requests: max.requests.min(*tokens) };
            let mut own = fields.clone();
            let size = match layout {
                Layout::PerSlot => plan.shorten(counts, &mut own)?,
                Layout::Packed => plan.spread(counts, &mut own)?.copied,
            };
            Some(Bucket { index, counts, fields: own, size })
        };
        let buckets: Option<Box<[_]>> = sizes.iter().enumerate().map(bucket).collect();
        plan.buckets = buckets.ok_or(BuildError::TooLarge)?;
        Ok(plan)
    }

    /// The smallest bucket that holds a step.
    #[inline]
    pub(super) fn bucket_of(&self, counts: Counts) -> Option<&Bucket> {
        let tokens = counts.tokens.max(counts.requests);
        self.buckets.get(self.buckets.partition_point(|bucket| bucket.counts.tokens < tokens))
    }

    /// A table that does not say yet where slots lie.
    pub(super) fn fields(&self) -> Box<[Field]> {
        let field = |slot: &SlotSpec| Field {
            span: Span::default(),
            len: slot.len,
            dtype: (slot.place != Place::Dynamic).then_some(slot.dtype),
            is_copied: slot.place == Place::Copied,
        };
        self.slots.iter().map(field).collect()
    }

    /// Places the slots of a step of its own size; the bytes from the first start to the last end.
    pub(super) fn exact(&self, counts: Counts, fields: &mut [Field]) -> Option<usize> {
        match self.layout {
            Layout::Packed => Some(self.spread(counts, fields)?.copied),
            Layout::PerSlot => {
                self.spread(self.max, fields)?;
                self.shorten(counts, fields)
            }
        }
    }

    /// Where a slot lies in a step of its own size; found anew each time, for who has no table.
    pub(super) fn exact_span(&self, counts: Counts, slot: usize) -> Span {
        let mut fields = self.fields();
        let _extent = self.exact(counts, &mut fields);
        fields[slot].span
    }

    /// The number of a dynamic slot among these.
    pub(super) fn dynamic_index(&self, slot: usize) -> usize {
        (!self.staged & ((1 << slot) - 1)).count_ones() as usize
    }

    /// Lays the slots end to end, those that are copied first.
    fn spread(&self, counts: Counts, fields: &mut [Field]) -> Option<Extent> {
        let mut end = 0_usize;
        let mut copied = 0;
        for place in [Place::Copied, Place::ZeroCopy] {
            for (slot, field) in self.slots.iter().zip(fields.iter_mut()) {
                if slot.place == place {
                    let size = slot.len.checked(counts)?.checked_mul(slot.dtype.size())?;
                    field.span = Span { offset: end, size };
                    end = end.checked_add(size)?.checked_next_multiple_of(ALIGN)?;
                }
            }
            if place == Place::Copied {
                copied = end;
            }
        }
        (end <= isize::MAX.unsigned_abs()).then_some(Extent { copied, end })
    }

    /// Leaves the slots where they are, for a shorter step.
    fn shorten(&self, counts: Counts, fields: &mut [Field]) -> Option<usize> {
        let mut end = 0;
        for (slot, Field { span, .. }) in self.slots.iter().zip(fields.iter_mut()) {
            if slot.place != Place::Dynamic {
                span.size = slot.len.checked(counts)?.checked_mul(slot.dtype.size())?;
                end = end.max(span.offset + span.size);
            }
        }
        Some(end)
    }
}

/// How far slots reach that are laid end to end, in bytes.
struct Extent {
    copied: usize,
    end: usize,
}

/// Checks the sizes of buckets and sorts them.
pub(super) fn ladder(mut sizes: Vec<usize>) -> Result<Vec<usize>, BuildError> {
    sizes.sort_unstable();
    if sizes.first() == Some(&0) {
        return Err(BuildError::Bucket(0));
    }
    match sizes.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(BuildError::Bucket(pair[0])),
        None => Ok(sizes),
    }
}

/// The limits of steps, from the buckets and what was asked for.
pub(super) fn limits(
    largest: usize,
    tokens: Option<usize>,
    requests: Option<usize>,
) -> Result<Counts, BuildError> {
    let tokens = tokens.unwrap_or(largest);
    let requests = requests.unwrap_or(if largest > 0 { largest } else { tokens });
    if tokens < largest.max(1) {
        return Err(BuildError::Limit { what: Count::Tokens, limit: tokens, needed: largest.max(1) });
    }
    if requests == 0 {
        return Err(BuildError::Limit { what: Count::Requests, limit: 0, needed: 1 });
    }
    Ok(Counts { tokens, requests })
}

/// What kernels get from the driver's own allocations.
pub(super) const ALIGN: usize = 256;
