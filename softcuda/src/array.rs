//! Arrays: storage of one to three dimensions that is named by a handle.
//!
//! ```text
//!   layer 0: |row 0 .... ::::|row 1 .... ::::|...   `....` elements, `::::` padding to the pitch
//!   layer 1: |row 0 .... ::::|...
//! ```
//!
//! CUDA leaves the layout of an array open; here it is rows with a pitch.

use std::sync::Arc;

use wharf_sys::bindings::CUarray_format;

use crate::memory::Block;
use crate::task::{Operand, Place};

/// Rows begin at multiples of this many bytes.
const ALIGNMENT: usize = 512;

/// The shape of an array, as the program said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// In elements; so are the others, which are zero for dimensions that there are not.
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
    pub(crate) format: CUarray_format,
    pub(crate) channels: u32,
    pub(crate) flags: u32,
}

impl Shape {
    /// Bytes of an element, or nothing for a format that there is not.
    pub(crate) fn element(&self) -> Option<usize> {
        let channel = channel_size(self.format)?;
        // "NumChannels … may be 1, 2, or 4."
        matches!(self.channels, 1 | 2 | 4).then_some(channel * self.channels as usize)
    }

    /// Bytes from row to row and from layer to layer, and of the whole.
    pub(crate) fn layout(&self) -> Option<(usize, usize, usize)> {
        let pitch = self.width.checked_mul(self.element()?)?.checked_next_multiple_of(ALIGNMENT)?;
        let layer = pitch.checked_mul(self.height.max(1))?;
        Some((pitch, layer, layer.checked_mul(self.depth.max(1))?))
    }
}

fn channel_size(format: CUarray_format) -> Option<usize> {
    Some(match format {
        CUarray_format::CU_AD_FORMAT_UNSIGNED_INT8 | CUarray_format::CU_AD_FORMAT_SIGNED_INT8 => 1,
        CUarray_format::CU_AD_FORMAT_UNSIGNED_INT16
        | CUarray_format::CU_AD_FORMAT_SIGNED_INT16
        | CUarray_format::CU_AD_FORMAT_HALF => 2,
        CUarray_format::CU_AD_FORMAT_UNSIGNED_INT32
        | CUarray_format::CU_AD_FORMAT_SIGNED_INT32
        | CUarray_format::CU_AD_FORMAT_FLOAT => 4,
        _ => return None,
    })
}

/// An array.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) shape: Shape,
    pub(crate) block: Arc<Block>,
    pub(crate) element: usize,
    pitch: usize,
    layer: usize,
}

impl Array {
    /// An array of a shape that was checked, in memory of its layout's size.
    pub(crate) fn new(shape: Shape, block: Arc<Block>) -> Option<Self> {
        let (pitch, layer, _) = shape.layout()?;
        Some(Self { shape, block, element: shape.element()?, pitch, layer })
    }

    /// A box inside the array as an operand of a copy: from `x` (in bytes), `y` and `z`, of
    /// `extent` bytes, rows and layers. Nothing where it leaves the array or cuts an element.
    pub(crate) fn operand(&self, [x, y, z]: [usize; 3], extent: [usize; 3]) -> Option<Operand> {
        let sizes =
            [self.shape.width * self.element, self.shape.height.max(1), self.shape.depth.max(1)];
        for ((begin, len), size) in [x, y, z].into_iter().zip(extent).zip(sizes) {
            begin.checked_add(len).filter(|end| *end <= size)?;
        }
        // A copy of part of an element has no meaning to a device.
        if !x.is_multiple_of(self.element) || !extent[0].is_multiple_of(self.element) {
            return None;
        }
        let offset = z * self.layer + y * self.pitch + x;
        Some(Operand {
            address: self.block.device + offset as u64,
            place: Place::Device,
            pitch: self.pitch,
            layer: self.layer,
            context: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_room_for_every_element_and_no_size_overflows() {
        let format = CUarray_format::CU_AD_FORMAT_FLOAT;
        let shape = Shape { width: 100, height: 3, depth: 2, format, channels: 2, flags: 0 };
        assert_eq!(shape.layout(), Some((1024, 3072, 6144)));
        assert_eq!(Shape { channels: 3, ..shape }.layout(), None);
        assert_eq!(Shape { width: usize::MAX, ..shape }.layout(), None);
        assert_eq!(Shape { height: usize::MAX, depth: usize::MAX, ..shape }.layout(), None);
    }
}
