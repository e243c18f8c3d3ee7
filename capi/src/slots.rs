#![expect(unsafe_code, reason = "bits become values")]
//! How a slot is described.

use std::ffi::c_char;

use wharf::element::{Bf16, Bool, DType, Element, F8E4M3, F8E5M2, F16};
use wharf::staging::{Forgotten, InputBuffersBuilder, Layout, Len, OutputBuffersBuilder, Pad};

use crate::status::{Failure, wharf_status};

/// The type of a slot's elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_dtype {
    /// Truth values, a byte each.
    Bool = 0,
    /// 8 bits, unsigned.
    U8 = 1,
    /// 8 bits, signed.
    I8 = 2,
    /// 16 bits, signed.
    I16 = 3,
    /// 16 bits, unsigned.
    U16 = 4,
    /// 32 bits, signed.
    I32 = 5,
    /// 32 bits, unsigned.
    U32 = 6,
    /// 64 bits, signed.
    I64 = 7,
    /// 64 bits, unsigned.
    U64 = 8,
    /// IEEE half precision.
    F16 = 9,
    /// The upper half of a single precision number.
    Bf16 = 10,
    /// IEEE single precision.
    F32 = 11,
    /// IEEE double precision.
    F64 = 12,
    /// 8 bits, 4 of exponent and 3 of fraction.
    F8E4m3 = 13,
    /// 8 bits, 5 of exponent and 2 of fraction.
    F8E5m2 = 14,
}

/// What a slot's length counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_count {
    /// `times` elements for each token.
    Tokens = 0,
    /// `times` elements for each request.
    Requests = 1,
    /// `times` elements.
    Fixed = 2,
}

/// The padding behind a step's elements, up to the length of its bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_pad {
    /// Zeros.
    Zero = 0,
    /// The value in `pad_value`.
    Value = 1,
    /// The last element again and again.
    RepeatLast = 2,
    /// Whatever earlier steps left there.
    Keep = 3,
}

/// What becomes of a slot that a step does not write.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_forgotten {
    /// The step fails, and the error names the slot.
    Error = 0,
    /// The device keeps what an earlier step put there.
    Keep = 1,
    /// It is all padding.
    Pad = 2,
}

/// Where the device reads a slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_placement {
    /// In device memory, to which each step copies it.
    Copied = 0,
    /// In the pinned memory that the host writes, at another address in each step: see
    /// wharf_step_address. A step's reads are to be declared, and are over before its memory is
    /// written again.
    ZeroCopy = 1,
}

/// How slots lie in memory, and how many copies bring them to the device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_layout {
    /// Each slot has one address in all buckets and a copy of its own.
    PerSlot = 0,
    /// Slots lie end to end and are one copy. A slot's address depends on the bucket, see
    /// wharf_inputs_address_in.
    Packed = 1,
}

/// The layout of a number.
pub(crate) fn layout_of(layout: i32) -> Result<Layout, Failure> {
    match layout {
        it if it == wharf_layout::PerSlot as i32 => Ok(Layout::PerSlot),
        it if it == wharf_layout::Packed as i32 => Ok(Layout::Packed),
        it => {
            let text = format!("options->layout is {it}, which is no wharf_layout");
            Err(Failure::new(wharf_status::Invalid, text))
        }
    }
}

/// A slot. Zero it first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wharf_slot {
    /// Its name.
    pub name: *const c_char,
    /// A wharf_dtype.
    pub dtype: i32,
    /// A wharf_count.
    pub count: i32,
    /// Elements for each, see `count`: usually 1. A slot with neither these nor `plus` is refused.
    pub times: usize,
    /// Elements besides: as with `len = tokens * times + plus`.
    pub plus: usize,
    /// A wharf_pad.
    pub pad: i32,
    /// For WHARF_PAD_VALUE, otherwise 0: the bits of one element, the lowest first.
    pub pad_value: u64,
    /// A wharf_forgotten.
    pub forgotten: i32,
    /// A wharf_placement.
    pub placement: i32,
    /// Of results: the device memory of the engine's own that each fetch reads, 0 for the set's. It
    /// holds the slot's elements of the largest step. Inputs have none.
    pub source: u64,
}

