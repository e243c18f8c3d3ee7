//! Slots: their descriptions, and the typed ids behind their names.

use pyo3::prelude::*;
use wharf::element::DType;
use wharf::pool::Buffer as Inner;
use wharf::staging::{
    Counts, Forgotten, InputBuffers, InputBuffersBuilder, Len, OutputBuffersBuilder, Pad,
    SlotError, SlotId, StageError, Staged, StaticBuffers, Step,
};

use crate::copy::unknown;
use crate::dtype::{self, with_type};
use crate::error::{OrRaise, invalid};
use crate::scalar::Scalar;
use crate::shape::Shape;

/// How many elements a slot has in a step: `TOKENS` or `REQUESTS`, times a number, plus a number.
#[pyclass(frozen, eq, module = "wharf")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length(Len);

impl Length {
    pub(crate) const TOKENS: Self = Self(Len::Tokens);
    pub(crate) const REQUESTS: Self = Self(Len::Requests);
}

#[pymethods]
impl Length {
    fn __mul__(&self, factor: usize) -> Self {
        Self(self.0.times(factor))
    }

    fn __rmul__(&self, factor: usize) -> Self {
        self.__mul__(factor)
    }

    fn __add__(&self, more: usize) -> Self {
        Self(self.0.plus(more))
    }

    fn __radd__(&self, more: usize) -> Self {
        self.__add__(more)
    }

    fn __repr__(&self) -> String {
        match self.0 {
            Len::Tokens => "TOKENS".into(),
            Len::Requests => "REQUESTS".into(),
            Len::Linear { per_request, times, plus } => {
                let of = if per_request { "REQUESTS" } else { "TOKENS" };
                format!("{of} * {times} + {plus}")
            }
            Len::Fixed(len) => len.to_string(),
            _ => "Length".into(),
        }
    }
}

/// One input of a step.
///
/// `length` is `TOKENS`, `REQUESTS`, such as `REQUESTS * 16`, or a number of elements. `pad` is
/// behind a step's elements, up to its bucket: a number, `"last"` for the last element again and
/// again, or `"keep"` for whatever is there. `forgotten` says what becomes of a step that does not
/// write the slot: `"error"`, `"keep"` (the device keeps its contents) or `"pad"`. `kind` is
/// `"copied"`, `"zero_copy"` (the device reads the host's memory) or `"dynamic"` (each step passes
/// an address).
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct Slot {
    /// The name.
    #[pyo3(get)]
    name: String,
    dtype: DType,
    len: Len,
    pad: Padding,
    forgotten: Option<Forgotten>,
    kind: Kind,
}

#[derive(Debug)]
enum Padding {
    Number(Option<Py<PyAny>>),
    Last,
    Keep,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Copied,
    ZeroCopy,
    Dynamic,
}

#[pymethods]
impl Slot {
    #[new]
    #[pyo3(signature = (
        name, dtype, length = None, *, pad = None, forgotten = None, kind = "copied"
    ))]
    fn new(
        name: String,
        dtype: &Bound<'_, PyAny>,
        length: Option<&Bound<'_, PyAny>>,
        pad: Option<&Bound<'_, PyAny>>,
        forgotten: Option<&str>,
        kind: &str,
    ) -> PyResult<Self> {
        let kind = match kind {
            "copied" => Kind::Copied,
            "zero_copy" => Kind::ZeroCopy,
            "dynamic" => Kind::Dynamic,
            _ => return Err(invalid(format!("kind={kind:?} is no kind of slot"))),
        };
        let len = match length {
            None if matches!(kind, Kind::Dynamic) => Len::Fixed(0),
            None => return Err(invalid(format!("slot {name:?} needs a length, such as TOKENS"))),
            Some(length) => match length.cast::<Length>() {
                Ok(length) => length.get().0,
                Err(_) => Len::Fixed(length.extract()?),
            },
        };
        let slot = Self {
            name,
            dtype: dtype::parse(dtype)?,
            len,
            pad: Padding::parse(pad),
            forgotten: forgotten.map(policy).transpose()?,
            kind,
        };
        slot.check_pad(dtype.py())?;
        Ok(slot)
    }

    /// The element type, by NumPy's name.
    #[getter]
    fn dtype(&self) -> &'static str {
        dtype::name(self.dtype)
    }

    fn __repr__(&self) -> String {
        let length = Length(self.len).__repr__();
        format!("Slot({:?}, {:?}, {length})", self.name, self.dtype())
    }
}

impl Slot {
    /// Adds the slot to a set.
    pub(crate) fn add_to(
        &self,
        builder: InputBuffersBuilder,
        py: Python<'_>,
    ) -> PyResult<InputBuffersBuilder> {
        let (name, len) = (&*self.name, self.len);
        let builder = with_type!(self.dtype, T => {
            let pad = self.pad.of::<T>(py)?;
            match self.kind {
                Kind::Copied => builder.slot_padded::<T>(name, len, pad),
                Kind::ZeroCopy => builder.slot_zero_copy::<T>(name, len, pad),
                Kind::Dynamic => builder.dynamic::<T>(name),
            }
        }, _ => return Err(unknown()));
        Ok(match self.forgotten {
            Some(policy) => builder.when_forgotten(policy),
            None => builder,
        })
    }

