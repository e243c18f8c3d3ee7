#![expect(unsafe_code, reason = "slices of pinned memory")]
//! Writing several slots at once.

use super::error::{SlotFault, StageError};
use super::slot_id::SlotId;
use super::step::Step;
use crate::element::Element;

/// Two to twelve different slots of one set, as a tuple of their ids.
pub trait SlotIds<Tag> {
    /// A slice of the elements of each.
    type Slices<'s>
    where
        Tag: 's;

    /// The elements of all slots in a step.
    #[doc(hidden)]
    fn slices<'s>(self, step: &'s mut Step<'_, Tag>) -> Result<Self::Slices<'s>, StageError>;
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
                step.referred &= !taken;
                let memory = step.memory;
                Ok(($(match step.locate($slot) {
                    // SAFETY: as in `Step::elements`; the slots are different ones, so their spans
                    // are apart, and `step` is borrowed as long as the slices.
                    Ok((span, len)) => unsafe { memory.elements(span, len) },
                    Err(error) => return Err(error),
                },)+))
            }
        }
    };
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
