//! PyTorch's allocators by their rules, which `wharf replay` has too.

use wharf_cli::torch::{Torch, TorchBlock};

use super::Allocator;
use crate::stream_order::Failure;

/// An allocator, and its blocks by number.
pub(super) struct Rules {
    torch: Torch,
    live: Vec<Option<TorchBlock>>,
}

impl Rules {
    pub(super) fn new(torch: Torch) -> Self {
        Self { torch, live: Vec::new() }
    }
}

impl Allocator for Rules {
    fn alloc(&mut self, block: usize, size: usize, stream: usize) -> Result<bool, Failure> {
        self.live.resize_with((block + 1).max(self.live.len()), || None);
        self.live[block] = self.torch.alloc(size, stream);
        Ok(self.live[block].is_some())
    }

    fn free(&mut self, block: usize) -> Result<(), Failure> {
        if let Some(block) = self.live[block].take() {
            self.torch.free(block);
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.torch.reserved()
    }

    fn calls(&self) -> (usize, usize) {
        self.torch.calls()
    }
}
