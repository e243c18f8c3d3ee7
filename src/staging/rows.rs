#![expect(unsafe_code, reason = "slices of pinned memory")]
//! Slots of several rows, such as the positions of models with three of them a token.
//!
//! ```text
//!   PerSlot   row 0 |######......|  the stride of a row is that of the largest step,
//!             row 1 |######......|  one node copies the step's part of all
//!
//!   Packed    |######|######|       rows lie end to end, within the one copy
//! ```

use super::builder::InputBuffersBuilder;
use super::error::{SlotFault, StageError};
use super::len::{Counts, Len};
use super::pad;
use super::plan::{ByteRange, Layout, Plan};
use super::shape_error::ShapeFault;
use super::slot_id::SlotId;
use super::spec::{Forgotten, Pad, SlotSpec};
use super::staged::Staged;
use super::static_buffers::StaticBuffers;
use super::step::Step;
use super::transfer::Transfer;
use crate::element::Element;
use crate::graph::{Copy1d, Copy2d};

impl<Tag> InputBuffersBuilder<Tag> {
    /// Adds a slot of `rows` rows of `len` elements each; behind the elements of each, up to the
    /// bucket's length, are zeros.
    ///
    /// In [`Layout::PerSlot`] a row lies at the same address in all steps: rows are as far apart
    /// as the largest step needs, and one node of the graph copies the step's part of all. In
    /// [`Layout::Packed`] rows lie end to end, by bucket. [`StaticBuffers::row_stride`] and
    /// [`Staged::row_stride`] return the distance.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::Stream;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context);
    /// let inputs = inputs.slot_rows::<i64>("mrope_positions", 3, Len::Tokens);
    /// let inputs = inputs.buckets([8, 512]).build()?;
    /// let (mrope, stream) = (inputs.slot_id::<i64>("mrope_positions")?, Stream::new(&context)?);
    /// let mut step = inputs.begin(2, 1)?;
    /// let [time, height, width] = step.write_rows(mrope)?;
    /// time.copy_from_slice(&[5, 5]);
    /// height.copy_from_slice(&[0, 1]);
    /// width.copy_from_slice(&[7, 7]);
    /// let staged = step.submit(&stream)?;
    /// // Row r is at this address and r * 512 elements.
    /// let _address = staged.device_ptr(mrope);
    /// assert_eq!(staged.row_stride(mrope), Some(512));
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_rows<T: Element>(self, name: &str, rows: usize, len: Len) -> Self {
        self.slot_rows_padded::<T>(name, rows, len, Pad::Zero)
    }

    /// As [`slot_rows`](Self::slot_rows); `pad` is behind the elements of each row.
    pub fn slot_rows_padded<T: Element>(
        self,
        name: &str,
        rows: usize,
        len: Len,
        pad: Pad<T>,
    ) -> Self {
        let mut with = self.slot_padded::<T>(name, len, pad);
        if let Some(slot) = with.set.slots.last_mut() {
            slot.shape.rows = rows;
        }
        with
    }
}

impl<Tag> Step<'_, Tag> {
    /// The rows of a slot that was [added](super::InputBuffersBuilder::slot_rows) with `N` rows, in
    /// pinned memory, to be written in place: each of as many elements as the step has. Their
    /// contents are left from earlier steps. A slot that was added without rows has one.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot has another number of rows ([`ShapeFault::Rows`]), or is of
    /// another set, or its length is by a count that was not set. The step goes on.
    pub fn write_rows<T: Element, const N: usize>(
        &mut self,
        slot: SlotId<T, Tag>,
    ) -> Result<[&mut [T]; N], StageError> {
        let (span, len) = self.locate_rows(slot, N)?;
        let (index, memory) = (slot.index(), self.claim.memory);
        let plan = &self.shared.plan;
        self.written |= 1 << index;
        Ok(std::array::from_fn(|row| {
            // SAFETY: the rows are apart and lie in the ring slot that this step has claimed; each
            // holds at least so many elements, and `self` is borrowed as long as the slices.
            unsafe { memory.elements(plan.row(index, span, row), len) }
        }))
    }

    /// Copies the rows of a slot from elsewhere, where they lie end to end.
    ///
    /// # Errors
    ///
    /// As [`write_rows`](Self::write_rows); `from` has another length than all rows in this step
    /// ([`SlotFault::Length`]). Nothing was written, and the step goes on.
    pub fn write_rows_from<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &[T],
    ) -> Result<(), StageError> {
        let index = slot.index();
        let plan = &self.shared.plan;
        let rows = plan.slots.get(index).map_or(0, |spec| spec.shape.rows);
        let (span, len) = self.locate_rows(slot, rows)?;
        let (wanted, given) = (rows * len, from.len());
        if wanted != given {
            return Err(self.shared.misuse(index, SlotFault::Length { wanted, given }));
        }
        for row in 0..rows {
            // SAFETY: as in `write_rows`.
            let to: &mut [T] =
                unsafe { self.claim.memory.elements(plan.row(index, span, row), len) };
            to.copy_from_slice(&from[row * len..][..len]);
        }
        self.written |= 1 << index;
        Ok(())
    }

    /// The span of a slot of `rows` rows, and how many elements each has in this step.
    fn locate_rows<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        rows: usize,
    ) -> Result<(ByteRange, usize), StageError> {
        let (shared, index) = (self.shared, slot.index());
        shared.check_fork()?;
        let spec = shared.plan.slots.get(index);
        let Some(spec) = spec.filter(|spec| slot.set() == self.set() && spec.dtype == T::DTYPE)
        else {
            return Err(shared.misuse(index, SlotFault::Foreign));
        };
        let has = if spec.is_staged() { spec.shape.rows } else { 0 };
        if has != rows || !spec.is_staged() {
            let fault = ShapeFault::Rows { wanted: has, given: rows };
            return Err(shared.misuse(index, SlotFault::Shape(fault)));
        }
        if self.is_count_missing(index) {
            return Err(shared.misuse(index, SlotFault::CountNotSet));
        }
        Ok((self.span(index), self.len_of(index)))
    }

    /// Fills the tails of rows, of all rows that the step has not written if that is the policy.
    pub(super) fn pad_rows(&mut self) {
        let shared = self.shared;
        let plan = &shared.plan;
        let mut left = plan.rows;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let is_written = self.written & 1 << slot != 0;
            if !is_written && plan.forgotten[slot] == Forgotten::Keep {
                continue;
            }
            let (spec, span) = (&plan.slots[slot], self.span(slot));
            let (width, written) =
                (spec.dtype.size(), if is_written { self.len_of(slot) } else { 0 });
            for row in 0..spec.shape.rows {
                let span = plan.row(slot, span, row);
                pad::fill(self.elements(span, span.size), width, written, spec.pad);
            }
        }
    }
}

