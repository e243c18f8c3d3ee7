//! Numbers of Python as elements.

use half::{bf16, f16};
use pyo3::prelude::*;
use wharf::element::{Bf16, Bool, Element, F8E4M3, F8E5M2, F16};

/// An element that a number of Python converts to.
pub(crate) trait Scalar: Element {
    /// The element. A number that does not fit is an error; of half precision types the nearest one
    /// is taken, of 8-bit floating point types the bits are.
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self>;
}

macro_rules! numbers {
    ($($name:ty)+) => {
        $(impl Scalar for $name {
            fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
                number.extract()
            }
        })+
    };
}

numbers! { u8 i8 i16 u16 i32 u32 i64 u64 f32 f64 }

impl Scalar for Bool {
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
        number.is_truthy().map(Self::from)
    }
}

impl Scalar for F16 {
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(f16::from_f64(number.extract()?).to_bits()))
    }
}

impl Scalar for Bf16 {
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(bf16::from_f64(number.extract()?).to_bits()))
    }
}

impl Scalar for F8E4M3 {
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
        number.extract().map(Self)
    }
}

impl Scalar for F8E5M2 {
    fn of(number: &Bound<'_, PyAny>) -> PyResult<Self> {
        number.extract().map(Self)
    }
}
