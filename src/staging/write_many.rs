#![expect(unsafe_code, reason = "slices of pinned memory")]
//! Writing several slots at once.

use super::error::{SlotFault, StageError};
use super::slot_id::SlotId;
use super::step::Step;
use crate::element::{DType, Element};

/// Different slots of one set: two to twelve of any types as a tuple of their ids, or an array of
/// ids of one type.
pub trait SlotIds<Tag> {
    /// A slice of the elements of each.
    type Slices<'s>
    where
        Tag: 's;

    /// The elements of all slots in a step.
    #[doc(hidden)]
    fn slices<'s>(self, step: &'s mut Step<'_, Tag>) -> Result<Self::Slices<'s>, StageError>;

    /// Shows `look` each slot's number, its set's, and the type of its elements.
    #[doc(hidden)]
    fn each(&self, look: &mut dyn FnMut(usize, usize, DType));

    /// As `slices`, without a check.
    ///
    /// # Safety
    ///
    /// All are different slots of the step's set, each a run of elements of its type in a ring
    /// slot.
    #[doc(hidden)]
    unsafe fn slices_unchecked<'s>(&self, step: &'s mut Step<'_, Tag>) -> Self::Slices<'s>;
}

impl<Tag> Step<'_, Tag> {
    /// The elements of several slots, as [`write`](Self::write) has those of one, to be written
    /// side by side.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: a slot is named twice, has no memory here, or is of another set. None
    /// of them counts as written then.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context).minimal_slots().buckets([4, 8]).build()?;
    /// let slots = (inputs.slot_id::<i64>("input_ids")?, inputs.slot_id::<i64>("positions")?);
    /// let mut step = inputs.begin(3, 1)?;
    /// let (ids, positions) = step.write_many(slots)?;
    /// for (position, id) in [11, 12, 13].into_iter().enumerate() {
    ///     (ids[position], positions[position]) = (id, position as i64);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_many<S: SlotIds<Tag>>(&mut self, slots: S) -> Result<S::Slices<'_>, StageError> {
        slots.slices(self)
    }

    /// The elements of a slot.
    ///
    /// # Safety
    ///
    /// It is of the step's set, a run of elements of this type in a ring slot, and `'s` is no
    /// longer than a borrow of the step in which the slot's elements are taken once.
    #[inline]
    pub(super) unsafe fn elements_of<'s, T: Element>(&self, slot: SlotId<T, Tag>) -> &'s mut [T] {
        // SAFETY: a slot of the set, which each of its tables has.
        let run = unsafe { self.claim.runs.get_unchecked(slot.index()) };
        // SAFETY: made of the span and the length that the slot has in this step, as in
        // `Step::elements`; alone, by the caller's promise.
        unsafe { run.elements() }
    }

    /// Adds a slot to `taken`, those of one call.
    fn take_with<T: Element>(&self, slot: SlotId<T, Tag>, taken: u64) -> Result<u64, StageError> {
        let index = slot.index();
        self.locate(slot)?;
        if taken & 1 << index != 0 {
            return Err(self.shared.misuse(index, SlotFault::Twice));
        }
        Ok(taken | 1 << index)
    }
}

macro_rules! tuples {
    ($($element:ident $slot:ident),+) => {
        impl<$($element: Element,)+ Tag> SlotIds<Tag> for ($(SlotId<$element, Tag>,)+) {
            type Slices<'s>
                = ($(&'s mut [$element],)+)
            where
                Tag: 's;

            fn slices<'s>(
                self,
                step: &'s mut Step<'_, Tag>,
            ) -> Result<Self::Slices<'s>, StageError> {
                let ($($slot,)+) = self;
                let mut taken = 0;
                $(taken = step.take_with($slot, taken)?;)+
                step.written |= taken;
                let memory = step.claim.memory;
                Ok(($(match step.locate($slot) {
                    // SAFETY: as in `Step::elements`; the slots are different ones, so their spans
                    // are apart, and `step` is borrowed as long as the slices.
                    Ok((span, len)) => unsafe { memory.elements(span, len) },
                    Err(error) => return Err(error),
                },)+))
            }

            fn each(&self, look: &mut dyn FnMut(usize, usize, DType)) {
                let ($($slot,)+) = self;
                $(look($slot.index(), $slot.set(), $element::DTYPE);)+
            }

            #[inline]
            unsafe fn slices_unchecked<'s>(
                &self,
                step: &'s mut Step<'_, Tag>,
            ) -> Self::Slices<'s> {
                let ($($slot,)+) = *self;
                // SAFETY: the caller's promise; `step` is borrowed as long as the slices.
                ($(unsafe { step.elements_of($slot) },)+)
            }
        }
    };
}

impl<T: Element, Tag, const N: usize> SlotIds<Tag> for [SlotId<T, Tag>; N] {
    type Slices<'s>
        = [&'s mut [T]; N]
    where
        Tag: 's;

    fn slices<'s>(self, step: &'s mut Step<'_, Tag>) -> Result<Self::Slices<'s>, StageError> {
        let taken = self.iter().try_fold(0, |taken, slot| step.take_with(*slot, taken))?;
        step.written |= taken;
        // SAFETY: `take_with` has found each to be a slot of the set with memory and of its type,
        // and none of them twice.
        Ok(unsafe { self.slices_unchecked(step) })
    }

    fn each(&self, look: &mut dyn FnMut(usize, usize, DType)) {
        self.iter().for_each(|slot| look(slot.index(), slot.set(), T::DTYPE));
    }

    #[inline]
    unsafe fn slices_unchecked<'s>(&self, step: &'s mut Step<'_, Tag>) -> Self::Slices<'s> {
        // SAFETY: the caller's promise; `step` is borrowed as long as the slices.
        std::array::from_fn(|at| unsafe { step.elements_of(self[at]) })
    }
}

tuples!(A a, B b);
tuples!(A a, B b, C c);
tuples!(A a, B b, C c, D d);
tuples!(A a, B b, C c, D d, E e);
tuples!(A a, B b, C c, D d, E e, F f);
tuples!(A a, B b, C c, D d, E e, F f, G g);
tuples!(A a, B b, C c, D d, E e, F f, G g, H h);
tuples!(A a, B b, C c, D d, E e, F f, G g, H h, I i);
tuples!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j);
tuples!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k);
tuples!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l);
