//! Names of slots that cost nothing to use.

use std::fmt;
use std::marker::PhantomData;

use super::number::NOT_FLAT;
use super::plan::Plan;
use super::slot_error::SlotError;
use crate::element::Element;

/// A slot of one set of input buffers, with elements of type `T`.
///
/// `Tag` is the set's, see [`InputBuffers::tagged`](super::InputBuffers::tagged).
pub struct SlotId<T, Tag = Untagged> {
    pub(super) index: u8,
    /// The [mark](Plan::mark) of a slot that has this number, and elements of `T`.
    pub(super) mark: usize,
    types: PhantomData<fn() -> (T, Tag)>,
}

/// The tag of sets that are not told apart by types; a slot of another set is found when a step is
/// submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untagged {}

/// A count that one set of input buffers has besides tokens and requests.
pub struct CountId<Tag = Untagged> {
    pub(super) index: u8,
    /// The set that it belongs to.
    pub(super) set: usize,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> CountId<Tag> {
    pub(super) fn new(index: usize, set: usize) -> Self {
        // A set has 8 counts at most.
        Self { index: u8::try_from(index).unwrap_or(u8::MAX), set, tag: PhantomData }
    }
}

impl<Tag> Clone for CountId<Tag> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Tag> Copy for CountId<Tag> {}

impl<Tag> fmt::Debug for CountId<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountId({})", self.index)
    }
}

impl<T, Tag> SlotId<T, Tag> {
    /// The slot of that place, if it has elements of `T`.
    pub(super) fn of(plan: &Plan, name: &str) -> Result<Self, SlotError>
    where
        T: Element,
    {
        let index = plan.find(name, T::DTYPE)?;
        // A set has 64 slots at most.
        let place = u8::try_from(index).unwrap_or(u8::MAX);
        Ok(Self { index: place, mark: plan.mark(index), types: PhantomData })
    }

    /// The number of the set that it belongs to.
    #[inline]
    pub(super) fn set(self) -> usize {
        self.mark & !NOT_FLAT
    }

    /// The slot's number, in the order in which slots were named.
    pub fn index(self) -> usize {
        usize::from(self.index)
    }
}

impl<T, Tag> Clone for SlotId<T, Tag> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, Tag> Copy for SlotId<T, Tag> {}

impl<T, Tag> fmt::Debug for SlotId<T, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotId({})", self.index)
    }
}
