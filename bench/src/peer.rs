//! What an allocator is to this benchmark.

use std::hint::black_box;

/// An allocator under test.
pub trait Peer: Send + Sync + Sized + 'static {
    /// What the tables call it.
    const NAME: &'static str;

    /// What it is compared as.
    const KIND: Kind;

    /// Whatever it hands out: a pointer, an offset, a guard.
    type Block: Send + 'static;

    /// What one thread allocates with.
    type Local<'a>: Local<Block = Self::Block>
    where
        Self: 'a;

    /// A fresh instance, with nothing allocated.
    fn new() -> Self;

    /// The calling thread's way in.
    fn local(&self) -> Self::Local<'_>;
}

/// One thread's way into a [`Peer`].
pub trait Local {
    /// As the peer's.
    type Block;

    /// Allocates at least `size` bytes; `None` if there is no room, or never is for that size.
    fn alloc(&mut self, size: usize) -> Option<Self::Block>;

    /// Frees a block, which may be from another thread.
    fn free(&mut self, block: Self::Block);

    /// Where a block lies, as a range in any unit that is the same for all blocks of the peer;
    /// `None` if the peer does not say.
    fn extent(&self, _block: &Self::Block, _size: usize) -> Option<(usize, usize)> {
        None
    }

    /// Allocates blocks of these sizes as one, and frees them: by one block that is carved up,
    /// if the peer has nothing better.
    #[inline]
    fn bundle(&mut self, sizes: &[u32; STEP_INPUTS]) -> Option<()> {
        let mut offsets = [0_u64; STEP_INPUTS];
        let mut total = 0;
        for (offset, size) in offsets.iter_mut().zip(sizes) {
            *offset = total;
            total += u64::from(*size).next_multiple_of(256);
        }
        let block = self.alloc(usize::try_from(total).ok()?)?;
        black_box((&block, &offsets));
        self.free(block);
        Some(())
    }
}

/// An allocator that all threads use through one shared reference.
pub trait Shared: Send + Sync + Sized + 'static {
    /// See [`Peer::NAME`].
    const NAME: &'static str;

    /// See [`Peer::KIND`].
    const KIND: Kind;

    /// See [`Peer::Block`].
    type Block: Send + 'static;

    /// See [`Peer::new`].
    fn new() -> Self;

    /// See [`Local::alloc`].
    fn alloc(&self, size: usize) -> Option<Self::Block>;

    /// See [`Local::free`].
    fn free(&self, block: Self::Block);

    /// See [`Local::extent`].
    fn extent(&self, _block: &Self::Block, _size: usize) -> Option<(usize, usize)> {
        None
    }
}

impl<S: Shared> Peer for S {
    const NAME: &'static str = S::NAME;
    const KIND: Kind = S::KIND;
    type Block = S::Block;
    type Local<'a> = &'a S;

    fn new() -> Self {
        S::new()
    }

    fn local(&self) -> &S {
        self
    }
}

impl<S: Shared> Local for &S {
    type Block = S::Block;

    #[inline]
    fn alloc(&mut self, size: usize) -> Option<S::Block> {
        S::alloc(self, size)
    }

    #[inline]
    fn free(&mut self, block: S::Block) {
        S::free(self, block);
    }

    fn extent(&self, block: &S::Block, size: usize) -> Option<(usize, usize)> {
        S::extent(self, block, size)
    }
}

/// What a peer is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The harness alone: it allocates nothing.
    Harness,
    /// wharf.
    Ours,
    /// Blocks of fixed sizes, a pool for each size class.
    Pool,
    /// An allocator of ranges that it does not touch.
    Range,
    /// An allocator of the process's memory, part of whose metadata is in it.
    Malloc,
}

/// Inputs of a step of inference.
pub const STEP_INPUTS: usize = 12;