impl<Tag> Staged<'_, Tag> {
    /// How far the rows of a slot are apart on the device in this step, in elements; `None` for a
    /// slot without rows, or of another set.
    pub fn row_stride<T: Element>(&self, slot: SlotId<T, Tag>) -> Option<usize> {
        let (shared, index) = (self.shared(), slot.index());
        let is_here = slot.set() == shared.id() && shared.plan.has_rows(index);
        is_here.then(|| shared.plan.device_pitch(index, self.span(index)) / size_of::<T>())
    }
}

impl<Tag> StaticBuffers<Tag> {
    /// How far the rows of a slot are apart in the bucket that holds `counts`, or so many tokens,
    /// in elements; `None` for a slot without rows, of another set, and above the largest bucket.
    pub fn row_stride<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        counts: impl Into<Counts>,
    ) -> Option<usize> {
        let (plan, index, counts) = (self.plan(), slot.index(), counts.into());
        self.device_ptr(slot, counts)?;
        let span = plan.bucket_of(counts)?.fields[index].span;
        plan.has_rows(index).then(|| plan.device_pitch(index, span) / size_of::<T>())
    }
}

impl SlotSpec {
    /// Whether it is copied row by row.
    pub(super) fn has_rows(&self) -> bool {
        self.is_staged() && self.shape.rows != 1
    }

    /// The bytes that a step of these counts has of it in a ring slot.
    pub(super) fn size(&self, counts: Counts) -> Option<usize> {
        let rows = if self.has_rows() { self.shape.rows } else { 1 };
        self.row_size(counts)?.checked_mul(rows)
    }

    /// The bytes of one row of these.
    pub(super) fn row_size(&self, counts: Counts) -> Option<usize> {
        self.most.checked(counts)?.checked_mul(self.dtype.size())
    }
}

impl Plan {
    fn has_rows(&self, slot: usize) -> bool {
        self.rows & 1 << slot != 0
    }

    /// A row of a slot that has the span in a step, in the ring slot.
    fn row(&self, slot: usize, span: ByteRange, row: usize) -> ByteRange {
        let size = span.size.checked_div(self.slots[slot].shape.rows).unwrap_or(0);
        ByteRange { offset: span.offset + row * self.host_pitch(slot, size), size }
    }

    /// From one row to the next in the ring slot, in bytes, where a row of the step has `size`.
    fn host_pitch(&self, slot: usize, size: usize) -> usize {
        match self.layout {
            Layout::Packed => size,
            // It was checked when the set was made.
            Layout::PerSlot => self.slots[slot].row_size(self.max).unwrap_or(size),
        }
    }

    /// From one row to the next on the device, in bytes, where the slot has the span.
    fn device_pitch(&self, slot: usize, span: ByteRange) -> usize {
        let shape = &self.slots[slot].shape;
        match self.layout {
            Layout::Packed => span.size.checked_div(shape.rows).unwrap_or(0),
            Layout::PerSlot => shape.stride,
        }
    }
}

impl Transfer {
    /// The copy of a slot of several rows, which has the span; not of a packed layout.
    pub(super) fn copy_of_rows(&self, index: usize, slot: usize, span: ByteRange) -> Copy2d {
        let plan = &self.plan;
        let first = plan.row(slot, span, 0);
        let row = self.copy_of(index, slot, first);
        let rows = plan.slots[slot].shape.rows;
        let source_pitch = plan.host_pitch(slot, first.size);
        Copy2d { row, rows, destination_pitch: plan.device_pitch(slot, span), source_pitch }
    }

    /// The copies of a slot that has the span, row by row.
    pub(super) fn row_copies(
        &self,
        index: usize,
        slot: usize,
        span: ByteRange,
    ) -> impl Iterator<Item = Copy1d> {
        let plan = &self.plan;
        let base = plan.address(self.device.address(), slot, span);
        let rows = if plan.has_rows(slot) { plan.slots[slot].shape.rows } else { 1 };
        (0..rows).map(move |row| {
            let pitch = if rows == 1 { 0 } else { plan.device_pitch(slot, span) };
            let span = if rows == 1 { span } else { plan.row(slot, span, row) };
            self.copy_with(index, span, base + (row * pitch) as u64)
        })
    }
}
