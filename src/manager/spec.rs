//! What a buffer is to hold.

use std::fmt;

use crate::element::DType;
use crate::memory::MemoryKind;

/// Shape, element type and place of a tensor.
///
/// Two specs are equal if all of them are, so a spec is a key for maps.
///
/// # Examples
///
/// ```
/// use wharf::element::DType;
/// use wharf::manager::BufferSpec;
/// use wharf::memory::MemoryKind;
///
/// let spec = BufferSpec::new(&[256, 4096], DType::I64, MemoryKind::Device)?;
/// assert_eq!(spec.size_bytes()?, 8 << 20);
/// # Ok::<(), wharf::manager::SpecError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferSpec {
    /// The lengths; those beyond `rank` are 0.
    dims: [usize; MAX_RANK],
    rank: u8,
    /// The element type.
    pub dtype: DType,
    /// The kind of memory.
    pub kind: MemoryKind,
    /// The device, by its ordinal; `None` for the pool's.
    pub device: Option<i32>,
}

impl BufferSpec {
    /// A tensor of `shape`, outermost length first. No lengths: one element.
    ///
    /// # Errors
    ///
    /// [`SpecError::Rank`]: more than 8 lengths.
    pub fn new(shape: &[usize], dtype: DType, kind: MemoryKind) -> Result<Self, SpecError> {
        let mut dims = [0; MAX_RANK];
        let rank = u8::try_from(shape.len()).unwrap_or(u8::MAX);
        let Some(used) = dims.get_mut(..shape.len()) else {
            return Err(SpecError::Rank { rank: shape.len() });
        };
        used.copy_from_slice(shape);
        Ok(Self { dims, rank, dtype, kind, device: None })
    }

    /// The same tensor on the device with an ordinal.
    #[must_use]
    pub fn on(self, ordinal: i32) -> Self {
        Self { device: Some(ordinal), ..self }
    }

    /// The lengths, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// The number of elements.
    ///
    /// # Errors
    ///
    /// [`SpecError::Overflow`]: more than can be counted.
    pub fn len(&self) -> Result<usize, SpecError> {
        // A length of 0 makes the tensor empty, whatever the others are.
        if self.shape().contains(&0) {
            return Ok(0);
        }
        let product =
            self.shape().iter().try_fold(1_usize, |product, len| product.checked_mul(*len));
        product.ok_or(SpecError::Overflow)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// The size, in bytes.
    ///
    /// # Errors
    ///
    /// [`SpecError::Overflow`]: more than can be addressed.
    pub fn size_bytes(&self) -> Result<usize, SpecError> {
        let size = self.len()?.checked_mul(self.dtype.size());
        size.filter(|size| isize::try_from(*size).is_ok()).ok_or(SpecError::Overflow)
    }
}

/// Why a spec describes no tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// More lengths than a spec can hold.
    Rank {
        /// How many.
        rank: usize,
    },
    /// The size is more than can be addressed.
    Overflow,
}

impl fmt::Display for BufferSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} in {:?} memory", self.dtype, self.shape(), self.kind)?;
        self.device.map_or(Ok(()), |ordinal| write!(f, " of device {ordinal}"))
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { rank } => write!(f, "a shape of {rank} lengths; at most {MAX_RANK}"),
            Self::Overflow => f.write_str("a tensor larger than the address space"),
        }
    }
}

impl std::error::Error for SpecError {}

/// Lengths in a shape.
const MAX_RANK: usize = 8;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn spec(shape: &[usize], dtype: DType) -> Result<BufferSpec, SpecError> {
        BufferSpec::new(shape, dtype, MemoryKind::Device)
    }

    #[test]
    fn sizes_are_exact_or_refused() {
        let size = |shape: &[usize], dtype| spec(shape, dtype)?.size_bytes();
        for dtype in DType::ALL {
            assert_eq!(size(&[3, 5, 7], dtype), Ok(105 * dtype.size()));
            assert_eq!(size(&[], dtype), Ok(dtype.size()));
            assert_eq!(size(&[usize::MAX, 0, usize::MAX], dtype), Ok(0));
            assert_eq!(size(&[1 << 32, 1 << 32], dtype), Err(SpecError::Overflow));
            assert_eq!(size(&[1 << 63], dtype), Err(SpecError::Overflow));
        }
        assert_eq!(spec(&[1; 9], DType::U8), Err(SpecError::Rank { rank: 9 }));
    }

    #[test]
    fn equal_specs_are_one_key() {
        let of = |shape: &[usize]| spec(shape, DType::F32).unwrap();
        let set: std::collections::HashSet<_> = [of(&[2, 3]), of(&[2, 3]), of(&[3, 2])].into();
        assert_eq!(set.len(), 2);
        assert!(set.contains(&of(&[2, 3])) && !set.contains(&of(&[2, 3]).on(0)));
    }
}
