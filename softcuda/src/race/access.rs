//! The bytes that an operation accesses.

use std::sync::Arc;

use crate::memory::Block;
use crate::memory::table::{Table, host_address};
use crate::memory::transfer::Side;

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
    /// Writes one word as a whole: such writes do not race with each other.
    Word,
}

/// Bytes that an operation touches, rows apart.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) mode: Mode,
    /// From the first to behind the last byte, as the program named them.
    pub(crate) shown: (u64, u64),
    /// Host addresses and the allocation they are in.
    pub(crate) ranges: Vec<(Arc<Block>, u64, u64)>,
    /// The value written by a write of one word.
    pub(crate) value: Option<u64>,
}

impl Access {
    /// The bytes of a side of a copy or fill; none of memory that the driver does not know.
    pub(crate) fn of_side(
        side: &Side,
        mode: Mode,
        [width, height, depth]: [usize; 3],
    ) -> Option<Self> {
        if side.blocks.is_empty() || width == 0 || height == 0 || depth == 0 {
            return None;
        }
        // More rows than this cost more than they tell.
        let is_packed = height == 1 || side.pitch == width;
        if depth.saturating_mul(if is_packed { 1 } else { height }) > MOST_ROWS {
            return None;
        }
        let (rows, width) = if is_packed { (1, width * height) } else { (height, width) };
        let mut ranges = Vec::new();
        let mut end = side.host;
        for (layer, row) in (0..depth).flat_map(|layer| (0..rows).map(move |row| (layer, row))) {
            let begin = side.host + (layer * side.layer + row * side.pitch) as u64;
            end = begin + width as u64;
            cut(&side.blocks, begin, end, &mut ranges);
        }
        Some(Self {
            mode,
            shown: (side.shown, side.shown + (end - side.host)),
            ranges,
            value: None,
        })
    }

    /// All of an allocation, which begins or ends.
    pub(crate) fn of_block(block: &Arc<Block>) -> Self {
        let size = block.size as u64;
        let ranges = vec![(Arc::clone(block), block.host, block.host + size)];
        Self { mode: Mode::Write, shown: (block.device, block.device + size), ranges, value: None }
    }

    /// Bytes that native code says it touches.
    pub(crate) fn declared(memory: &Table, address: u64, size: usize, mode: Mode) -> Option<Self> {
        let blocks = memory.cover(address, size.max(1))?;
        let host = host_address(blocks.first()?, address);
        let side = Side { host, shown: address, blocks, ..Side::default() };
        Self::of_side(&side, mode, [size, 1, 1])
    }

    /// A word that a stream memory operation writes.
    pub(crate) fn of_word(block: &Arc<Block>, address: u64, wide: bool, value: u64) -> Self {
        let end = address + if wide { 8 } else { 4 };
        let ranges = vec![(Arc::clone(block), address, end)];
        Self { mode: Mode::Word, shown: (address, end), ranges, value: Some(value) }
    }
}

/// The parts of a range in each of several neighbouring allocations.
fn cut(blocks: &[Arc<Block>], begin: u64, end: u64, ranges: &mut Vec<(Arc<Block>, u64, u64)>) {
    for block in blocks {
        let (first, last) = (begin.max(block.host), end.min(block.host + block.size as u64));
        if first < last {
            ranges.push((Arc::clone(block), first, last));
        }
    }
}

/// Copies of more separate rows are not looked at.
const MOST_ROWS: usize = 1 << 16;
