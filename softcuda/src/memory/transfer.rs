#![expect(unsafe_code, reason = "moves bytes between addresses that the caller named")]
//! Copies and fills whose operands are known.

use core::ptr;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use super::block::Block;
use super::pageable::{Unreachable, get, put};

/// One side of a copy: where its rows are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// Host address of the first byte.
    pub(crate) host: u64,
    /// The address as the caller gave it, for reports.
    pub(crate) shown: u64,
    /// Bytes from one row to the next.
    pub(crate) pitch: usize,
    /// Bytes from one layer to the next.
    pub(crate) layer: usize,
    /// The allocations that contain it; none for pageable memory.
    pub(crate) blocks: Vec<Arc<Block>>,
}

impl Side {
    /// Whether this is ordinary memory of the program, unknown to the driver.
    pub(crate) fn is_pageable(&self) -> bool {
        self.blocks.is_empty()
    }

    fn freed(&self) -> Option<&Block> {
        self.blocks
            .iter()
            .map(|block| &**block)
            .find(|block| block.is_freed() || block.is_pending())
    }

    fn row(&self, row: usize, layer: usize) -> u64 {
        self.host + (row * self.pitch + layer * self.layer) as u64
    }
}

/// A copy of `depth` layers of `height` rows of `width` bytes.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) dst: Side,
    pub(crate) src: Side,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
    /// The bytes of a pageable source as they were at the call.
    pub(crate) staged: Option<Vec<u8>>,
    /// The hash of the source at the call, if that is checked.
    pub(crate) hash: Option<u64>,
    pub(crate) landing: Landing,
}

/// In which order the bytes of a copy arrive, of which the driver promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// Low to high.
    Rising,
    /// The last ones first.
    Falling,
    /// From anywhere on, either way round: drawn from this number.
    Drawn(u64),
}

impl Landing {
    /// The piece of `count` that arrives after `done` others.
    fn piece(self, done: usize, count: usize) -> usize {
        match self {
            Self::Rising => done,
            Self::Falling => count - 1 - done,
            Self::Drawn(number) => {
                let step = if number & 1 == 0 { done } else { count - 1 - done };
                let first = usize::try_from(number >> 33).unwrap_or(0) % count;
                // Both are below `count`.
                step.checked_sub(count - first).unwrap_or(step.wrapping_add(first))
            }
        }
    }
}

/// The most bytes that are held aside at once.
const PIECE: usize = 1 << 20;
/// Where the order of bytes is free, a row is cut in so many pieces, which have at least so many
/// bytes.
const CUTS: usize = 4;
const LEAST: usize = 4096;

/// A part of a row: where it is on both sides and among the bytes held aside, and its length.
struct Piece {
    src: u64,
    dst: u64,
    held: usize,
    len: usize,
}

impl Copy {
    /// The bytes of every piece but the last of a row.
    fn piece_size(&self) -> usize {
        match self.landing {
            Landing::Rising => PIECE,
            Landing::Falling | Landing::Drawn(_) => self.width.div_ceil(CUTS).clamp(LEAST, PIECE),
        }
    }

    /// The rows, cut in pieces, in the order in which they arrive.
    fn pieces(&self, landing: Landing) -> impl Iterator<Item = Piece> {
        let size = self.piece_size();
        let in_row = self.width.div_ceil(size);
        // A copy of nothing has no rows, however many it names.
        let count = in_row.saturating_mul(self.height).saturating_mul(self.depth);
        (0..count).map(move |done| {
            let index = landing.piece(done, count);
            let (row, done) = (index / in_row, index % in_row * size);
            let (layer, in_layer) = (row / self.height, row % self.height);
            Piece {
                src: self.src.row(in_layer, layer) + done as u64,
                dst: self.dst.row(in_layer, layer) + done as u64,
                held: row.saturating_mul(self.width).saturating_add(done),
                len: size.min(self.width - done),
            }
        })
    }

    /// The number of bytes moved.
    pub(crate) fn bytes(&self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }

    /// Keeps the source's bytes, so that the caller may reuse it.
    pub(crate) fn stage(&mut self) -> Result<(), Unreachable> {
        let mut bytes = Vec::new();
        for piece in self.pieces(Landing::Rising) {
            let done = bytes.len();
            // A size that is no size of anything ends here or at the first unmapped page.
            bytes.try_reserve(piece.len).map_err(|_| Unreachable)?;
            bytes.resize(done + piece.len, 0);
            read(&self.src, piece.src, &mut bytes[done..])?;
        }
        self.staged = Some(bytes);
        Ok(())
    }

    /// The hash of the source as it is now.
    pub(crate) fn hash_source(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let mut bytes = vec![0; self.width.min(PIECE)];
        for piece in self.pieces(Landing::Rising) {
            read(&self.src, piece.src, &mut bytes[..piece.len]).ok()?;
            hasher.write(&bytes[..piece.len]);
        }
        Some(hasher.finish())
    }

