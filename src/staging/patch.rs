#![expect(unsafe_code, reason = "slices of pinned memory")]
//! Persistent tables, of which a step sends what changed.

use super::builder::InputBuffersBuilder;
use super::error::{SlotFault, StageError};
use super::len::Len;
use super::patches::{Patches, Piece};
use super::shape_error::ShapeFault;
use super::slot_id::SlotId;
use super::spec::{Padding, SlotKind};
use super::step::Step;
use crate::element::Element;

impl<Tag> InputBuffersBuilder<Tag> {
    /// Adds a table of `rows` rows of `cols` elements that keeps its contents from step to step:
    /// zeros at first, and then what [`Step::patch`] changes. A step changes at most `patched`
    /// elements, for which there is pinned memory in each ring slot; the table itself takes none.
    ///
    /// For tables of which a step changes little. A slot that steps rewrite is a
    /// [`slot`](Self::slot), which is staged whole, with no driver call of its own: the patches of
    /// a step are one more, before CUDA 12.8 and on the legacy default stream one more for each
    /// range. The host keeps the table's contents too, in pageable memory.
    ///
    /// Its address is the same in all steps and [layouts](super::Layout). Steps need not patch it;
    /// [`when_forgotten`](Self::when_forgotten) has no meaning for it.
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
    /// // 256 requests of 1024 blocks each: 1 MiB. A step adds a few blocks to some of them.
    /// let inputs = InputBuffers::builder(&context)
    ///     .slot::<i32>("ids", Len::Tokens)
    ///     .persistent::<i32>("block_table", 256, 1024, 512)
    ///     .buckets([8, 16])
    ///     .build()?;
    /// let (ids, table) = (inputs.slot_id("ids")?, inputs.slot_id::<i32>("block_table")?);
    /// let stream = Stream::new(&context)?;
    /// let mut step = inputs.begin(8, 8)?;
    /// step.write::<i32>(ids).fill(1);
    /// step.patch(table, 7, 63, &[4711])?; // 4 bytes are staged
    /// let staged = step.submit(&stream)?;
    /// // A kernel reads all 256 rows here.
    /// let _address = staged.device_ptr(table);
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn persistent<T: Element>(
        mut self,
        name: &str,
        rows: usize,
        cols: usize,
        patched: usize,
    ) -> Self {
        let len = rows.saturating_mul(cols);
        let kind = SlotKind::Persistent;
        self.set.add(name, T::DTYPE, Len::Fixed(len), Padding::Keep, kind);
        if let Some(slot) = self.set.slots.last_mut() {
            // What a step patches twice takes room once.
            (slot.shape.rows, slot.shape.patched) = (rows, patched.min(len));
        }
        self
    }
}

impl<Tag> Step<'_, Tag> {
    /// Changes elements of a [persistent table](super::InputBuffersBuilder::persistent), from
    /// column `col` of `row` on, in this step and all later ones. Of two patches of an element in
    /// one step the later counts.
    ///
    /// A step that is dropped or fails has changed nothing. Steps that patch a table are ordered
    /// one behind the other, also if several threads submit them.
    ///
    /// In ascending order of places a patch takes no search.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the elements do not lie in one row of the table
    /// ([`ShapeFault::OutOfTable`]), the step's patches would be more than was declared
    /// ([`ShapeFault::TooManyPatched`]), or the slot is no table, or of another set. Nothing has
    /// changed, and the step goes on.
    pub fn patch<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        row: usize,
        col: usize,
        elements: &[T],
    ) -> Result<(), StageError> {
        let (shared, index) = (self.shared, slot.index());
        shared.check_fork()?;
        let spec = shared.plan.slots.get(index);
        let Some(spec) = spec.filter(|spec| slot.set() == self.set() && spec.dtype == T::DTYPE)
        else {
            return Err(shared.misuse(index, SlotFault::Foreign));
        };
        let shape_fault = |fault| Err(shared.misuse(index, SlotFault::Shape(fault)));
        if spec.kind != SlotKind::Persistent {
            return shape_fault(ShapeFault::NotPersistent);
        }
        let (width, rows) = (size_of::<T>(), spec.shape.rows);
        let cols = (spec.table_size() / width).checked_div(rows).unwrap_or(0);
        let len = elements.len();
        if row >= rows || col > cols || len > cols - col {
            return shape_fault(ShapeFault::OutOfTable { row, col, len, rows, cols });
        }
        let (area, memory, table) = (self.span(index), self.claim.memory, spec.shape.table);
        // SAFETY: the slot's area of the ring slot that this step has claimed, which is borrowed
        // alone; its offset is a multiple of 256.
        let to: &mut [T] = unsafe { memory.elements(area, area.size / width) };
        let put = |Piece { at, from, size }: Piece| {
            let from = &elements[from / width..][..size / width];
            to[at / width..][..size / width].copy_from_slice(from);
        };
        let lists = &mut self.claim.extras().patches;
        if lists.len() <= table {
            lists.resize_with(table + 1, Patches::default);
        }
        let start = (row * cols + col) * width;
        match lists[table].put(start, size_of_val(elements), area.size, put) {
            Ok(()) => {
                self.claim.extras.referred |= 1 << index;
                Ok(())
            }
            Err(needed) => shape_fault(ShapeFault::TooManyPatched {
                wanted: needed / width,
                max: area.size / width,
            }),
        }
    }
}