    /// Adds the slot to a set of results.
    pub(crate) fn add_to_outputs(
        &self,
        builder: OutputBuffersBuilder,
    ) -> PyResult<OutputBuffersBuilder> {
        let is_plain = matches!(self.kind, Kind::Copied)
            && matches!(self.pad, Padding::Number(None))
            && self.forgotten.is_none();
        if is_plain {
            return Ok(builder.slot_of(&self.name, self.dtype, self.len));
        }
        let name = &self.name;
        Err(invalid(format!("slot {name:?}: results have no pad, forgotten or kind")))
    }

    fn check_pad(&self, py: Python<'_>) -> PyResult<()> {
        with_type!(self.dtype, T => self.pad.of::<T>(py).map(drop), _ => Err(unknown()))
    }
}

impl Padding {
    fn parse(pad: Option<&Bound<'_, PyAny>>) -> Self {
        match pad.map(|pad| pad.extract::<String>()) {
            Some(Ok(word)) if word == "last" => Self::Last,
            Some(Ok(word)) if word == "keep" => Self::Keep,
            // Any other word is no number, which `of` says.
            _ => Self::Number(pad.map(|pad| pad.clone().unbind())),
        }
    }

    fn of<T: Scalar>(&self, py: Python<'_>) -> PyResult<Pad<T>> {
        Ok(match self {
            Self::Number(None) => Pad::Zero,
            Self::Number(Some(number)) => Pad::Value(T::of(number.bind(py))?),
            Self::Last => Pad::RepeatLast,
            Self::Keep => Pad::Keep,
        })
    }
}

/// The policy for slots that a step does not write.
pub(crate) fn policy(word: &str) -> PyResult<Forgotten> {
    match word {
        "error" => Ok(Forgotten::Error),
        "keep" => Ok(Forgotten::Keep),
        "pad" => Ok(Forgotten::Pad),
        _ => Err(invalid(format!("forgotten={word:?} is not \"error\", \"keep\" or \"pad\""))),
    }
}

/// A slot of a set, as steps use it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    len: Len,
    /// Whether each step passes its address.
    pub(crate) is_dynamic: bool,
    /// The slot by its type.
    pub(crate) typed: Box<dyn Typed>,
}

impl Entry {
    /// The slots of a set.
    pub(crate) fn all(set: &InputBuffers) -> PyResult<Vec<Self>> {
        let entry = |slot: wharf::staging::SlotInfo| {
            let typed = with_type!(slot.dtype, T => typed::<T>(set, &slot.name).or_raise()?,
                _ => return Err(unknown()));
            let (name, is_dynamic) = (slot.name.into_string(), !slot.is_static);
            Ok(Self { name, dtype: slot.dtype, len: slot.len, is_dynamic, typed })
        };
        set.slots().map(entry).collect()
    }

    /// The shape of the slot in a step: a row for each token or request, where each has several.
    pub(crate) fn shape(&self, counts: Counts) -> PyResult<Shape> {
        shape(self.len, self.dtype, counts)
    }
}

/// The shape of a slot in a step: a row for each token or request, where each has several.
pub(crate) fn shape(len: Len, dtype: DType, counts: Counts) -> PyResult<Shape> {
    let dims = match len {
        Len::Linear { per_request, times, plus: 0 } => {
            vec![if per_request { counts.requests } else { counts.tokens }, times]
        }
        len => vec![len.of(counts).unwrap_or(usize::MAX)],
    };
    Shape::new(dims, dtype)
}

/// A slot with its type.
pub(crate) trait Typed: Send + Sync {
    /// The address of the slot's memory in a step, which counts as written.
    fn write(&self, step: &mut Step<'_>) -> usize;
    /// Copies the slot's elements from memory that is aligned for them.
    fn write_from(&self, step: &mut Step<'_>, from: Source<'_>) -> Result<(), StageError>;
    /// Passes the address of a dynamic slot.
    fn pass(&self, step: &mut Step<'_>, address: u64) -> Result<(), StageError>;
    /// Lets the device read the elements in a pinned buffer. `None` if they are not whole.
    fn refer(&self, step: &mut Step<'_>, from: Inner<u8>) -> Option<Result<(), StageError>>;
    /// Where the device finds the elements of a step.
    fn device_ptr(&self, staged: &Staged<'_>) -> u64;
    /// Where the device finds the elements in a bucket.
    fn static_ptr(&self, buffers: &StaticBuffers, tokens: usize) -> Option<u64>;
}

/// Elements of the host, of any type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

fn typed<T: Scalar>(set: &InputBuffers, name: &str) -> Result<Box<dyn Typed>, SlotError> {
    Ok(Box::new(set.slot_id::<T>(name)?))
}

impl<T: Scalar> Typed for SlotId<T> {
    fn write(&self, step: &mut Step<'_>) -> usize {
        step.write(*self).as_mut_ptr().expose_provenance()
    }

    fn write_from(&self, step: &mut Step<'_>, from: Source<'_>) -> Result<(), StageError> {
        step.write_from(*self, crate::view::elements(from.0))
    }

    fn pass(&self, step: &mut Step<'_>, address: u64) -> Result<(), StageError> {
        step.pass(*self, address)
    }

    fn refer(&self, step: &mut Step<'_>, from: Inner<u8>) -> Option<Result<(), StageError>> {
        let from = from.cast::<T>().ok()?;
        Some(step.refer_buffer(*self, &from))
    }

    fn device_ptr(&self, staged: &Staged<'_>) -> u64 {
        staged.device_ptr(*self)
    }

    fn static_ptr(&self, buffers: &StaticBuffers, tokens: usize) -> Option<u64> {
        buffers.device_ptr(*self, tokens)
    }
}