    /// The allocation among the operands that was freed since the call, or is not there yet.
    pub(crate) fn freed(&self) -> Option<&Block> {
        let source = if self.staged.is_some() { None } else { self.src.freed() };
        self.dst.freed().or(source)
    }

    /// Moves the bytes.
    pub(crate) fn run(&self) -> Result<(), Unreachable> {
        for piece in self.pieces(self.landing) {
            match &self.staged {
                Some(staged) => {
                    let rest = staged.get(piece.held..).ok_or(Unreachable)?;
                    let bytes = rest.get(..piece.len).ok_or(Unreachable)?;
                    write(&self.dst, piece.dst, bytes)?;
                }
                None => self.move_piece(&piece)?,
            }
        }
        Ok(())
    }

    fn move_piece(&self, piece: &Piece) -> Result<(), Unreachable> {
        let Piece { src, dst, len, .. } = *piece;
        match (self.src.is_pageable(), self.dst.is_pageable()) {
            (false, false) => {
                // SAFETY: both ranges lie in allocations that this copy holds references to, so
                // they are mapped; `copy` allows overlap. Whether the program races with it is
                // the program's business, as on a device.
                unsafe { ptr::copy(pointer(src).cast_const(), pointer(dst), len) };
                Ok(())
            }
            (true, false) => get(src, pointer(dst), len),
            (false, true) => put(dst, pointer(src), len),
            (true, true) => {
                let mut bytes = vec![0; len];
                read(&self.src, src, &mut bytes)?;
                write(&self.dst, dst, &bytes)
            }
        }
    }
}

/// A fill of `height` rows of `width` elements.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    pub(crate) dst: Side,
    pub(crate) value: u32,
    /// Bytes an element: 1, 2 or 4.
    pub(crate) element: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Fill {
    pub(crate) fn freed(&self) -> Option<&Block> {
        self.dst.freed()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.element * self.width * self.height
    }

    /// Writes the elements.
    pub(crate) fn run(&self) {
        let pattern = self.value.to_ne_bytes();
        // Rows of nothing are none, however many there are.
        let height = if self.width == 0 { 0 } else { self.height };
        for row in 0..height {
            let first = pointer(self.dst.row(row, 0));
            if self.element == 1 {
                // SAFETY: the row lies in an allocation that this fill holds a reference to.
                unsafe { ptr::write_bytes(first, pattern[0], self.width) };
                continue;
            }
            for index in 0..self.width {
                // SAFETY: as above: `index` is below the row's width.
                let to = unsafe { first.add(index * self.element) };
                // SAFETY: `to` has `element` bytes left in the row, and `pattern` has four.
                unsafe { ptr::copy_nonoverlapping(pattern.as_ptr(), to, self.element) };
            }
        }
    }
}

fn pointer(address: u64) -> *mut u8 {
    crate::address::pointer(address)
}

fn read(side: &Side, address: u64, bytes: &mut [u8]) -> Result<(), Unreachable> {
    if side.is_pageable() {
        return get(address, bytes.as_mut_ptr(), bytes.len());
    }
    // SAFETY: the range lies in an allocation that the side holds a reference to.
    unsafe { ptr::copy(pointer(address).cast_const(), bytes.as_mut_ptr(), bytes.len()) };
    Ok(())
}

fn write(side: &Side, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
    if side.is_pageable() {
        return put(address, bytes.as_ptr(), bytes.len());
    }
    // SAFETY: as in `read`.
    unsafe { ptr::copy(bytes.as_ptr(), pointer(address), bytes.len()) };
    Ok(())
}

/// Fills an allocation that owns its bytes.
pub(crate) fn fill(block: &Block, pattern: u8) {
    // SAFETY: the block owns `size` mapped bytes. It is new, or freed with nothing in flight, or
    // comes to life or ends in its stream's order: an operation beside that is the program's race.
    unsafe { ptr::write_bytes(pointer(block.host), pattern, block.size) };
}

/// Writes the first bytes of a new allocation, before its address is given out.
pub(crate) fn write_begin(block: &Block, bytes: &[u8]) {
    let len = bytes.len().min(block.size);
    // SAFETY: the block owns `size` mapped bytes, of which these are the first.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(block.host), len) };
}

#[cfg(test)]
mod tests {
    use super::Landing;

    #[test]
    fn every_piece_arrives_once_in_whatever_order() {
        let drawn = (0..50u64).map(|number| Landing::Drawn(number | number << 33));
        for landing in [Landing::Rising, Landing::Falling].into_iter().chain(drawn) {
            for count in 1..9 {
                let mut pieces: Vec<_> =
                    (0..count).map(|done| landing.piece(done, count)).collect();
                pieces.sort_unstable();
                assert_eq!(pieces, (0..count).collect::<Vec<_>>(), "{landing:?}");
            }
        }
    }
}
