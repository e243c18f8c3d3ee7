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

use super::bucket_size::BucketSize;
use super::build_error::BuildError;
use super::error::StageError;
use super::len::{Counts, Rule};
use super::number::{self, NOT_FLAT};
use super::shape::place;
use super::slot_error::SlotError;
use super::spec::{CountSpec, Forgotten, Padding, SlotKind, SlotSpec};
use crate::element::DType;
use crate::graph::Direction;

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

/// The layout of a set, decided when it is built.
#[derive(Debug)]
pub(super) struct Plan {
    /// What ids of its slots and counts carry: never the number of another set, and even.
    pub(super) number: usize,
    /// Which way slots are copied.
    pub(super) direction: Direction,
    pub(super) slots: Box<[SlotSpec]>,
    pub(super) layout: Layout,
    /// Counts by name.
    pub(super) counts: Box<[CountSpec]>,
    /// Ascending in the bytes that they stage.
    pub(super) buckets: Box<[Bucket]>,
    /// Whether a bucket's tokens alone say what it holds.
    is_ladder: bool,
    /// The place of the smallest bucket that holds so many tokens, for the first [`PLACES`]; empty
    /// where tokens alone do not say it.
    places: Box<[u16]>,
    pub(super) max: Counts,
    /// The policy of each slot for steps that do not write it; slots that must be written are in
    /// `required`.
    pub(super) forgotten: Box<[Forgotten]>,
    /// A bit for each slot that a step must write.
    pub(super) required: u64,
    /// A bit for each slot whose tail every step fills: with its own last element, behind a count
    /// by name, or in rows; and for each persistent table.
    pub(super) unsteady: u64,
    /// A bit for each slot that a step has memory for.
    pub(super) staged: u64,
    /// A bit for each slot that a step writes, or passes through.
    pub(super) all: u64,
    /// A bit for each slot that is a persistent table.
    pub(super) tables: u64,
    /// A bit for each slot of several rows.
    pub(super) rows: u64,
    /// A bit for each slot that is one run of elements in a ring slot.
    pub(super) flat: u64,
    /// Whether a step has more to see to than what it wrote: counts by name, tables, rows.
    pub(super) has_rare: bool,
    pub(super) has_zero_copy: bool,
    /// Bytes of a ring slot.
    pub(super) size: usize,
    /// Bytes of the set's device memory.
    pub(super) device_size: usize,
}

/// The largest steps that share a graph, and where their slots lie.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Which one it is, in ascending order.
    pub(super) index: usize,
    /// The place of its graph among those of a ring slot.
    pub(super) graph: usize,
    pub(super) counts: Counts,
    pub(super) fields: Box<[Field]>,
    /// Bytes from the first slot's start to the end of the last one that is copied.
    pub(super) size: usize,
}

impl Bucket {
    /// Where all slots lie that are copied, in a packed layout.
    pub(super) fn span(&self) -> ByteRange {
        ByteRange { offset: 0, size: self.size }
    }

    /// Gives it its place. A packed step is one copy: the graph of all buckets is told how long it
    /// is.
    fn number(&mut self, index: usize, layout: Layout) {
        self.index = index;
        self.graph = if layout == Layout::Packed { 0 } else { index };
    }

    /// The bytes of all slots that are staged, padding included.
    fn bytes(&self, slots: &[SlotSpec]) -> usize {
        let fields = self.fields.iter().zip(slots).filter(|(_, slot)| slot.is_staged());
        fields.map(|(field, _)| field.span.size).sum()
    }
}

/// Where a slot lies, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) offset: usize,
    pub(super) size: usize,
}

/// A slot's place and type, in one cache line: every step reads those of all its slots.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Field {
    pub(super) span: ByteRange,
    pub(super) len: Rule,
    /// `None` if a step has no memory for its elements, or has them in rows.
    pub(super) dtype: Option<DType>,
    /// Whether it is copied to the set's own device memory.
    pub(super) is_copied: bool,
    pub(super) pad: Padding,
}

