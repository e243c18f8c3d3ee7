#![expect(unsafe_code, reason = "moves bytes between addresses that the caller named")]
//! Copies and fills whose operands are known.

use core::ptr;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use super::block::Block;

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
        self.blocks.iter().map(|block| &**block).find(|block| block.is_freed() || block.is_pending())
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
    /// What the source hashed to at the call, where that is checked.
    pub(crate) hash: Option<u64>,
}

/// What went wrong while bytes were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// The most bytes that are held aside at once.
const PIECE: usize = 1 << 20;

/// A part of a row: offsets into both sides, and its length.
struct Piece {
    src: u64,
    dst: u64,
    len: usize,
}

impl Copy {
    /// The rows, cut in pieces.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        // A copy of nothing has no rows, however many it names.
        let (height, depth) = if self.bytes() == 0 { (0, 0) } else { (self.height, self.depth) };
        let rows = (0..depth).flat_map(move |layer| (0..height).map(move |row| (row, layer)));
        rows.flat_map(move |(row, layer)| {
            let (src, dst) = (self.src.row(row, layer), self.dst.row(row, layer));
            (0..self.width).step_by(PIECE).map(move |done| Piece {
                src: src + done as u64,
                dst: dst + done as u64,
                len: PIECE.min(self.width - done),
            })
        })
    }

    /// The number of bytes moved.
    pub(crate) fn bytes(&self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.depth)
    }

    /// Keeps the source's bytes, so that the caller may reuse it.
    pub(crate) fn stage(&mut self) -> Result<(), Unreachable> {
        let mut bytes = Vec::new();
        for piece in self.pieces() {
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
        for piece in self.pieces() {
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
        if let Some(staged) = &self.staged {
            let mut rest = staged.as_slice();
            for piece in self.pieces() {
                let (bytes, after) = rest.split_at_checked(piece.len).ok_or(Unreachable)?;
                write(&self.dst, piece.dst, bytes)?;
                rest = after;
            }
            return Ok(());
        }
        self.pieces().try_for_each(|piece| self.move_piece(&piece))
    }

    fn move_piece(&self, piece: &Piece) -> Result<(), Unreachable> {
        let Piece { src, dst, len } = *piece;
        match (self.src.is_pageable(), self.dst.is_pageable()) {
            (false, false) => {
                // SAFETY: both ranges lie in allocations that this copy holds references to, so
                // they are mapped; `copy` allows overlap. Whether the program races with it is
                // the program's business, as on a device.
                unsafe { ptr::copy(pointer(src).cast_const(), pointer(dst), len) };
                Ok(())
            }
            (true, false) => across(Direction::FromProcess, src, pointer(dst), len),
            (false, true) => across(Direction::ToProcess, dst, pointer(src), len),
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
        return across(Direction::FromProcess, address, bytes.as_mut_ptr(), bytes.len());
    }
    // SAFETY: the range lies in an allocation that the side holds a reference to.
    unsafe { ptr::copy(pointer(address).cast_const(), bytes.as_mut_ptr(), bytes.len()) };
    Ok(())
}

fn write(side: &Side, address: u64, bytes: &[u8]) -> Result<(), Unreachable> {
    if side.is_pageable() {
        return across(Direction::ToProcess, address, bytes.as_ptr().cast_mut(), bytes.len());
    }
    // SAFETY: as in `read`.
    unsafe { ptr::copy(bytes.as_ptr(), pointer(address), bytes.len()) };
    Ok(())
}

/// Fills an allocation that owns its bytes.
pub(crate) fn fill(block: &Block, pattern: u8) {
    // SAFETY: the block owns `size` mapped bytes, and no operation uses them: it is either new
    // or freed with nothing in flight.
    unsafe { ptr::write_bytes(pointer(block.host), pattern, block.size) };
}

/// Whether every page of a range of the program's memory can be read.
pub(crate) fn is_mapped(address: u64, size: usize) -> bool {
    let last = address + size as u64 - 1;
    let mut byte = 0;
    (address..=last)
        .step_by(4096)
        .chain([last])
        .all(|page| across(Direction::FromProcess, page, &raw mut byte, 1).is_ok())
}

#[derive(Clone, Copy)]
enum Direction {
    FromProcess,
    ToProcess,
}

/// Moves bytes between the program's pageable memory at `remote` and `local`, which is ours.
///
/// The kernel does it, so an address that is not mapped is an error instead of a crash.
fn across(direction: Direction, remote: u64, local: *mut u8, size: usize) -> Result<(), Unreachable> {
    let mut done = 0;
    while done < size {
        let local_part = libc::iovec { iov_base: local.wrapping_add(done).cast(), iov_len: size - done };
        let remote_part =
            libc::iovec { iov_base: pointer(remote).wrapping_add(done).cast(), iov_len: size - done };
        // SAFETY: no precondition.
        let process = unsafe { libc::getpid() };
        let moved = match direction {
            // SAFETY: `local` has `size` bytes for writing; the kernel checks `remote`.
            Direction::FromProcess => unsafe {
                libc::process_vm_readv(process, &raw const local_part, 1, &raw const remote_part, 1, 0)
            },
            // SAFETY: `local` has `size` bytes for reading; the kernel checks `remote`, and
            // that the program lets the driver write there is the meaning of the call.
            Direction::ToProcess => unsafe {
                libc::process_vm_writev(process, &raw const local_part, 1, &raw const remote_part, 1, 0)
            },
        };
        done += usize::try_from(moved).ok().filter(|moved| *moved > 0).ok_or(Unreachable)?;
    }
    Ok(())
}

/// Writes the first bytes of an allocation that nobody knows yet.
pub(crate) fn write_begin(block: &Block, bytes: &[u8]) {
    let len = bytes.len().min(block.size);
    // SAFETY: the block owns `size` mapped bytes, of which these are the first.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(block.host), len) };
}
