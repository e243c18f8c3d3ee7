//! Shapes of C-contiguous arrays.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use wharf::element::DType;

use crate::error::invalid;

/// The shape and the element type of memory that lies in C order without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) dims: Vec<usize>,
    pub(crate) dtype: DType,
    /// In bytes.
    pub(crate) size: usize,
}

impl Shape {
    /// Refuses a shape whose size exceeds the address space, and one of more dimensions than the
    /// buffer protocol has.
    pub(crate) fn new(dims: Vec<usize>, dtype: DType) -> PyResult<Self> {
        if dims.len() > ffi::PyBUF_MAX_NDIM {
            let (has, most) = (dims.len(), ffi::PyBUF_MAX_NDIM);
            return Err(invalid(format!("the shape has {has} dimensions, and {most} at most")));
        }
        let size = dims.iter().try_fold(dtype.size(), |size, dim| size.checked_mul(*dim));
        // Sizes and strides are signed in every protocol.
        match size.filter(|size| isize::try_from(*size).is_ok()) {
            Some(size) => Ok(Self { dims, dtype, size }),
            None => Err(invalid(format!("the shape {dims:?} exceeds the address space"))),
        }
    }

    /// A number of elements, or a sequence of dimensions.
    pub(crate) fn parse(shape: &Bound<'_, PyAny>, dtype: DType) -> PyResult<Self> {
        let dims = match shape.extract::<usize>() {
            Ok(len) => vec![len],
            Err(_) if shape.is_instance_of::<PyInt>() => {
                return Err(invalid(format!("the shape {shape} is no number of elements")));
            }
            Err(_) => shape.extract()?,
        };
        Self::new(dims, dtype)
    }

    /// The strides in elements.
    pub(crate) fn strides(&self) -> Vec<i64> {
        let mut stride = 1;
        let mut strides: Vec<_> = self
            .dims
            .iter()
            .rev()
            .map(|dim| {
                let this = stride;
                // Saturates only beside a dimension of 0, where no stride matters.
                stride =
                    i64::saturating_mul(stride, i64::try_from((*dim).max(1)).unwrap_or(i64::MAX));
                this
            })
            .collect();
        strides.reverse();
        strides
    }

    /// Whether strides in elements are those of C order. Those of dimensions of one element do not
    /// matter, nor do any of an empty array.
    pub(crate) fn is_contiguous(&self, strides: &[i64]) -> bool {
        let same = |((given, wanted), dim): ((&i64, i64), &usize)| *dim == 1 || *given == wanted;
        self.size == 0
            || strides.len() == self.dims.len()
                && strides.iter().zip(self.strides()).zip(&self.dims).all(same)
    }
}
