//! What goes into a step by name, and what comes out.

use std::fmt;

use wharf_sys::bindings::CUdeviceptr;

use crate::element::{DType, Element, bytes_of};
use crate::pool::Buffer;
use crate::staging::{StageError, Staged};
use crate::tier::{Pin, TieredObject};

/// One input of a step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// Elements in ordinary memory.
    Host {
        /// The type of the elements.
        dtype: DType,
        /// Their bytes.
        bytes: &'a [u8],
    },
    /// Elements somewhere on the device, kept there by the caller.
    Device {
        /// The address of the first.
        address: CUdeviceptr,
        /// The type of the elements.
        dtype: DType,
        /// Their number.
        len: usize,
    },
    /// A buffer of a pool.
    Buffer(&'a Buffer<u8>),
    /// An object of tiers, which a step holds on the device.
    Object(&'a TieredObject),
}

impl<'a, T: Element> From<&'a [T]> for Input<'a> {
    fn from(elements: &'a [T]) -> Self {
        Self::Host { dtype: T::DTYPE, bytes: bytes_of(elements) }
    }
}

impl<'a, T: Element, const N: usize> From<&'a [T; N]> for Input<'a> {
    fn from(elements: &'a [T; N]) -> Self {
        Self::from(elements.as_slice())
    }
}

impl<'a> From<&'a Allocation> for Input<'a> {
    fn from(memory: &'a Allocation) -> Self {
        match memory {
            Allocation::Buffer(buffer) => Self::Buffer(buffer),
            Allocation::Object(object) => Self::Object(object),
        }
    }
}

/// Memory for an input without a static slot.
#[derive(Debug)]
#[non_exhaustive]
pub enum Allocation {
    /// Of a pool.
    Buffer(Buffer<u8>),
    /// Of tiers: it is on the device while a step uses it.
    Object(TieredObject),
}

/// The elements of a static slot that a step has: a prefix of the slot's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// Where the device finds the first, in every step.
    pub address: CUdeviceptr,
    /// The type of the elements.
    pub dtype: DType,
    /// Their number.
    pub len: usize,
}

/// What became of one input.
#[derive(Debug)]
#[non_exhaustive]
pub enum StagedInput<'a> {
    /// It is in its static slot.
    Static(View),
    /// It is passed through, as it was given.
    Passed(Input<'a>),
    /// It is held on the device, as long as this and then until the step's stream is past it.
    Held(Pin<'a>),
}

/// A step that was staged by name.
pub struct StagedInputs<'a> {
    pub(super) staged: Staged<'a>,
    pub(super) inputs: Vec<(&'a str, StagedInput<'a>)>,
    pub(super) ahead: Result<(), StageError>,
}

impl<'a> StagedInputs<'a> {
    /// What became of an input; `None` if the step was given none of the name.
    pub fn get(&self, name: &str) -> Option<&StagedInput<'a>> {
        self.inputs.iter().find(|(other, _)| *other == name).map(|(_, input)| input)
    }

    /// All inputs, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &StagedInput<'a>)> {
        self.inputs.iter().map(|(name, input)| (*name, input))
    }

    /// The view of a static slot; `None` for another input.
    pub fn view(&self, name: &str) -> Option<View> {
        match self.get(name)? {
            StagedInput::Static(view) => Some(*view),
            _ => None,
        }
    }

    /// Whether the graphs that are likely needed next could be made. If not, the step is on its way
    /// all the same, and the next one tries again.
    ///
    /// # Errors
    ///
    /// What the driver said.
    pub fn made_ahead(&self) -> Result<(), &StageError> {
        self.ahead.as_ref().copied()
    }

    /// The step on its way: to order other streams behind it, and it behind them.
    pub fn staged(&self) -> &Staged<'a> {
        &self.staged
    }
}

impl fmt::Debug for StagedInputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