impl Plan {
    pub(super) fn new(
        direction: Direction,
        mut slots: Vec<SlotSpec>,
        layout: Layout,
        sizes: &[BucketSize],
        max: Counts,
        forgotten: Forgotten,
    ) -> Result<Self, BuildError> {
        let forgotten: Box<[_]> =
            slots.iter().map(|slot| slot.forgotten.unwrap_or(forgotten)).collect();
        let mut policies = slots.iter().zip(&forgotten);
        let is_kept = |(slot, policy): &(&SlotSpec, &Forgotten)| {
            slot.is_staged() && **policy == Forgotten::Keep
        };
        if layout == Layout::Packed
            && let Some((slot, _)) = policies.find(is_kept)
        {
            return Err(BuildError::KeepNeedsPerSlot(slot.name.clone()));
        }
        let mut fields = fields_of(&slots);
        let size = spread(&slots, max, &mut fields).ok_or(BuildError::TooLarge)?.end;
        let device_size = place_all(&mut slots, &fields, max).ok_or(BuildError::TooLarge)?;
        let buckets = buckets_of(&slots, layout, sizes, max, &fields);
        let buckets = buckets.ok_or(BuildError::TooLarge)?;
        let bits = |is: &dyn Fn(usize) -> bool| {
            (0..slots.len()).filter(|slot| is(*slot)).fold(0, |bits, slot| bits | 1 << slot)
        };
        let rows = bits(&|slot| slots[slot].has_rows());
        let tables = bits(&|slot| slots[slot].kind == SlotKind::Persistent);
        let is_unsteady =
            |slot: &SlotSpec| slot.pad == Padding::RepeatLast || slot.len.name().is_some();
        let is_ladder = sizes.iter().all(|size| size.requests.is_none());
        let places = if is_ladder { places_of(&buckets, max) } else { Box::default() };
        Ok(Self {
            number: number::next(),
            direction,
            counts: Box::default(),
            layout,
            buckets,
            is_ladder,
            places,
            max,
            required: bits(&|slot| {
                slots[slot].is_of_steps() && forgotten[slot] == Forgotten::Error
            }),
            forgotten,
            unsteady: bits(&|slot| is_unsteady(&slots[slot])) | rows | tables,
            staged: bits(&|slot| slots[slot].is_staged()),
            all: bits(&|slot| slots[slot].is_of_steps()),
            has_rare: tables | rows != 0,
            rows,
            flat: bits(&|slot| slots[slot].is_staged()) & !rows,
            tables,
            has_zero_copy: slots.iter().any(|slot| slot.kind == SlotKind::ZeroCopy),
            size,
            device_size,
            slots: slots.into(),
        })
    }

    /// How many graphs a ring slot may have.
    pub(super) fn graphs(&self) -> usize {
        self.buckets.last().map_or(0, |bucket| bucket.graph + 1)
    }

    /// What an id of a slot carries: the set's number, and that the slot is no run of elements in a
    /// ring slot, if it is none. One comparison says that an id is of the set and can be written.
    pub(super) fn mark(&self, slot: usize) -> usize {
        self.number | if self.flat & 1 << slot == 0 { NOT_FLAT } else { 0 }
    }

    /// The count of that name.
    pub(super) fn find_count(&self, name: &str) -> Result<usize, SlotError> {
        let index = self.counts.iter().position(|count| *count.name == *name);
        index.ok_or_else(|| SlotError::UnknownCount(name.into()))
    }

    /// The slot of that name, which has elements of that type.
    pub(super) fn find(&self, name: &str, given: DType) -> Result<usize, SlotError> {
        let Some(index) = self.slots.iter().position(|slot| *slot.name == *name) else {
            return Err(SlotError::Unknown(name.into()));
        };
        let wanted = self.slots[index].dtype;
        if wanted != given {
            return Err(SlotError::Type { slot: name.into(), wanted, given });
        }
        Ok(index)
    }

    /// The smallest bucket that holds a step.
    #[inline]
    pub(super) fn bucket_of(&self, counts: Counts) -> Option<&Bucket> {
        match self.places.get(counts.tokens.max(counts.requests)) {
            Some(place) => self.buckets.get(usize::from(*place)),
            None => self.bucket_not_listed(counts),
        }
    }

    /// The bucket that stages the fewest bytes of those that hold a step.
    fn bucket_not_listed(&self, counts: Counts) -> Option<&Bucket> {
        if self.is_ladder {
            return self.buckets.get(place_of(&self.buckets, counts.tokens.max(counts.requests)));
        }
        self.buckets.iter().find(|bucket| counts.is_within(bucket.counts))
    }

    /// The bucket that holds a step.
    ///
    /// # Errors
    ///
    /// [`StageError::TooLarge`]: no bucket does.
    pub(super) fn holding(&self, counts: Counts) -> Result<&Bucket, StageError> {
        self.bucket_of(counts).ok_or_else(|| {
            let most = |count: fn(Counts) -> usize| {
                self.buckets.iter().map(|bucket| count(bucket.counts)).max().unwrap_or(0)
            };
            let largest = Counts { tokens: most(|it| it.tokens), requests: most(|it| it.requests) };
            StageError::too_large(counts, largest)
        })
    }

    /// A table that does not say yet where slots lie.
    pub(super) fn fields(&self) -> Box<[Field]> {
        fields_of(&self.slots)
    }

    /// Places the slots of a step of its own size. Returns the bytes from the first slot's start to
    /// the last one's end.
    pub(super) fn exact(&self, counts: Counts, fields: &mut [Field]) -> Option<usize> {
        match self.layout {
            Layout::Packed => Some(spread(&self.slots, counts, fields)?.copied),
            Layout::PerSlot => {
                spread(&self.slots, self.max, fields)?;
                shorten(&self.slots, counts, fields)
            }
        }
    }

    /// Where a slot lies in a step of its own size. Lays all slots out anew, for callers that have
    /// no table of the step.
    pub(super) fn exact_span(&self, counts: Counts, slot: usize) -> ByteRange {
        let mut fields = self.fields();
        let _extent = self.exact(counts, &mut fields);
        fields[slot].span
    }

