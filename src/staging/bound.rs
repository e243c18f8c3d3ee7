#![expect(
    unsafe_code,
    reason = "takes slots without looking at what was checked when they were bound"
)]
//! Slots that are checked once, for loops that write them in every step.

use std::fmt;
use std::marker::PhantomData;

use super::buffers::InputBuffers;
use super::error::{SlotFault, StageError};
use super::slot_id::Untagged;
use super::step::Step;
use super::write_many::SlotIds;

/// Different slots of one set that were [checked](InputBuffers::bind) once, to be written by
/// [`Step::write_all`] in any number of steps.
pub struct Bound<S, Tag = Untagged> {
    slots: S,
    /// A bit for each of the slots.
    mask: u64,
    /// A bit for each of them whose length is by a count by name.
    named: u64,
    /// The number of the set.
    set: usize,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffers<Tag> {
    /// Checks slots once that every step writes: a tuple of ids of different types, or an array of
    /// ids of one type. [`Step::write_all`] then has the elements of all of them, at less than two
    /// thirds of the cost of a [`write`](Step::write) each.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: a slot is named twice, has no memory here or several rows of it, or is
    /// of another set.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// # let stream = wharf::Stream::new(&context)?;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context)
    ///     .slot::<i32>("ids", Len::Tokens)
    ///     .slot::<i64>("positions", Len::Tokens)
    ///     .buckets([4, 8])
    ///     .build()?;
    /// let ids = inputs.slot_id::<i32>("ids")?;
    /// let slots = inputs.bind((ids, inputs.slot_id::<i64>("positions")?))?;
    /// for tokens in [3, 4, 7] {
    ///     let mut step = inputs.begin(tokens, 1)?;
    ///     let (ids, positions) = step.write_all(&slots)?;
    ///     ids.fill(11);
    ///     positions.iter_mut().zip(0..).for_each(|(position, at)| *position = at);
    ///     step.submit(&stream)?;
    /// }
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind<S: SlotIds<Tag>>(&self, slots: S) -> Result<Bound<S, Tag>, StageError> {
        let plan = &self.shared.plan;
        let (mut mask, mut named, mut fault) = (0, 0, None);
        slots.each(&mut |index, set, dtype| {
            let found = plan.slots.get(index).filter(|_| set == self.shared.id());
            let wrong = match found {
                // Steps take its elements unchecked, so it must be a run of them in a ring slot.
                Some(spec) if spec.dtype == dtype && plan.flat & 1 << index != 0 => {
                    let is_first = mask & 1 << index == 0;
                    mask |= 1 << index;
                    named |= u64::from(spec.len.name().is_some()) << index;
                    (!is_first).then_some(SlotFault::Twice)
                }
                _ => Some(self.shared.refusal(index, set)),
            };
            fault = fault.take().or_else(|| wrong.map(|wrong| (index, wrong)));
        });
        match fault {
            Some((index, fault)) => Err(self.shared.misuse(index, fault)),
            None => Ok(Bound { slots, mask, named, set: plan.number, tag: PhantomData }),
        }
    }
}

impl<Tag> Step<'_, Tag> {
    /// The elements of all slots that were [bound](InputBuffers::bind), as [`write`](Self::write)
    /// has those of one, to be written side by side.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: they are another set's, or one has a length by a count that was not
    /// [set](Self::set_count). None of them counts as written then.
    #[inline]
    pub fn write_all<S: SlotIds<Tag>>(
        &mut self,
        bound: &Bound<S, Tag>,
    ) -> Result<S::Slices<'_>, StageError> {
        if bound.set != self.set() {
            return Err(self
                .shared
                .misuse(bound.mask.trailing_zeros() as usize, SlotFault::Foreign));
        }
        if bound.named != 0 {
            self.check_set(bound.named)?;
        }
        self.written |= bound.mask;
        // SAFETY: `bind` has found each to be a slot of this plan that is one run of elements of
        // its type in a ring slot, and none of them twice.
        Ok(unsafe { bound.slots.slices_unchecked(self) })
    }

    /// Refuses slots whose length is by a count that was not set.
    #[cold]
    fn check_set(&self, slots: u64) -> Result<(), StageError> {
        let is_missing = |slot: &usize| slots & 1 << slot != 0 && self.is_count_missing(*slot);
        match (0..self.shared.plan.slots.len()).find(is_missing) {
            Some(slot) => Err(self.shared.misuse(slot, SlotFault::CountNotSet)),
            None => Ok(()),
        }
    }
}

impl<S: Clone, Tag> Clone for Bound<S, Tag> {
    fn clone(&self) -> Self {
        Self { slots: self.slots.clone(), ..*self }
    }
}

impl<S, Tag> fmt::Debug for Bound<S, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("slots", &self.mask.count_ones()).finish_non_exhaustive()
    }
}
