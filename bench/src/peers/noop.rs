//! The harness alone: what a loop costs whose allocator does nothing.

use std::hint::black_box;

use crate::peer::{Kind, Shared};

/// Hands out the size.
#[derive(Debug)]
pub struct Noop;

impl Shared for Noop {
    const NAME: &'static str = "(harness)";
    const KIND: Kind = Kind::Harness;
    type Block = (u64, u64);

    fn new() -> Self {
        Self
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        Some((size as u64, 1))
    }

    #[inline]
    fn free(&self, block: Self::Block) {
        black_box(block.1);
    }
}