    /// The number of a dynamic slot among these.
    pub(super) fn dynamic_index(&self, slot: usize) -> usize {
        (self.all & !self.staged & ((1 << slot) - 1)).count_ones() as usize
    }
}

/// The place of the smallest bucket of a ladder that holds so many tokens.
fn place_of(buckets: &[Bucket], tokens: usize) -> usize {
    buckets.partition_point(|bucket| bucket.counts.tokens < tokens)
}

/// The buckets, ascending in the bytes that they stage; `fields` are those of the largest step.
fn buckets_of(
    slots: &[SlotSpec],
    layout: Layout,
    sizes: &[BucketSize],
    max: Counts,
    fields: &[Field],
) -> Option<Box<[Bucket]>> {
    let bucket = |size: &BucketSize| {
        let counts = size.counts(max);
        let mut own: Box<[Field]> = fields.into();
        let size = match layout {
            // Addresses are those of the largest step; only lengths are the bucket's.
            Layout::PerSlot => shorten(slots, counts, &mut own)?,
            Layout::Packed => spread(slots, counts, &mut own)?.copied,
        };
        Some(Bucket { index: 0, graph: 0, counts, fields: own, size })
    };
    let mut buckets: Box<[Bucket]> = sizes.iter().map(bucket).collect::<Option<_>>()?;
    buckets.sort_by_key(|bucket| (bucket.bytes(slots), bucket.counts.tokens));
    buckets.iter_mut().enumerate().for_each(|(index, bucket)| bucket.number(index, layout));
    Some(buckets)
}

/// The places of the smallest buckets of a ladder that hold 0, 1, 2 ... tokens. Empty where there
/// are too many buckets for the entries.
fn places_of(buckets: &[Bucket], max: Counts) -> Box<[u16]> {
    let place = |tokens| u16::try_from(place_of(buckets, tokens)).ok();
    (0..PLACES.min(max.tokens.saturating_add(1)))
        .map(place)
        .collect::<Option<_>>()
        .unwrap_or_default()
}

/// How far slots reach that are laid end to end, in bytes.
struct Extent {
    copied: usize,
    end: usize,
}

/// Places the slots on the device, where `fields` are those of the largest step. Returns the bytes.
fn place_all(slots: &mut [SlotSpec], fields: &[Field], max: Counts) -> Option<usize> {
    let owned = slots.iter().zip(fields).filter(|(slot, _)| slot.has_device_memory());
    let copied = owned.map(|(_, field)| field.span.offset + field.span.size).max();
    // A packed copy ends where the next slot would start.
    let copied = copied.unwrap_or(0).next_multiple_of(ALIGN);
    slots.iter_mut().for_each(|slot| slot.shape.stride = slot.stride(max));
    place(slots, fields.iter().map(|field| field.span.size), copied, ALIGN)
}

/// A table that does not say yet where slots lie.
fn fields_of(slots: &[SlotSpec]) -> Box<[Field]> {
    let field = |slot: &SlotSpec| Field {
        span: ByteRange::default(),
        len: slot.len,
        dtype: (slot.is_staged() && !slot.has_rows()).then_some(slot.dtype),
        is_copied: slot.has_device_memory(),
        pad: slot.pad,
    };
    slots.iter().map(field).collect()
}

/// Lays the slots end to end, those that are copied first.
fn spread(slots: &[SlotSpec], counts: Counts, fields: &mut [Field]) -> Option<Extent> {
    let mut end = 0_usize;
    let mut copied = 0;
    // A packed step is one copy, from the start to the end of what is copied.
    for kind in [SlotKind::Copied, SlotKind::ZeroCopy, SlotKind::Persistent] {
        for (slot, field) in slots.iter().zip(fields.iter_mut()) {
            if slot.kind == kind {
                let size = slot.size(counts)?;
                field.span = ByteRange { offset: end, size };
                end = end.checked_add(size)?.checked_next_multiple_of(ALIGN)?;
            } else if slot.kind == SlotKind::DeviceOnly {
                // It has nothing in the ring slot, and the offset says nothing: `Shape::place` is
                // where it lies on the device.
                field.span.size = slot.size(counts)?;
            }
        }
        if kind == SlotKind::Copied {
            copied = end;
        }
    }
    (end <= isize::MAX.unsigned_abs()).then_some(Extent { copied, end })
}

/// Leaves the slots where they are, for a shorter step.
fn shorten(slots: &[SlotSpec], counts: Counts, fields: &mut [Field]) -> Option<usize> {
    let mut end = 0;
    for (slot, Field { span, .. }) in slots.iter().zip(fields.iter_mut()) {
        if slot.kind != SlotKind::Dynamic {
            span.size = slot.size(counts)?;
            end = end.max(if slot.is_staged() { span.offset + span.size } else { 0 });
        }
    }
    Some(end)
}

/// The alignment of slots: that of the driver's own allocations, which kernels may rely on.
pub(super) const ALIGN: usize = 256;
/// Tokens up to which a table says the bucket: 16 KiB at most.
const PLACES: usize = 8192;
/// How many dynamic slots a set may have: a step carries their addresses.
pub(super) const MAX_DYNAMIC: usize = 8;