impl wharf_slot {
    /// Adds the slot to a set that is being made.
    pub(crate) fn add_to(
        &self,
        builder: InputBuffersBuilder,
        name: &str,
    ) -> Result<InputBuffersBuilder, Failure> {
        let (_, add) = self.types(name)?;
        let len = self.len(name)?;
        let is_zero_copy = match self.placement {
            it if it == wharf_placement::Copied as i32 => false,
            it if it == wharf_placement::ZeroCopy as i32 => true,
            it => return Err(self.wrong(name, "placement", it)),
        };
        if self.source != 0 {
            let text = format!("slot {name:?}: source is set, and inputs have none");
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let pad = match self.pad {
            pad if pad == wharf_pad::Zero as i32 => Pad::Zero,
            pad if pad == wharf_pad::Value as i32 => Pad::Value(self.pad_value),
            pad if pad == wharf_pad::RepeatLast as i32 => Pad::RepeatLast,
            pad if pad == wharf_pad::Keep as i32 => Pad::Keep,
            pad => return Err(self.wrong(name, "pad", pad)),
        };
        if self.pad_value != 0 && self.pad != wharf_pad::Value as i32 {
            let text = format!("slot {name:?}: pad_value is set, and pad is not WHARF_PAD_VALUE");
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let forgotten = match self.forgotten {
            it if it == wharf_forgotten::Error as i32 => Forgotten::Error,
            it if it == wharf_forgotten::Keep as i32 => Forgotten::Keep,
            it if it == wharf_forgotten::Pad as i32 => Forgotten::Pad,
            it => return Err(self.wrong(name, "forgotten", it)),
        };
        Ok(add(builder, name, len, (pad, is_zero_copy)).when_forgotten(forgotten))
    }

    /// Adds the slot to a set of results that is being made.
    ///
    /// # Safety
    ///
    /// The source is as its field says.
    pub(crate) unsafe fn add_to_outputs(
        &self,
        builder: OutputBuffersBuilder,
        name: &str,
    ) -> Result<OutputBuffersBuilder, Failure> {
        let ((dtype, _), len) = (self.types(name)?, self.len(name)?);
        if [self.pad, self.forgotten, self.placement] != [0; 3] || self.pad_value != 0 {
            let text =
                format!("slot {name:?}: results have no pad, forgotten or placement: leave them 0");
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let builder = builder.slot_of(name, dtype, len);
        if self.source == 0 {
            return Ok(builder);
        }
        // SAFETY: the caller's promise.
        Ok(unsafe { builder.source(self.source) })
    }

    /// The type of its elements, and what adds a slot of it.
    fn types(&self, name: &str) -> Result<(DType, Add), Failure> {
        let found = TYPES.get(usize::try_from(self.dtype).unwrap_or(usize::MAX));
        found.copied().ok_or_else(|| self.wrong(name, "dtype", self.dtype))
    }

    fn len(&self, name: &str) -> Result<Len, Failure> {
        if self.times == 0 && self.plus == 0 {
            // What a structure that was only zeroed would make.
            let text = format!("slot {name:?} has no elements: set times, or plus");
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let len = match self.count {
            count if count == wharf_count::Tokens as i32 => Len::Tokens.times(self.times),
            count if count == wharf_count::Requests as i32 => Len::Requests.times(self.times),
            count if count == wharf_count::Fixed as i32 => Len::Fixed(self.times),
            count => return Err(self.wrong(name, "count", count)),
        };
        Ok(if self.plus == 0 { len } else { len.plus(self.plus) })
    }

    fn wrong(&self, name: &str, field: &str, value: i32) -> Failure {
        let text = format!("slot {name:?}: {field} is {value}, which is no wharf_{field}");
        Failure::new(wharf_status::Invalid, text)
    }
}

/// Adds a slot of type `T`; the bits of a value are its lowest.
fn add<T: Element>(
    builder: InputBuffersBuilder,
    name: &str,
    len: Len,
    (pad, is_zero_copy): (Pad<u64>, bool),
) -> InputBuffersBuilder {
    let pad = match pad {
        Pad::Zero => Pad::Zero,
        Pad::RepeatLast => Pad::RepeatLast,
        Pad::Keep => Pad::Keep,
        Pad::Value(bits) => {
            let bytes = bits.to_le_bytes();
            // SAFETY: an element has at most eight bytes, and every pattern of bits is a value.
            Pad::Value(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
        }
    };
    match is_zero_copy {
        true => builder.slot_zero_copy::<T>(name, len, pad),
        false => builder.slot_padded::<T>(name, len, pad),
    }
}

type Add = fn(InputBuffersBuilder, &str, Len, (Pad<u64>, bool)) -> InputBuffersBuilder;

const fn of<T: Element>() -> (DType, Add) {
    (T::DTYPE, add::<T>)
}

/// By wharf_dtype.
const TYPES: [(DType, Add); 15] = [
    of::<Bool>(),
    of::<u8>(),
    of::<i8>(),
    of::<i16>(),
    of::<u16>(),
    of::<i32>(),
    of::<u32>(),
    of::<i64>(),
    of::<u64>(),
    of::<F16>(),
    of::<Bf16>(),
    of::<f32>(),
    of::<f64>(),
    of::<F8E4M3>(),
    of::<F8E5M2>(),
];
